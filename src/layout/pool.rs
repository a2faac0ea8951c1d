// SPDX-License-Identifier: GPL-2.0

//! The nodes of a layout, and the memory they live in.
//!
//! This file owns the nodes. A node is known by its index: its number within the pool, which never
//! changes while the node is in use. The memory comes from outside, in chunks of [`CHUNK_NODES`]
//! nodes that a directory of boxes leads to. It is allocated ahead of time ([`Need`], [`Spare`])
//! and moved in under the lock, so that taking and returning a node never allocates and never
//! frees. Both are O(1), and so is finding the node of an index.
//!
//! Nothing here panics on a link that leads to no node, which only a corrupt layout has: it is
//! reported ([`Client::corrupt()`]), and a vacant node is found there, whose links end every walk.

use super::{
    node::{
        corrupt,
        Client,
        Node,
        NIL, //
    },
    Range, //
};
use core::ops::DerefMut;

/// Nodes in a chunk: as many as fit 4096 bytes.
pub(crate) const CHUNK_NODES: usize = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 5;

/// Chunks in the largest pool: the index [`NIL`] is in none of them.
const MAX_CHUNKS: usize = (NIL >> CHUNK_SHIFT) as usize;

/// The unit in which a pool gets memory: one allocation of at most 4096 bytes, aligned to 64.
///
/// A new chunk is filled with [`Node::vacant()`].
pub(crate) type Chunk<M> = [Node<M>; CHUNK_NODES];

/// Where the memory of a layout comes from.
pub(crate) trait Store: Client + Sized {
    /// A box that owns one chunk.
    type Chunk: DerefMut<Target = Chunk<Self>>;

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
    /// Slots of the directory that they come in. If those are more than the present directory has,
    /// it becomes the new directory.
    slots: usize,
}

impl Need {
    /// Whether nothing is needed, so that no [`Spare`] need be made.
    pub(crate) fn is_none(&self) -> bool {
        self.chunks == 0
    }
}

/// Memory on its way into a layout, and then what the layout does not need.
///
/// Made and dropped without the lock.
pub(crate) struct Spare<M: Store> {
    slots: M::Directory,
}

impl<M: Store> Spare<M> {
    /// Allocates `need`. May sleep.
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
    /// What [`Self::get()`] finds where there is no node. Nothing ever writes to it.
    missing: Node<M>,
    /// What [`Self::get_mut()`] finds there: made vacant each time.
    scratch: Node<M>,
}

impl<M: Store> Pool<M> {
    /// A pool with no memory. `seed` makes its priorities.
    pub(super) fn new(seed: u64) -> Self {
        const {
            assert!(size_of::<Node<M>>() <= 128);
            assert!(size_of::<Chunk<M>>() <= 4096);
        }
        Self {
            directory: M::Directory::default(),
            fresh: 0,
            vacant: NIL,
            used: 0,
            seed,
            missing: Node::vacant(),
            scratch: Node::vacant(),
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

    /// Whether `nodes` can be taken.
    pub(super) fn has(&self, nodes: usize) -> bool {
        self.used.saturating_add(nodes) <= self.room()
    }

    /// What is lacking before `nodes` can be taken.
    pub(super) fn need(&self, nodes: usize) -> Need {
        let nodes = self.used.saturating_add(nodes);
        let chunks = nodes.saturating_sub(self.room()).div_ceil(CHUNK_NODES);
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
            let total = self.directory.len().saturating_add(spare.len());
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
            if let Some(kept) = self.directory.get_mut(surplus..) {
                kept.reverse();
            }
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

    /// The node `index`, which is in use: only in a corrupt layout there is none.
    #[inline]
    pub(super) fn get(&self, index: u32) -> &Node<M> {
        let (chunk, node) = Self::place(index);
        match self.directory.get(chunk) {
            Some(chunk) => &chunk[node],
            None => {
                corrupt::<M>(NO_NODE);
                &self.missing
            }
        }
    }

    /// As [`Self::get()`].
    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Node<M> {
        let (chunk, node) = Self::place(index);
        match self.directory.get_mut(chunk) {
            Some(chunk) => &mut chunk[node],
            None => renewed(&mut self.scratch),
        }
    }

    /// The node that a link leads to; [`None`] if the link is [`NIL`], and in a corrupt layout.
    ///
    /// This compares no more than [`Self::get()`] does: no chunk has the node [`NIL`].
    #[inline]
    pub(super) fn linked(&self, index: u32) -> Option<&Node<M>> {
        let (chunk, node) = Self::place(index);
        match self.directory.get(chunk) {
            Some(chunk) => Some(&chunk[node]),
            None => {
                no_node::<M>(index);
                None
            }
        }
    }

    /// As [`Self::linked()`].
    #[inline]
    pub(super) fn linked_mut(&mut self, index: u32) -> Option<&mut Node<M>> {
        let (chunk, node) = Self::place(index);
        match self.directory.get_mut(chunk) {
            Some(chunk) => Some(&mut chunk[node]),
            None => {
                no_node::<M>(index);
                None
            }
        }
    }

    /// Takes a node; the caller fills it and gives it the new priority, which is returned too.
    /// [`None`] if there is no free node. O(1).
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
            self.fresh = index.wrapping_add(1);
            index
        };
        self.used = self.used.wrapping_add(1);
        Some((index, self.priority()))
    }

    /// Makes the node `index`, which is in no tree any more, vacant. O(1).
    #[inline]
    pub(super) fn put(&mut self, index: u32) -> Option<Range<M::Segment>> {
        let vacant = self.vacant;
        let node = self.get_mut(index);
        let Some(range) = node.range.take() else {
            // It must not be vacant twice.
            corrupt::<M>("a vacant node is put");
            return None;
        };
        node.next = vacant;
        self.vacant = index;
        self.used = self.used.wrapping_sub(1);
        Some(range)
    }

    /// Panics unless the counts are right, and every node is either in use or vacant.
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

    /// The next priority, a number of the generator wyrand: a new one for every use of a node, so
    /// that an owner that does not know the seed can choose no order of changes that makes the
    /// trees deep.
    #[inline]
    fn priority(&mut self) -> u32 {
        self.seed = self.seed.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = u128::from(self.seed) * u128::from(self.seed ^ 0xe703_7ed1_a0b4_28db);
        (wide >> 64) as u32 ^ wide as u32
    }
}

/// How a link that leads to no node is reported.
const NO_NODE: &str = "a link leads to no node";

/// Reports a link that leads to no node, unless it is [`NIL`].
#[inline]
fn no_node<M: Store>(index: u32) {
    if index != NIL {
        corrupt::<M>(NO_NODE);
    }
}

/// What [`Pool::get_mut()`] finds where there is no node.
#[cold]
#[inline(never)]
fn renewed<M: Store>(scratch: &mut Node<M>) -> &mut Node<M> {
    corrupt::<M>(NO_NODE);
    *scratch = Node::vacant();
    scratch
}
