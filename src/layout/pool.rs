// SPDX-License-Identifier: GPL-2.0

//! The nodes of a layout, and the memory they live in.
//!
//! A node is known by its index: its number within the pool, which never changes while the node is
//! in use. The memory comes from outside, in chunks of [`CHUNK_NODES`] nodes that a directory of
//! boxes leads to. It is allocated ahead of time ([`Need`], [`Spare`]) and handed over under the
//! lock, so that taking and returning a node never allocates and never frees.

use super::{
    node::{
        Node,
        NIL, //
    },
    Range,
    Segment, //
};
use crate::sys::warn::warn_on_once;
use core::ops::DerefMut;

/// Nodes in a chunk: as many as fit 4096 bytes.
pub(crate) const CHUNK_NODES: usize = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 5;

/// Chunks in the largest pool: the index [`NIL`] is in none of them.
const MAX_CHUNKS: usize = (NIL >> CHUNK_SHIFT) as usize;

/// The unit in which a pool gets memory: one allocation of at most 4096 bytes, aligned to 64.
///
/// A new chunk is filled with [`Node::vacant()`].
pub(crate) type Chunk<S> = [Node<S>; CHUNK_NODES];

/// Where the memory of a layout comes from.
pub(crate) trait Store: Sized {
    /// The handle of a segment.
    type Segment: Segment;

    /// A box that owns one chunk.
    type Chunk: DerefMut<Target = Chunk<Self::Segment>>;

    /// A vector of chunks that never allocates by itself; the default has no room and needs no
    /// memory.
    type Directory: Default + DerefMut<Target = [Self::Chunk]>;

    /// Why there is no memory.
    type Error;

    /// Allocates a chunk, all of it [`Node::vacant()`]. Called by [`Spare::new()`] only; may sleep.
    fn chunk() -> Result<Self::Chunk, Self::Error>;

    /// Allocates an empty directory with room for `slots` chunks. Called by [`Spare::new()`] only;
    /// may sleep.
    fn directory(slots: usize) -> Result<Self::Directory, Self::Error>;

    /// How many chunks a directory has room for, those in it among them.
    fn slots(directory: &Self::Directory) -> usize;

    /// Puts a chunk behind those that are there; there is room.
    fn push(directory: &mut Self::Directory, chunk: Self::Chunk);

    /// Takes the last chunk out.
    fn pop(directory: &mut Self::Directory) -> Option<Self::Chunk>;
}

/// What a pool lacks before it can give a certain number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// New chunks.
    chunks: usize,
    /// Slots of the directory in which they are handed over. More than the present directory has
    /// means that it is to be the new directory.
    slots: usize,
}

impl Need {
    /// Whether nothing is needed, so that no [`Spare`] need be made.
    pub(crate) fn is_none(&self) -> bool {
        self.chunks == 0
    }
}

/// Memory on its way into a layout, and what the layout gave back for it.
///
/// Made and dropped without the lock.
pub(crate) struct Spare<M: Store> {
    slots: M::Directory,
}

impl<M: Store> Spare<M> {
    /// Allocates what `need` says. May sleep.
    pub(crate) fn new(need: Need) -> Result<Self, M::Error> {
        if need.is_none() {
            return Ok(Self {
                slots: M::Directory::default(),
            });
        }
        let mut slots = M::directory(need.slots)?;
        for _ in 0..need.chunks {
            M::push(&mut slots, M::chunk()?);
        }
        Ok(Self { slots })
    }
}

/// The nodes.
pub(super) struct Pool<M: Store> {
    directory: M::Directory,
    /// Nodes with this index and above were never in use.
    fresh: u32,
    /// First of the list of nodes that were in use and are vacant.
    vacant: u32,
    /// Nodes in use.
    used: usize,
    /// State of the generator of priorities.
    seed: u64,
    /// Where a link ends that leads nowhere: a vacant node, below which there is nothing, so that
    /// every walk ends.
    nowhere: Node<M::Segment>,
}

impl<M: Store> Pool<M> {
    /// A pool with no memory. `seed` makes its priorities.
    pub(super) fn new(seed: u64) -> Self {
        const {
            assert!(size_of::<Node<M::Segment>>() <= 128);
            assert!(size_of::<Chunk<M::Segment>>() <= 4096);
        }
        Self {
            directory: M::Directory::default(),
            fresh: 0,
            vacant: NIL,
            used: 0,
            seed,
            nowhere: Node::vacant(),
        }
    }

    /// Nodes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Nodes that there is memory for.
    #[inline]
    fn room(&self) -> usize {
        self.directory.len() << CHUNK_SHIFT
    }

    /// Nodes that can be taken.
    pub(super) fn free(&self) -> usize {
        self.room() - self.used
    }

