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
        Links,
        Wide,
        NIL, //
    },
    pool::Pool,
    Layout, //
};

/// How many ranges wait: so many a search by segment page looks at besides the tree, and so many
/// are added to it when a walk begins, with the lock held. (Fewer in tests, whose spaces are small.)
pub(super) const MOST: usize = if cfg!(test) { 6 } else { 64 };

/// The reach of a node that waits: no range ends before the first page of its segment, and where a
/// node has lost its range, no segment has the last id.
pub(super) const WAITS: Wide = Wide::MAX << 64;

/// In [`Links::child`], the node that came after this one.
const NEWER: usize = 0;
/// And the one that came before it.
const OLDER: usize = 1;

/// The list.
pub(super) struct Waiting {
    newest: u32,
    oldest: u32,
    count: usize,
}

impl Waiting {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            newest: NIL,
            oldest: NIL,
            count: 0,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The links and the reach of the node `index`, which the caller stores in it and which waits
    /// from now on.
    #[inline]
    #[must_use]
    fn add<M: Store>(&mut self, pool: &mut Pool<M>, index: u32) -> (Links, Wide) {
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
        (links, WAITS)
    }

    /// Takes the node `index` out.
    #[inline]
    fn remove<M: Store>(&mut self, pool: &mut Pool<M>, index: u32) {
        let [newer, older] = pool.get(index).segment.child;
        match pool.linked_mut(newer) {
            Some(node) => node.segment.child[OLDER] = older,
            None => self.newest = older,
        }
        match pool.linked_mut(older) {
            Some(node) => node.segment.child[NEWER] = newer,
            None => self.oldest = newer,
        }
        self.count = self.count.saturating_sub(1);
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
}

#[cfg(test)]
impl Waiting {
    /// Panics unless the links back lead where those from the newest on come from.
    pub(super) fn check<M: Store>(&self, pool: &Pool<M>) {
        let mut newer = NIL;
        for index in self.iter(pool) {
            assert_eq!(pool.get(index).segment.child[NEWER], newer);
            newer = index;
        }
        assert_eq!(self.oldest, newer, "the oldest that waits");
    }
}

impl<M: Store> Layout<M> {
    /// Whether the node waits.
    #[inline]
    pub(super) fn waits(&self, index: u32) -> bool {
        self.pool.get(index).reach == WAITS
    }

    /// Has a new node wait, and returns its links and its reach. The caller stores them in it, and
    /// the range, and then calls [`Self::add_overdue()`].
    #[inline]
    #[must_use]
    pub(super) fn wait(&mut self, index: u32) -> (Links, Wide) {
        self.waiting.add(&mut self.pool, index)
    }

    /// Removes a node from where it is searched for by segment page.
    #[inline]
    pub(super) fn remove_by_segment(&mut self, index: u32) {
        if self.waits(index) {
            self.waiting.remove(&mut self.pool, index);
        } else {
            self.segments.remove(&mut self.pool, index);
        }
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
        if index != NIL {
            self.waiting.remove(&mut self.pool, index);
            self.add_to_tree(index);
        }
    }
}
