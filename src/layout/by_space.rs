// SPDX-License-Identifier: GPL-2.0

//! The tree by space page: what does a page show, and where is a hole?
//!
//! The ranges do not overlap, so they are in the same order by start and by end. They are also
//! linked to a list in that order, so each knows the next.
//!
//! # Holes
//!
//! Each range has the hole behind it, up to the next range; what is in front of the first and
//! behind the last is looked at apart. The summary of a subtree is a *bound*, from above, of the
//! longest hole that its ranges have, so that a search passes over subtrees that have none of the
//! wanted length.
//!
//! A bound goes up when a hole grows, and not down when one shrinks: so a map raises few and an
//! unmap of the same pages none, where keeping the maximum would cost a walk to the root for each.
//! The search corrects that: where a bound was higher than what was found, it is made exact on the
//! way back. So a bound that is wrong costs a search O(1), once. A change makes no more of them
//! wrong than there are on the one path to where it is, O(log n). All searches and changes together
//! cost no more, then, than O(log n) for each of them and for each hole that was asked about.
//! Nobody but the owner's own search for a hole pays for the owner's changes.

use super::{
    node::{
        Links,
        Node,
        NIL, //
    },
    page::SpacePage,
    pool::{
        Pool,
        Store, //
    },
    tree::{
        Order,
        Tree, //
    },
};

pub(super) enum BySpace {}

impl Order for BySpace {
    /// The first page.
    type Key = SpacePage;

    /// Pages; a bound from above.
    type Summary = u64;

    #[inline]
    fn key<S>(node: &Node<S>) -> SpacePage {
        node.start
    }

    #[inline]
    fn is_before<S>(node: &Node<S>, key: &SpacePage) -> bool {
        node.start < *key
    }

    #[inline]
    fn links<S>(node: &Node<S>) -> &Links {
        &node.space
    }

    #[inline]
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links {
        &mut node.space
    }

    #[inline]
    fn summary<S>(node: &Node<S>) -> u64 {
        node.gap
    }

    #[inline]
    fn summary_mut<S>(node: &mut Node<S>) -> &mut u64 {
        &mut node.gap
    }

    /// The bound stays.
    #[inline]
    fn narrowed<M: Store>(_: &mut Pool<M>, _: u32, _: u32) {}

    /// The bounds stay.
    #[inline]
    fn lost<M: Store>(_: &mut Pool<M>, _: u32, _: u32) {}
}

impl Tree<BySpace> {
    /// The node that has `page`, or [`NIL`]. O(log n).
    #[inline]
    pub(super) fn at<M: Store>(&self, pool: &Pool<M>, page: SpacePage) -> u32 {
        let last = self.starting_by(pool, page);
        if last != NIL && pool.get(last).end() > page {
            last
        } else {
            NIL
        }
    }

    /// The first node that ends after `page`, or [`NIL`]. O(log n).
    pub(super) fn ending_after<M: Store>(&self, pool: &Pool<M>, page: SpacePage) -> u32 {
        let place = self.find(pool, &page);
        if place.previous != NIL && pool.get(place.previous).end() > page {
            place.previous
        } else {
            place.next
        }
    }

    /// The last node that starts at or before `page`, or [`NIL`].
    #[inline]
    fn starting_by<M: Store>(&self, pool: &Pool<M>, page: SpacePage) -> u32 {
        let (mut index, mut found) = (self.root(), NIL);
        while index != NIL {
            let node = pool.get(index);
            if node.start <= page {
                found = index;
                index = node.space.child[1];
            } else {
                index = node.space.child[0];
            }
        }
        found
    }

    /// The pages of the hole between a node and the one after it.
    #[inline]
    pub(super) fn hole_behind<M: Store>(pool: &Pool<M>, index: u32) -> u64 {
        let node = pool.get(index);
        if node.next == NIL {
            return 0;
        }
        let (start, end) = (pool.get(node.next).start, node.end());
        if start > end {
            start - end
        } else {
            0
        }
    }

    /// Makes true what is said of the hole behind `index`, which has grown. O(log n).
    #[inline]
    pub(super) fn hole_grew<M: Store>(pool: &mut Pool<M>, index: u32) {
        if index != NIL {
            let hole = Self::hole_behind(pool, index);
            Self::raise(pool, index, hole);
        }
    }

    /// Asks `fits` about the holes of at least `pages` pages in the space that ends before page
    /// `size`, from low to high, until it has an answer. O(log n) for each hole, and amortized over
    /// the changes since it was called last.
    pub(super) fn holes<M: Store, T>(
        &self,
        pool: &mut Pool<M>,
        size: SpacePage,
        pages: u64,
        mut fits: impl FnMut(SpacePage, SpacePage) -> Option<T>,
    ) -> Option<T> {
        let mut fits = |start: SpacePage, end: SpacePage| {
            if start <= end && end - start >= pages {
                fits(start, end)
            } else {
                None
            }
        };
        let (first, last) = (self.end(pool, 0), self.end(pool, 1));
        if first == NIL {
            return fits(SpacePage::new(0), size);
        }
        if let Some(fit) = fits(SpacePage::new(0), pool.get(first).start) {
            return Some(fit);
        }
        let promises = |pool: &Pool<M>, index: u32| index != NIL && pool.get(index).gap >= pages;
        let mut index = self.root();
        // What has been seen of the subtree under `index`: nothing, or what is on its left, or all.
        let mut seen = if promises(pool, index) { 0 } else { 2 };
        while index != NIL {
            let [left, right] = pool.get(index).space.child;
            if seen == 0 && promises(pool, left) {
                index = left;
                continue;
            }
            if seen < 2 {
                let end = pool.get(index).end();
                if let Some(fit) = fits(end, end + Self::hole_behind(pool, index)) {
                    return Some(fit);
                }
                if promises(pool, right) {
                    (index, seen) = (right, 0);
                    continue;
                }
            }
            Self::make_exact(pool, index);
            let parent = pool.get(index).space.parent;
            let on_left = parent != NIL && pool.get(parent).space.child[0] == index;
            (index, seen) = (parent, if on_left { 1 } else { 2 });
        }
        fits(pool.get(last).end(), size)
    }

    /// Makes the bound of a subtree as good as those of the subtrees right below.
    fn make_exact<M: Store>(pool: &mut Pool<M>, index: u32) {
        let mut gap = Self::hole_behind(pool, index);
        for below in pool.get(index).space.child {
            if below != NIL {
                gap = gap.max(pool.get(below).gap);
            }
        }
        pool.get_mut(index).gap = gap;
    }

    /// The first node (side 0), or the last (side 1), or [`NIL`]. O(log n).
    fn end<M: Store>(&self, pool: &Pool<M>, side: usize) -> u32 {
        let (mut end, mut below) = (NIL, self.root());
        while below != NIL {
            end = below;
            below = pool.get(below).space.child[side];
        }
        end
    }
}