    /// What is lacking before `nodes` can be taken.
    pub(super) fn need(&self, nodes: usize) -> Need {
        let chunks = nodes.saturating_sub(self.free()).div_ceil(CHUNK_NODES);
        let total = self.directory.len().saturating_add(chunks);
        let length = M::slots(&self.directory);
        let slots = if total <= length {
            chunks
        } else {
            // Twice the length, so that moving the directory costs nothing on average; half a
            // cache line to begin with.
            total.max(length.saturating_mul(2)).max(4)
        };
        Need { chunks, slots }
    }

    /// Takes the chunks of `spare`, and its directory if that is longer than the present one. What
    /// is left in `spare` is to be freed.
    ///
    /// O(slots of `spare`), and of the old directory if it goes.
    pub(super) fn refill(&mut self, spare: &mut Spare<M>) {
        let spare = &mut spare.slots;
        let slots = M::slots(spare);
        if slots > M::slots(&self.directory) {
            core::mem::swap(&mut self.directory, spare);
            let total = self.directory.len() + spare.len();
            let surplus = total.saturating_sub(slots.min(MAX_CHUNKS)).min(spare.len());
            // A chunk's nodes are known by its place, so the old ones go in front, as they were;
            // of the new ones the surplus takes their places, and the others go behind.
            for (new, old) in self
                .directory
                .iter_mut()
                .zip(spare.iter_mut())
                .take(surplus)
            {
                core::mem::swap(new, old);
            }
            while spare.len() > surplus {
                let Some(old) = M::pop(spare) else { break };
                M::push(&mut self.directory, old);
            }
            self.directory[surplus..].reverse();
        }
        let room = M::slots(&self.directory).min(MAX_CHUNKS);
        while self.directory.len() < room {
            let Some(chunk) = M::pop(spare) else { break };
            M::push(&mut self.directory, chunk);
        }
    }

    /// Where the node `index` lies: its chunk, and its place in it.
    #[inline]
    fn place(index: u32) -> (usize, usize) {
        let place = index as usize;
        (place >> CHUNK_SHIFT, place & (CHUNK_NODES - 1))
    }

    /// The node `index`, which is in use: only a broken tree can lead elsewhere.
    #[inline]
    pub(super) fn get(&self, index: u32) -> &Node<M::Segment> {
        let (chunk, node) = Self::place(index);
        match self.directory.get(chunk) {
            Some(chunk) => &chunk[node],
            None => {
                lost();
                &self.nowhere
            }
        }
    }

    /// As [`Self::get()`].
    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Node<M::Segment> {
        let (chunk, node) = Self::place(index);
        match self.directory.get_mut(chunk) {
            Some(chunk) => &mut chunk[node],
            None => {
                lost();
                self.nowhere = Node::vacant();
                &mut self.nowhere
            }
        }
    }

    /// Takes a node, which is to be filled and given its new priority; returns both, or [`None`] if
    /// there is no free node. O(1).
    #[inline]
    pub(super) fn take(&mut self) -> Option<(u32, u32)> {
        let index = if self.vacant != NIL {
            let index = self.vacant;
            self.vacant = self.get(index).next;
            index
        } else {
            let index = self.fresh;
            if index as usize >= self.room() {
                return None;
            }
            self.fresh += 1;
            index
        };
        self.used += 1;
        Some((index, self.priority()))
    }

    /// Makes the node `index`, which is in no tree any more, vacant. O(1).
    #[inline]
    pub(super) fn put(&mut self, index: u32) -> Option<Range<M::Segment>> {
        let vacant = self.vacant;
        self.vacant = index;
        self.used -= 1;
        let node = self.get_mut(index);
        node.next = vacant;
        node.range.take()
    }

    /// Panics unless the accounts are right: memory where it is said to be, and every node either
    /// in use or vacant.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.fresh as usize <= self.room());
        let used = (0..self.fresh).filter(|&index| self.get(index).range.is_some());
        assert_eq!(used.count(), self.used);
        let (mut index, mut vacant) = (self.vacant, 0);
        while index != NIL {
            assert!(
                self.get(index).range.is_none(),
                "node {index} is in use and vacant"
            );
            vacant += 1;
            index = self.get(index).next;
        }
        assert_eq!(self.used + vacant, self.fresh as usize, "nodes were lost");
    }

    /// The next priority (as wyrand makes numbers): fresh for every use of a node, so that an
    /// owner that does not know the seed cannot choose changes that make the trees deep.
    #[inline]
    fn priority(&mut self) -> u32 {
        self.seed = self.seed.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = u128::from(self.seed) * u128::from(self.seed ^ 0xe703_7ed1_a0b4_28db);
        (wide >> 64) as u32 ^ wide as u32
    }
}

/// A link leads to no node: the trees are corrupt.
#[cold]
#[inline(never)]
fn lost() {
    warn_on_once!(true);
}
