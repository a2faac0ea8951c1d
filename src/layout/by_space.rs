// SPDX-License-Identifier: GPL-2.0

//! The tree by space page: what does a page show, and where is a hole?
//!
//! This file owns its order, its summaries and its searches. The ranges do not overlap, so they are
//! in the same order by start and by end. They are also a list in that order, so each knows the
//! next. A search for a page is O(log n).
//!
//! # Holes
//!
//! The hole of a range is the one after it, up to the next range; a search looks at the pages in
//! front of the first range and after the last one separately. The summary of a subtree is an
//! upper *bound* of the longest hole that its ranges have, so that a search passes over subtrees
//! that have none of the wanted length.
//!
//! A bound goes up when a hole grows, and stays when one shrinks: so a map raises few, and an unmap
//! of the same pages none, where keeping the maximum would cost a walk to the root for each. The
//! search corrects them: it makes each bound exact that was higher than what it found, on the way
//! back. So a bound that is too high costs a search O(1), once. A change leaves no more bounds too
//! high than there are on the one path to its place, O(log n). All searches and changes together
//! therefore cost no more than O(log n) for each of them and for each hole that a search looked at.
//! Only the owner's own search for a hole pays for the owner's changes.

use super::{
    chunks::Store,
    node::{
        Links,
        Node,
        NIL, //
    },
    page::{
        Pages,
        SpacePage, //
    },
    pool::Pool,
    tree::{
        Order,
        Tree, //
    },
    Range,
    Unfinished, //
};
use core::ops;

pub(super) enum BySpace {}

impl Order for BySpace {
    /// The first page.
    type Key = SpacePage;

    /// Pages; an upper bound.
    type Summary = u64;

    #[inline]
    fn key<M: Store>(node: &Node<M>) -> SpacePage {
        node.start
    }

    #[inline]
    fn is_before<M: Store>(node: &Node<M>, key: &SpacePage) -> bool {
        node.start < *key
    }

    #[inline]
    fn links<M: Store>(node: &Node<M>) -> &Links {
        &node.space
    }

    #[inline]
    fn links_mut<M: Store>(node: &mut Node<M>) -> &mut Links {
        &mut node.space
    }

    #[inline]
    fn summary<M: Store>(node: &Node<M>) -> u64 {
        node.gap
    }

    #[inline]
    fn summary_mut<M: Store>(node: &mut Node<M>) -> &mut u64 {
        &mut node.gap
    }

    /// The bound stays: it may be too high.
    #[inline]
    fn narrowed<M: Store>(_: &mut Pool<M>, _: u32, _: u32) {}

    /// The bounds stay: they may be too high.
    #[inline]
    fn lost<M: Store>(_: &mut Pool<M>, _: u32, _: u32) {}
}

impl Tree<BySpace> {
    /// The range that has `page`, and its node. O(log n).
    #[inline]
    pub(super) fn at<'a, M: Store>(
        &self,
        pool: &'a Pool<M>,
        page: SpacePage,
    ) -> Option<(u32, &'a Range<M::Segment>)> {
        let index = self.starting_by(pool, page);
        let range = pool.linked(index)?.shown()?;
        (range.end > page).then_some((index, range))
    }

    /// The first node that ends after `page`, or [`NIL`]. O(log n).
    pub(super) fn ending_after<M: Store>(&self, pool: &Pool<M>, page: SpacePage) -> u32 {
        let place = self.find(pool, &page);
        match pool.linked(place.previous) {
            Some(node) if node.end() > page => place.previous,
            _ => place.next,
        }
    }

    /// The last node that starts at or before `page`, or [`NIL`].
    #[inline]
    fn starting_by<M: Store>(&self, pool: &Pool<M>, page: SpacePage) -> u32 {
        let (mut index, mut found) = (self.root(), NIL);
        while let Some(node) = pool.linked(index) {
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
    pub(super) fn hole_after<M: Store>(pool: &Pool<M>, index: u32) -> u64 {
        let node = pool.get(index);
        match pool.linked(node.next) {
            Some(next) => (node.end()..next.start).count(),
            None => 0,
        }
    }

    /// Raises the bounds for the hole after `index`, which has grown. O(log n).
    #[inline]
    pub(super) fn hole_grew<M: Store>(pool: &mut Pool<M>, index: u32) {
        if index != NIL {
            let hole = Self::hole_after(pool, index);
            Self::raise(pool, index, hole);
        }
    }

    /// Calls `fits` for the holes of at least `pages` pages in a space that ends at `end`, from low
    /// to high, until it returns something. O(log n) for each hole that it is called for, amortized
    /// over the changes since the last search; corrects no more than so many bounds.
    pub(super) fn holes<M: Store, T>(
        &self,
        pool: &mut Pool<M>,
        end: SpacePage,
        pages: u64,
        mut corrections: usize,
        mut fits: impl FnMut(ops::Range<SpacePage>) -> Option<T>,
    ) -> Result<Option<T>, Unfinished> {
        let mut fits = |hole: ops::Range<SpacePage>| {
            if hole.count() >= pages {
                fits(hole)
            } else {
                None
            }
        };
        let (first, last) = (self.outermost(pool, false), self.outermost(pool, true));
        if first == NIL {
            return Ok(fits(SpacePage::FIRST..end));
        }
        if let Some(fit) = fits(SpacePage::FIRST..pool.get(first).start) {
            return Ok(Some(fit));
        }
        let may_have = |pool: &Pool<M>, index: u32| {
            let node = pool.linked(index);
            node.is_some_and(|node| node.gap >= pages)
        };
        let mut index = self.root();
        // How much of the subtree under `index` has been searched: nothing (0), what is on its left
        // (1), or all (2).
        let mut searched = if may_have(pool, index) { 0 } else { 2 };
        while index != NIL {
            let [left, right] = pool.get(index).space.child;
            if searched == 0 && may_have(pool, left) {
                index = left;
                continue;
            }
            if searched < 2 {
                let start = pool.get(index).end();
                if let Some(fit) = fits(start..start + Self::hole_after(pool, index)) {
                    return Ok(Some(fit));
                }
                if may_have(pool, right) {
                    (index, searched) = (right, 0);
                    continue;
                }
            }
            if Self::make_exact(pool, index) {
                corrections = corrections.checked_sub(1).ok_or(Unfinished)?;
            }
            let parent = pool.get(index).space.parent;
            let on_left = parent != NIL && pool.get(parent).space.child[0] == index;
            (index, searched) = (parent, if on_left { 1 } else { 2 });
        }
        Ok(fits(pool.get(last).end()..end))
    }

    /// Makes the bound of a subtree as exact as those of the subtrees right below; says whether it
    /// was not.
    fn make_exact<M: Store>(pool: &mut Pool<M>, index: u32) -> bool {
        let mut gap = Self::hole_after(pool, index);
        for below in pool.get(index).space.child {
            if let Some(below) = pool.linked(below) {
                gap = gap.max(below.gap);
            }
        }
        core::mem::replace(&mut pool.get_mut(index).gap, gap) != gap
    }

    /// The first node, or the `last`, or [`NIL`]. O(log n).
    fn outermost<M: Store>(&self, pool: &Pool<M>, last: bool) -> u32 {
        let (mut outermost, mut below) = (NIL, self.root());
        while let Some(node) = pool.linked(below) {
            outermost = below;
            below = node.space.child[usize::from(last)];
        }
        outermost
    }
}
