// SPDX-License-Identifier: GPL-2.0

//! The memory that the nodes of a layout live in, and how it comes and goes.
//!
//! This file owns the chunks: boxes of [`CHUNK_NODES`] nodes each, which stand in the slots of a
//! directory. A chunk never changes its slot, so that a node is known by slot and place. Which nodes
//! of a chunk are vacant, the slot says; those with vacant nodes are on a list, and those without a
//! chunk on another.
//!
//! Nothing is allocated or freed here while the layout is locked: new chunks come in as a [`Spare`],
//! and chunks of which no node is in use leave as a [`Surplus`]. All is O(1), but where it says
//! otherwise.

use super::node::{
    corrupt,
    Client,
    Node,
    NIL, //
};
use core::ops::DerefMut;

/// Nodes in a chunk: as many as fit 4096 bytes.
pub(crate) const CHUNK_NODES: usize = 1 << CHUNK_SHIFT;
pub(super) const CHUNK_SHIFT: u32 = 5;

/// Slots in the largest directory: the node [`NIL`] is in none of them.
const MAX_SLOTS: usize = (NIL >> CHUNK_SHIFT) as usize;

/// [`Slot::vacant`] of a chunk of which no node is in use.
const ALL: u32 = u32::MAX;

/// How many vacant chunks are kept in any case: enough for a batch of 512 operations. An owner that
/// makes the same changes again and again would else have them allocated each time.
const KEPT: usize = 64;

/// How many chunks leave at a time, and how many slots are looked at for them.
const LEAVING: usize = 64;
const LOOKED_AT: usize = 1024;

/// The unit in which a layout gets memory: one allocation of at most 4096 bytes, aligned to 64.
///
/// A new chunk is filled with [`Node::vacant()`].
pub(crate) type Chunk<M> = [Node<M>; CHUNK_NODES];

/// Where the memory of a layout comes from.
pub(crate) trait Store: Client + Sized {
    /// A box that owns one chunk.
    type Chunk: DerefMut<Target = Chunk<Self>>;

    /// A vector of slots that never allocates by itself; the default has no room and needs no
    /// memory.
    type Directory: Default + DerefMut<Target = [Slot<Self::Chunk>]>;

    /// Why there is no memory.
    type Error;

    /// Allocates a chunk, all of it [`Node::vacant()`]. Called by [`Spare::new()`] only; may sleep.
    fn chunk() -> Result<Self::Chunk, Self::Error>;

    /// Allocates an empty directory with room for `slots` slots. Called by [`Spare::new()`] only;
    /// may sleep.
    fn directory(slots: usize) -> Result<Self::Directory, Self::Error>;

    /// How many slots a directory has room for, those in it among them.
    fn slots(directory: &Self::Directory) -> usize;

    /// Puts a slot behind those that are there; there is room.
    fn push(directory: &mut Self::Directory, slot: Slot<Self::Chunk>);

    /// Takes the last slot out.
    fn pop(directory: &mut Self::Directory) -> Option<Slot<Self::Chunk>>;
}

/// A place for a chunk.
pub(crate) struct Slot<C> {
    chunk: Option<C>,
    /// Which of the nodes are vacant: bit *n* is that of node *n*. None if there is no chunk.
    vacant: u32,
    /// The slots before and after this one on the list of those with vacant nodes; of a slot
    /// without a chunk, `after` is the next without one.
    before: u32,
    after: u32,
}

impl<C> Slot<C> {
    /// A slot for `chunk`, on no list.
    fn new(chunk: Option<C>) -> Self {
        let vacant = if chunk.is_some() { ALL } else { 0 };
        Self {
            chunk,
            vacant,
            before: NIL,
            after: NIL,
        }
    }
}

/// What a layout lacks before it can take a certain number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// New chunks.
    chunks: usize,
    /// Slots of the directory that replaces the present one; 0 if that one serves.
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
    /// New chunks, each in a slot of its own.
    chunks: M::Directory,
    /// The directory that replaces the present one, or else the one it has replaced.
    directory: M::Directory,
}

impl<M: Store> Spare<M> {
    /// Allocates `need`. May sleep.
    pub(crate) fn new(need: Need) -> Result<Self, M::Error> {
        let mut spare = Self {
            chunks: M::Directory::default(),
            directory: M::Directory::default(),
        };
        if need.is_none() {
            return Ok(spare);
        }
        spare.chunks = M::directory(need.chunks)?;
        for _ in 0..need.chunks {
            M::push(&mut spare.chunks, Slot::new(Some(M::chunk()?)));
        }
        if need.slots > 0 {
            spare.directory = M::directory(need.slots)?;
        }
        Ok(spare)
    }
}

