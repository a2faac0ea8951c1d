// SPDX-License-Identifier: GPL-2.0

//! The tree by segment page: which ranges show these pages of that segment?
//!
//! An interval tree. Ranges may overlap here, since a segment's page can be shown more than once.
//! The summary of a subtree is the highest (segment id, end) within. In a subtree whose ids are all
//! `s` or less, one that is above (s, a) means that a range of `s` in it ends after page `a`; a
//! subtree with higher ids in it lies on the one path to where the ranges of `s` end, so it costs
//! O(log n) at most to be wrong about those.

use super::{
    pool::{
        Node,
        Pool,
        Store,
        NIL, //
    },
    tree::{
        Links,
        Order,
        Tree, //
    },
};
use core::ops;

pub(super) enum BySegment {}

impl Order for BySegment {
    /// The segment's id, the first page in it, the first page in the space.
    type Key = (u64, u64, u64);

    #[inline]
    fn key<S>(node: &Node<S>) -> Self::Key {
        (node.segment_id, node.segment_bounds().0, node.bounds().0)
    }

    #[inline]
    fn links<S>(node: &Node<S>) -> &Links {
        &node.segment
    }

    #[inline]
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links {
        &mut node.segment
    }

    fn summarize<M: Store>(pool: &mut Pool<M>, index: u32) -> bool {
        let node = pool.get(index);
        let mut reach = (node.segment_id, node.segment_bounds().1);
        for below in node.segment.child {
            if below != NIL {
                reach = reach.max(pool.get(below).reach);
            }
        }
        let old = &mut pool.get_mut(index).reach;
        let changed = *old != reach;
        *old = reach;
        changed
    }
}

impl Tree<BySegment> {
    /// The first node from `index` on, in the order of the tree, that shows any of `pages` of the
    /// segment `id`, or [`NIL`]. `index` is a node of that segment or a later one, or [`NIL`].
    /// O(log n).
    pub(super) fn showing<M: Store>(
        pool: &Pool<M>,
        mut index: u32,
        id: u64,
        pages: &ops::Range<u64>,
    ) -> u32 {
        if pages.is_empty() {
            return NIL;
        }
        let may_show = |index: u32| index != NIL && pool.get(index).reach > (id, pages.start);
        while index != NIL {
            let node = pool.get(index);
            let (start, end) = node.segment_bounds();
            if node.segment_id != id || start >= pages.end {
                return NIL;
            }
            if end > pages.start {
                return index;
            }
            let [_, mut below] = node.segment.child;
            if may_show(below) {
                while may_show(pool.get(below).segment.child[0]) {
                    below = pool.get(below).segment.child[0];
                }
                index = below;
            } else {
                index = Self::above(pool, index, 1);
            }
        }
        NIL
    }
}
