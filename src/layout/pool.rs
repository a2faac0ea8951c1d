// SPDX-License-Identifier: GPL-2.0

//! The nodes of a layout.
//!
//! This file owns the nodes. A node is known by its index: its number within the pool, which never
//! changes while the node is in use. Their memory is that of the chunks (`layout/chunks.rs`), which
//! is there beforehand, so that taking and returning a node never allocates and never frees. Both
//! are O(1), and so is finding the node of an index.
//!
//! Nothing here panics on a link that leads to no node, which only a corrupt layout has: it is
//! reported ([`Client::corrupt()`](super::Client::corrupt)), and a vacant node is found there,
//! whose links end every walk.

use super::{
    chunks::{
        Chunks,
        Need,
        Spare,
        Store,
        Surplus,
        CHUNK_NODES,
        CHUNK_SHIFT, //
    },
    node::{
        corrupt,
        Node,
        NIL, //
    },
    Range, //
};

/// The nodes.
pub(super) struct Pool<M: Store> {
    chunks: Chunks<M>,
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
        Self {
            chunks: Chunks::new(),
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

    /// Whether `nodes` can be taken.
    pub(super) fn has(&self, nodes: usize) -> bool {
        self.used.saturating_add(nodes) <= self.chunks.room()
    }

    /// What is lacking before `nodes` can be taken.
    pub(super) fn need(&self, nodes: usize) -> Need {
        self.chunks.need(self.used.saturating_add(nodes))
    }

    /// See [`Chunks::refill()`].
    pub(super) fn refill(&mut self, spare: &mut Spare<M>) {
        self.chunks.refill(spare);
    }

    /// See [`Chunks::has_surplus()`].
    pub(super) fn has_surplus(&self) -> bool {
        self.chunks.has_surplus()
    }

    /// See [`Chunks::shed()`].
    pub(super) fn shed(&mut self, surplus: &mut Surplus<M>) -> bool {
        self.chunks.shed(surplus)
    }

    /// Where the node `index` lies: its chunk, and its place in it.
    #[inline(always)]
    fn place(index: u32) -> (usize, usize) {
        let place = index as usize;
        (place >> CHUNK_SHIFT, place & (CHUNK_NODES - 1))
    }

    /// The node `index`, which is in use: only in a corrupt layout there is none.
    #[inline(always)]
    pub(super) fn get(&self, index: u32) -> &Node<M> {
        let (chunk, node) = Self::place(index);
        match self.chunks.get(chunk) {
            Some(chunk) => &chunk[node],
            None => {
                corrupt::<M>(NO_NODE);
                &self.missing
            }
        }
    }

    /// As [`Self::get()`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Node<M> {
        let (chunk, node) = Self::place(index);
        match self.chunks.get_mut(chunk) {
            Some(chunk) => &mut chunk[node],
            None => renewed(&mut self.scratch),
        }
    }

    /// The node that a link leads to; [`None`] if the link is [`NIL`], and in a corrupt layout.
    ///
    /// This compares no more than [`Self::get()`] does: no chunk has the node [`NIL`].
    #[inline(always)]
    pub(super) fn linked(&self, index: u32) -> Option<&Node<M>> {
        let (chunk, node) = Self::place(index);
        match self.chunks.get(chunk) {
            Some(chunk) => Some(&chunk[node]),
            None => {
                no_node::<M>(index);
                None
            }
        }
    }

    /// As [`Self::linked()`].
    #[inline(always)]
    pub(super) fn linked_mut(&mut self, index: u32) -> Option<&mut Node<M>> {
        let (chunk, node) = Self::place(index);
        match self.chunks.get_mut(chunk) {
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
        let (chunk, place) = self.chunks.take()?;
        let index = ((chunk << CHUNK_SHIFT) | place) as u32;
        self.used = self.used.wrapping_add(1);
        Some((index, self.priority()))
    }

    /// Makes the node `index`, which is in no tree any more, vacant. O(1).
    #[inline]
    pub(super) fn put(&mut self, index: u32) -> Option<Range<M::Segment>> {
        let Some(range) = self.get_mut(index).range.take() else {
            // It must not be vacant twice.
            corrupt::<M>("a vacant node is put");
            return None;
        };
        let (chunk, place) = Self::place(index);
        self.chunks.put(chunk, place);
        self.used = self.used.wrapping_sub(1);
        Some(range)
    }

    /// Panics unless the counts are right, and every node is either in use or vacant.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut used = 0;
        self.chunks.check(|node, vacant| {
            assert_eq!(node.range.is_none(), vacant);
            used += usize::from(!vacant);
        });
        assert_eq!(used, self.used);
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
