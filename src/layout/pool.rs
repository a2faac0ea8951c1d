// SPDX-License-Identifier: GPL-2.0

//! The nodes of a layout, and the memory they live in.
//!
//! A node is known by its index: its number within the pool, which never changes while the node is
//! in use. The memory comes from outside, in chunks of [`CHUNK_NODES`] nodes that a directory of
//! boxes leads to. It is asked for ahead of time ([`Need`], [`Spare`]) and handed over under the
//! lock, so that taking and returning a node never allocates and never frees.

use super::{
    tree::Links,
    Range,
    Segment, //
};
use core::ops::DerefMut;

/// The index that is no node.
pub(super) const NIL: u32 = u32::MAX;

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

    /// An array of fixed length that owns its slots; the default has none and needs no memory.
    type Directory: Default + DerefMut<Target = [Option<Self::Chunk>]>;

    /// Why there is no memory.
    type Error;

    /// Allocates a chunk, all of it [`Node::vacant()`]. Called by [`Spare::new()`] only; may sleep.
    fn chunk() -> Result<Self::Chunk, Self::Error>;

    /// Allocates a directory of exactly `slots` slots, all of them [`None`]. Called by
    /// [`Spare::new()`] only; may sleep.
    fn directory(slots: usize) -> Result<Self::Directory, Self::Error>;
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
        for slot in slots.iter_mut().take(need.chunks) {
            *slot = Some(M::chunk()?);
        }
        Ok(Self { slots })
    }
}

/// One range and its place in the two trees.
///
/// A search by space page reads only the first cache line.
#[repr(C, align(64))]
pub(crate) struct Node<S> {
    /// What the node stands for; [`None`] while it is vacant.
    pub(super) range: Option<Range<S>>,
    /// The id of the range's segment, which would otherwise be a pointer away.
    pub(super) segment_id: u64,
    /// In the tree by space page; of a vacant node, the right child is the next vacant one.
    pub(super) space: Links,
    /// Of both trees: no node has a higher one than its parent.
    pub(super) priority: u32,
    /// What the subtree by space page spans.
    pub(super) span: Span,
    /// In the tree by segment page.
    pub(super) segment: Links,
    /// The highest (segment id, end page in it) of the subtree by segment page.
    pub(super) reach: (u64, u64),
}

/// Summary of a subtree by space page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Pages of the longest hole between two ranges of the subtree.
    pub(super) gap: u64,
    /// Where its first range starts.
    pub(super) start: u64,
    /// Where its last range ends.
    pub(super) end: u64,
}

impl<S> Node<S> {
    /// A node that stands for nothing: what new chunks are filled with.
    pub(crate) const fn vacant() -> Self {
        Self {
            range: None,
            segment_id: 0,
            space: Links::NONE,
            priority: 0,
            span: Span {
                gap: 0,
                start: 0,
                end: 0,
            },
            segment: Links::NONE,
            reach: (0, 0),
        }
    }

    /// Lets the node, which is not in the tree by segment page, stand for `range`, and gives back
    /// what it stood for.
    pub(super) fn fill(&mut self, range: Range<S>) -> Option<Range<S>>
    where
        S: Segment,
    {
        self.segment_id = range.segment.id();
        self.range.replace(range)
    }

    /// First page and page after the last in the space; an empty range if the node is vacant.
    #[inline]
    pub(super) fn bounds(&self) -> (u64, u64) {
        match &self.range {
            Some(range) => (range.start, range.end),
            None => (0, 0),
        }
    }

    /// First page and page after the last in the segment; an empty range if the node is vacant.
    #[inline]
    pub(super) fn segment_bounds(&self) -> (u64, u64) {
        match &self.range {
            Some(range) => (range.offset, range.offset_end()),
            None => (0, 0),
        }
    }
}

