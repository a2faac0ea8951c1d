// SPDX-License-Identifier: GPL-2.0

//! The tree by space page: what does a page show, and where is a hole?
//!
//! The ranges do not overlap, so they are in the same order by start and by end. The summary of a
//! subtree is where it starts and ends and the longest hole within, so that a search for a hole
//! passes over subtrees that have none.

use super::{
    pool::{
        Node,
        Pool,
        Span,
        Store,
        NIL, //
    },
    tree::{
        Links,
        Order,
        Tree, //
    },
};

pub(super) enum BySpace {}

impl Order for BySpace {
    /// The first page.
    type Key = u64;

    #[inline]
    fn key<S>(node: &Node<S>) -> u64 {
        node.bounds().0
    }

    #[inline]
    fn links<S>(node: &Node<S>) -> &Links {
        &node.space
    }

    #[inline]
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links {
        &mut node.space
    }

    fn summarize<M: Store>(pool: &mut Pool<M>, index: u32) -> bool {
        let node = pool.get(index);
        let (start, end) = node.bounds();
        let [left, right] = node.space.child;
        let mut span = Span { gap: 0, start, end };
        if left != NIL {
            let below = &pool.get(left).span;
            span.start = below.start;
            span.gap = below.gap.max(start.saturating_sub(below.end));
        }
        if right != NIL {
            let below = &pool.get(right).span;
            span.end = below.end;
            span.gap = span.gap.max(below.gap).max(below.start.saturating_sub(end));
        }
        let old = &mut pool.get_mut(index).span;
        let changed = *old != span;
        *old = span;
        changed
    }
}

impl Tree<BySpace> {
    /// The node that has `page`, or [`NIL`]. O(log n).
    #[inline]
    pub(super) fn at<M: Store>(&self, pool: &Pool<M>, page: u64) -> u32 {
        let mut index = self.root();
        while index != NIL {
            let node = pool.get(index);
            let (start, end) = node.bounds();
            if page < start {
                index = node.space.child[0];
            } else if page >= end {
                index = node.space.child[1];
            } else {
                break;
            }
        }
        index
    }

    /// The first node that ends after `page`, or [`NIL`]. O(log n).
    pub(super) fn ending_after<M: Store>(&self, pool: &Pool<M>, page: u64) -> u32 {
        let (mut index, mut found) = (self.root(), NIL);
        while index != NIL {
            let node = pool.get(index);
            let (start, end) = node.bounds();
            if end <= page {
                index = node.space.child[1];
            } else {
                found = index;
                if start <= page {
                    break;
                }
                index = node.space.child[0];
            }
        }
        found
    }

    /// Asks `fits` about the holes of at least `pages` pages in the space of `size` pages, from
    /// low to high, until it has an answer. O(log n) for each hole asked about.
    pub(super) fn holes<M: Store, T>(
        &self,
        pool: &Pool<M>,
        size: u64,
        pages: u64,
        mut fits: impl FnMut(u64, u64) -> Option<T>,
    ) -> Option<T> {
        let mut fits = |start: u64, end: u64| {
            if end.saturating_sub(start) >= pages {
                fits(start, end)
            } else {
                None
            }
        };
        if self.root() == NIL {
            return fits(0, size);
        }
        let whole = pool.get(self.root()).span;
        if let Some(fit) = fits(0, whole.start) {
            return Some(fit);
        }
        if whole.gap >= pages {
            // A node is come to from above, to see what is below it on the left, or from there.
            let (mut index, mut descend) = (self.root(), true);
            while index != NIL {
                let node = pool.get(index);
                let [left, right] = node.space.child;
                if descend && left != NIL && pool.get(left).span.gap >= pages {
                    index = left;
                    continue;
                }
                let (start, end) = node.bounds();
                if left != NIL {
                    if let Some(fit) = fits(pool.get(left).span.end, start) {
                        return Some(fit);
                    }
                }
                descend = false;
                if right != NIL {
                    let below = pool.get(right).span;
                    if let Some(fit) = fits(end, below.start) {
                        return Some(fit);
                    }
                    if below.gap >= pages {
                        index = right;
                        descend = true;
                        continue;
                    }
                }
                index = Self::above(pool, index, 1);
            }
        }
        fits(whole.end, size)
    }
}