/// Chunks on their way out of a layout, and how far the search for them has come.
///
/// Made and emptied without the lock.
pub(crate) struct Surplus<M: Store> {
    chunks: [Option<M::Chunk>; LEAVING],
    /// The slot to go on from.
    next: usize,
}

impl<M: Store> Surplus<M> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            chunks: [const { None }; LEAVING],
            next: 0,
        }
    }

    /// Frees the chunks.
    pub(crate) fn free(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| *chunk = None);
    }
}

/// The chunks of a layout.
pub(super) struct Chunks<M: Store> {
    directory: M::Directory,
    /// How many there are.
    count: usize,
    /// How many of them have no node in use.
    empty: usize,
    /// The first and last slot of the list of those with vacant nodes.
    first: u32,
    last: u32,
    /// The first of the slots without a chunk.
    hole: u32,
}

impl<M: Store> Chunks<M> {
    /// None, and no memory.
    pub(super) fn new() -> Self {
        const {
            assert!(size_of::<Node<M>>() <= 128);
            assert!(size_of::<Chunk<M>>() <= 4096);
            assert!(CHUNK_NODES == u32::BITS as usize);
        }
        Self {
            directory: M::Directory::default(),
            count: 0,
            empty: 0,
            first: NIL,
            last: NIL,
            hole: NIL,
        }
    }