/// The nodes.
pub(super) struct Pool<M: Store> {
    directory: M::Directory,
    /// Slots of the directory that are filled: the first so many.
    chunks: usize,
    /// Nodes with this index and above were never in use.
    fresh: u32,
    /// First of the list of nodes that were in use and are vacant.
    vacant: u32,
    /// Nodes in use.
    used: usize,
    /// State of the generator of priorities.
    seed: u64,
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
            chunks: 0,
            fresh: 0,
            vacant: NIL,
            used: 0,
            seed,
        }
    }

    /// Nodes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Nodes that can be taken.
    pub(super) fn free(&self) -> usize {
        (self.chunks << CHUNK_SHIFT) - self.used
    }

    /// What is lacking before `nodes` can be taken.
    pub(super) fn need(&self, nodes: usize) -> Need {
        let chunks = nodes.saturating_sub(self.free()).div_ceil(CHUNK_NODES);
        let total = self.chunks.saturating_add(chunks);
        let length = self.directory.len();
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
        let mut filled = self.chunks;
        if spare.len() > self.directory.len() {
            core::mem::swap(&mut self.directory, spare);
            for (new, old) in self.directory.iter_mut().zip(spare.iter_mut()).take(filled) {
                core::mem::swap(new, old);
            }
            // New chunks may lie behind the old ones already.
            for slot in self.chunks..self.directory.len() {
                if self.directory[slot].is_some() {
                    self.directory.swap(slot, filled);
                    filled += 1;
                }
            }
        }
        let (_, room) = self.directory.split_at_mut(filled);
        let chunks = spare.iter_mut().filter(|slot| slot.is_some());
        for (slot, chunk) in room.iter_mut().zip(chunks) {
            *slot = chunk.take();
            filled += 1;
        }
        self.chunks = filled.min(MAX_CHUNKS);
    }

    /// Gives all memory away if no node is in use.
    pub(super) fn give_back(&mut self) -> Spare<M> {
        let mut slots = M::Directory::default();
        if self.used == 0 {
            core::mem::swap(&mut self.directory, &mut slots);
            self.chunks = 0;
            self.fresh = 0;
            self.vacant = NIL;
        }
        Spare { slots }
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
            Some(Some(chunk)) => &chunk[node],
            _ => lost(index),
        }
    }

    /// As [`Self::get()`].
    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Node<M::Segment> {
        let (chunk, node) = Self::place(index);
        match self.directory.get_mut(chunk) {
            Some(Some(chunk)) => &mut chunk[node],
            _ => lost(index),
        }
    }

    /// Puts `range` into a node that is in no tree yet; [`None`] if there is no free node. O(1).
    pub(super) fn take(&mut self, range: Range<M::Segment>) -> Option<u32> {
        if self.free() == 0 {
            return None;
        }
        let index = if self.vacant != NIL {
            let index = self.vacant;
            self.vacant = self.get(index).space.child[1];
            index
        } else {
            let index = self.fresh;
            self.fresh += 1;
            index
        };
        self.used += 1;
        let priority = self.priority();
        let node = self.get_mut(index);
        node.priority = priority;
        node.fill(range);
        Some(index)
    }

    /// Makes the node `index`, which is in no tree any more, vacant. O(1).
    pub(super) fn put(&mut self, index: u32) -> Option<Range<M::Segment>> {
        let vacant = self.vacant;
        let node = self.get_mut(index);
        node.space.child[1] = vacant;
        let range = node.range.take();
        self.vacant = index;
        self.used -= 1;
        range
    }

    /// Panics unless the accounts are right: memory where it is said to be, and every node either
    /// in use or vacant.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (slot, chunk) in self.directory.iter().enumerate() {
            assert_eq!(chunk.is_some(), slot < self.chunks, "slot {slot}");
        }
        assert!(self.fresh as usize <= self.chunks << CHUNK_SHIFT);
        let used = (0..self.fresh).filter(|&index| self.get(index).range.is_some());
        assert_eq!(used.count(), self.used);
        let (mut index, mut vacant) = (self.vacant, 0);
        while index != NIL {
            assert!(
                self.get(index).range.is_none(),
                "node {index} is in use and vacant"
            );
            vacant += 1;
            index = self.get(index).space.child[1];
        }
        assert_eq!(self.used + vacant, self.fresh as usize, "nodes were lost");
    }

    /// The next priority (SplitMix64): fresh for every use of a node, so that nobody who does not
    /// know the seed can choose an order of changes that makes the trees deep.
    fn priority(&mut self) -> u32 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }
}

/// A link leads to no node: the trees are corrupt, and going on would make it worse.
#[cold]
#[inline(never)]
fn lost(index: u32) -> ! {
    panic!("layout: no node {index}")
}
