// SPDX-License-Identifier: GPL-2.0

//! The ranges that are not in the tree by segment page yet.
//!
//! Only a revocation that comes from a segment searches that tree, and most of what a device or a
//! window shows for a moment is gone before one comes. So a new range waits in a list: to add it
//! and to take it out is O(1). It goes to the tree when more than [`MOST`] wait, the oldest first,
//! and when a walk begins ([`Layout::hold_joins()`]). While one is under way nothing waits.
//!
//! The links are those that a node has in the tree later. A node that waits has a reach that none in
//! the tree has, even one that has lost its range.

use super::{
    chunks::Store,
    node::{
        AllLinks,
        Links,
        Node,
        Wide,
        NIL,
        WAITS, //
    },
    pool::Pool,
    Layout, //
};

/// How many ranges wait: so many a search by segment page looks at besides the tree, and so many
/// are added to it when a walk begins, with the lock held. (Fewer in tests, whose spaces are small.)
pub(super) const MOST: usize = if cfg!(test) { 6 } else { 64 };

/// In [`Links::child`], the node that came after this one.
const NEWER: usize = 0;
/// And the one that came before it.
const OLDER: usize = 1;

/// Of how many kinds segments are, by their ids.
const KINDS: usize = 256;

/// Of which kind a segment is: as if by chance, since those whose ids follow one another, which
/// wait together, must not all have the kinds of others.
#[inline]
fn kind(id: u64) -> usize {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = id.wrapping_mul(MIX);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(MIX);
    (mixed >> (u64::BITS - KINDS.ilog2())) as usize
}

/// The list.
pub(super) struct Waiting {
    newest: u32,
    oldest: u32,
    count: usize,
    /// How many show segments of each kind: where it is none, nobody looks through the list.
    kinds: [u8; KINDS],
}

impl Waiting {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            newest: NIL,
            oldest: NIL,
            count: 0,
            kinds: [0; KINDS],
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Notes that one more shows the segment `id`. There are never more than [`MOST`] and one.
    #[inline]
    fn note(&mut self, id: u64) {
        if let Some(count) = self.kinds.get_mut(kind(id)) {
            *count = count.wrapping_add(1);
        }
    }

    /// Notes that one less shows it.
    #[inline]
    fn forget(&mut self, id: u64) {
        if let Some(count) = self.kinds.get_mut(kind(id)) {
            *count = count.wrapping_sub(1);
        }
    }

    /// The links and the reach of the node `index`, which the caller stores in it, and which waits
    /// from now on and shows the segment `id`.
    #[inline(always)]
    #[must_use]
    fn add<M: Store>(&mut self, pool: &mut Pool<M>, index: u32, id: u64) -> (Links, Wide) {
        let links = Links {
            parent: NIL,
            child: [NIL, self.newest],
        };
        match pool.linked_mut(self.newest) {
            Some(node) => node.segment.child[NEWER] = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.count = self.count.wrapping_add(1);
        self.note(id);
        (links, WAITS)
    }

    /// Takes a node out, which is linked so.
    #[inline(always)]
    fn remove<M: Store>(&mut self, pool: &mut Pool<M>, links: &AllLinks) {
        let [newer, older] = links.segment.child;
        match pool.linked_mut(newer) {
            Some(node) => node.segment.child[OLDER] = older,
            None => self.newest = older,
        }
        match pool.linked_mut(older) {
            Some(node) => node.segment.child[NEWER] = newer,
            None => self.oldest = newer,
        }
        self.count = self.count.saturating_sub(1);
        self.forget(links.segment_id);
    }

    /// How many there are at most, whatever the links of a corrupt layout say.
    fn bound(&self) -> usize {
        self.count.min(MOST + 1)
    }

    /// The nodes, the newest first.
    pub(super) fn iter<'a, M: Store>(
        &'a self,
        pool: &'a Pool<M>,
    ) -> impl Iterator<Item = u32> + 'a {
        let mut index = self.newest;
        let next = move || {
            let node = pool.linked(index)?;
            Some(core::mem::replace(&mut index, node.segment.child[OLDER]))
        };
        core::iter::from_fn(next).take(self.bound())
    }

    /// Those among which are all that show the segment `id`: none, where it is known that there
    /// are none.
    #[inline]
    pub(super) fn showing<'a, M: Store>(
        &'a self,
        pool: &'a Pool<M>,
        id: u64,
    ) -> impl Iterator<Item = u32> + 'a {
        let any = self.kinds.get(kind(id)).is_some_and(|count| *count != 0);
        any.then(|| self.iter(pool)).into_iter().flatten()
    }
}

#[cfg(test)]
impl Waiting {
    /// Panics unless the links back lead where those from the newest on come from, and the kinds
    /// are counted right.
    pub(super) fn check<M: Store>(&self, pool: &Pool<M>) {
        let mut newer = NIL;
        let mut kinds = [0; KINDS];
        for index in self.iter(pool) {
            let node = pool.get(index);
            assert_eq!(node.segment.child[NEWER], newer);
            newer = index;
            kinds[kind(node.segment_id)] += 1;
        }
        assert_eq!(self.oldest, newer, "the oldest that waits");
        assert_eq!(self.kinds, kinds, "the kinds of those that wait");
    }
}

impl<M: Store> Layout<M> {
    /// Whether the node waits.
    #[inline]
    pub(super) fn waits(&self, index: u32) -> bool {
        self.pool.get(index).waits()
    }

    /// Has a new node wait, which is to show the segment `id`, and returns its links and its reach.
    /// The caller stores them in it, and the range, and then calls [`Self::add_overdue()`].
    #[inline(always)]
    #[must_use]
    pub(super) fn wait(&mut self, index: u32, id: u64) -> (Links, Wide) {
        self.waiting.add(&mut self.pool, index, id)
    }

    /// Changes what a node that waits shows of which segment.
    pub(super) fn change_waiting(&mut self, index: u32, change: impl FnOnce(&mut Node<M>)) {
        let node = self.pool.get_mut(index);
        let old = node.segment_id;
        change(node);
        let new = node.segment_id;
        self.waiting.forget(old);
        self.waiting.note(new);
    }

    /// Removes a node, which is linked so, from where it is searched for by segment page.
    #[inline(always)]
    pub(super) fn remove_by_segment(&mut self, index: u32, links: &AllLinks) {
        if links.waits {
            self.waiting.remove(&mut self.pool, links);
        } else {
            self.remove_from_tree(index, links.segment);
        }
    }

    #[inline(never)]
    fn remove_from_tree(&mut self, index: u32, links: Links) {
        self.segments.remove(&mut self.pool, index, links);
    }

    /// Adds the oldest node to the tree if too many wait: during a walk, any.
    #[inline]
    pub(super) fn add_overdue(&mut self) {
        let most = if self.holds == 0 { MOST } else { 0 };
        if self.waiting.count() > most {
            self.add_oldest();
        }
    }

    /// Adds all that wait to the tree.
    pub(super) fn add_waiting(&mut self) {
        for _ in 0..self.waiting.bound() {
            self.add_oldest();
        }
    }

    /// Adds the oldest node to the tree.
    #[inline(never)]
    fn add_oldest(&mut self) {
        let index = self.waiting.oldest;
        if let Some(node) = self.pool.linked(index) {
            let links = node.all_links();
            self.waiting.remove(&mut self.pool, &links);
            self.add_to_tree(index);
        }
    }
}