    /// Nodes that there is memory for.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.count << CHUNK_SHIFT
    }

    /// How many have nodes in use.
    fn busy(&self) -> usize {
        self.count.wrapping_sub(self.empty)
    }

    /// What is lacking before there is room for so many nodes.
    pub(super) fn need(&self, nodes: usize) -> Need {
        let chunks = nodes.saturating_sub(self.room()).div_ceil(CHUNK_NODES);
        let total = self.count.saturating_add(chunks);
        let length = M::slots(&self.directory);
        let slots = if total <= length {
            0
        } else {
            // Twice the length, so that moving the directory costs nothing on average.
            total.max(length.saturating_mul(2)).max(4)
        };
        Need { chunks, slots }
    }

    /// Takes the chunks of `spare`, and its directory if that is longer than the present one. What
    /// is left in `spare` is to be freed.
    ///
    /// O(chunks of `spare`), and of all chunks if the directory is replaced.
    pub(super) fn refill(&mut self, spare: &mut Spare<M>) {
        if M::slots(&spare.directory) > M::slots(&self.directory) {
            core::mem::swap(&mut self.directory, &mut spare.directory);
            let old = spare.directory.iter_mut();
            for slot in old.map(|slot| core::mem::replace(slot, Slot::new(None))) {
                M::push(&mut self.directory, slot);
            }
        }
        let most = M::slots(&self.directory).min(MAX_SLOTS);
        while self.count < most {
            let Some(slot) = M::pop(&mut spare.chunks) else {
                break;
            };
            let index = self.hole;
            match self.slot_mut(index) {
                Some(hole) => {
                    let next = hole.after;
                    *hole = slot;
                    self.hole = next;
                    self.append(index);
                }
                None => {
                    let index = self.directory.len() as u32;
                    M::push(&mut self.directory, slot);
                    self.append(index);
                }
            }
            self.count = self.count.wrapping_add(1);
            self.empty = self.empty.wrapping_add(1);
        }
    }

    /// Whether so many chunks have no node in use that some are to leave: more than those that
    /// have.
    pub(super) fn has_surplus(&self) -> bool {
        self.empty > KEPT + self.busy()
    }

    /// Moves some of the chunks that are to leave into `surplus`, which is empty, and says whether
    /// there are more. O([`LOOKED_AT`]).
    ///
    /// As many stay as are half the least at which [`Self::has_surplus()`], so that it is long
    /// before it has again.
    pub(super) fn shed(&mut self, surplus: &mut Surplus<M>) -> bool {
        let mut leaving = surplus.chunks.iter_mut();
        for _ in 0..LOOKED_AT {
            if self.empty <= (KEPT + self.busy()) / 2 {
                return false;
            }
            let index = surplus.next;
            let Some(slot) = self.directory.get_mut(index) else {
                return false;
            };
            if slot.vacant == ALL {
                let Some(place) = leaving.next() else {
                    return true;
                };
                *place = slot.chunk.take();
                self.unlink(index as u32);
                self.count = self.count.wrapping_sub(1);
                self.empty = self.empty.wrapping_sub(1);
                let hole = self.hole;
                if let Some(slot) = self.slot_mut(index as u32) {
                    *slot = Slot::new(None);
                    slot.after = hole;
                    self.hole = index as u32;
                }
            }
            surplus.next = index.wrapping_add(1);
        }
        true
    }

    /// The nodes of the chunk at a slot.
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Chunk<M>> {
        self.directory.get(slot)?.chunk.as_deref()
    }

    /// As [`Self::get()`].
    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Chunk<M>> {
        self.directory.get_mut(slot)?.chunk.as_deref_mut()
    }

    /// A vacant node, which is in use from now on: its slot, and its place there.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(usize, usize)> {
        let index = self.first as usize;
        let slot = self.directory.get_mut(index)?;
        let place = slot.vacant.trailing_zeros();
        self.empty = self.empty.wrapping_sub(usize::from(slot.vacant == ALL));
        slot.vacant &= slot.vacant.wrapping_sub(1);
        if slot.vacant == 0 {
            self.unlink(index as u32);
        }
        Some((index, place as usize))
    }

    /// The node is vacant from now on; it was in use.
    #[inline]
    pub(super) fn put(&mut self, index: usize, place: usize) {
        let Some(slot) = self.directory.get_mut(index) else {
            return;
        };
        let none = slot.vacant == 0;
        slot.vacant |= 1_u32.wrapping_shl(place as u32);
        self.empty = self.empty.wrapping_add(usize::from(slot.vacant == ALL));
        if none {
            self.prepend(index as u32);
        }
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<M::Chunk>> {
        self.directory.get_mut(index as usize)
    }

    /// Puts a slot on the list of those with vacant nodes, as the next to be taken from.
    fn prepend(&mut self, index: u32) {
        let first = core::mem::replace(&mut self.first, index);
        match self.slot_mut(first) {
            Some(slot) => slot.before = index,
            None => self.last = index,
        }
        if let Some(slot) = self.slot_mut(index) {
            (slot.before, slot.after) = (NIL, first);
        }
    }

    /// The same, as the last.
    fn append(&mut self, index: u32) {
        let last = core::mem::replace(&mut self.last, index);
        match self.slot_mut(last) {
            Some(slot) => slot.after = index,
            None => self.first = index,
        }
        if let Some(slot) = self.slot_mut(index) {
            (slot.before, slot.after) = (last, NIL);
        }
    }

    /// Takes a slot off the list.
    fn unlink(&mut self, index: u32) {
        let Some(&mut Slot { before, after, .. }) = self.slot_mut(index) else {
            return corrupt::<M>("a slot that is not there");
        };
        match self.slot_mut(before) {
            Some(slot) => slot.after = after,
            None => self.first = after,
        }
        match self.slot_mut(after) {
            Some(slot) => slot.before = before,
            None => self.last = before,
        }
    }

    /// Calls `each` with each node and whether it is vacant; panics unless counts and lists are
    /// right.
    #[cfg(test)]
    pub(super) fn check(&self, mut each: impl FnMut(&Node<M>, bool)) {
        let (mut count, mut empty, mut open) = (0, 0, 0);
        for slot in self.directory.iter() {
            let Some(chunk) = &slot.chunk else {
                assert_eq!(slot.vacant, 0, "nodes of no chunk");
                continue;
            };
            count += 1;
            empty += usize::from(slot.vacant == ALL);
            open += usize::from(slot.vacant != 0);
            for (place, node) in chunk.iter().enumerate() {
                each(node, slot.vacant & (1 << place) != 0);
            }
        }
        assert_eq!((count, empty), (self.count, self.empty));
        let (mut before, mut index) = (NIL, self.first);
        while index != NIL {
            let slot = &self.directory[index as usize];
            assert!(slot.vacant != 0 && slot.before == before);
            open -= 1;
            (before, index) = (index, slot.after);
        }
        assert_eq!((before, open), (self.last, 0));
        let (mut holes, mut index) = (0, self.hole);
        while index != NIL {
            let slot = &self.directory[index as usize];
            assert!(slot.chunk.is_none());
            holes += 1;
            index = slot.after;
        }
        assert_eq!(holes + count, self.directory.len(), "slots were lost");
    }
}
