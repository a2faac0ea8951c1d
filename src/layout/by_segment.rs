// SPDX-License-Identifier: GPL-2.0

//! The tree by segment page: which ranges show these pages of that segment?
//!
//! An interval tree: this file owns its order, its summaries and its search. Ranges may overlap
//! here, since several ranges may show the same page of a segment.
//!
//! The summary of a subtree is the highest (segment id, end) within. In a subtree whose ids are all
//! `s` or less, a summary above (s, a) means that a range of `s` in it ends after page `a`. A
//! subtree with higher ids in it lies on the one path to where the ranges of `s` end, so a wrong
//! answer for those costs O(log n) at most.
//!
//! The summaries are exact at all times, because notifiers search here with the lock held, and what
//! a search costs must not depend on what the owner did before. A node that is added raises those
//! above it until one is high enough already. A node that is removed concerns those above it only
//! as long as none of the others below them reaches as far. A node that loses a part of its subtree
//! when another goes above it is summarized anew if that part reaches as far as it did.
//!
//! A search is O(log n) for each range that it finds, and a change of a summary O(log n). The newest
//! ranges are not here yet (`layout/waiting.rs`).

use super::{
    chunks::Store,
    node::{
        wide,
        Links,
        Node,
        Wide,
        NIL, //
    },
    page::{
        SegmentPage,
        SpacePage, //
    },
    pool::Pool,
    tree::{
        Order,
        Tree, //
    },
};
use core::ops;

pub(super) enum BySegment {}

/// The segment's id and the first page in it.
#[inline]
fn own_start<M: Store>(node: &Node<M>) -> Wide {
    wide(node.segment_id, node.segment_pages().start)
}

impl Order for BySegment {
    /// The segment's id and the first page in it, and the first page in the space.
    type Key = (Wide, SpacePage);

    /// Segment id and end page in it; exact.
    type Summary = Wide;

    #[inline]
    fn key<M: Store>(node: &Node<M>) -> Self::Key {
        (own_start(node), node.start)
    }

    #[inline]
    fn is_before<M: Store>(node: &Node<M>, key: &Self::Key) -> bool {
        let (at, to) = (own_start(node), key.0);
        at < to || (at == to && node.start < key.1)
    }

    #[inline]
    fn links<M: Store>(node: &Node<M>) -> &Links {
        &node.segment
    }

    #[inline]
    fn links_mut<M: Store>(node: &mut Node<M>) -> &mut Links {
        &mut node.segment
    }

    #[inline]
    fn summary<M: Store>(node: &Node<M>) -> Self::Summary {
        node.reach
    }

    #[inline]
    fn summary_mut<M: Store>(node: &mut Node<M>) -> &mut Self::Summary {
        &mut node.reach
    }

    #[inline]
    fn narrowed<M: Store>(pool: &mut Pool<M>, index: u32, gone: u32) {
        if pool.get(index).reach == pool.get(gone).reach {
            Self::summarize(pool, index);
        }
    }

    /// Only summaries that were as high as the end of `gone` itself can change.
    #[inline]
    fn lost<M: Store>(pool: &mut Pool<M>, parent: u32, gone: u32) {
        let node = pool.get(gone);
        let reach = node.reach;
        if reach == node.own_reach() {
            Self::lower(pool, parent, reach);
        }
    }
}

impl BySegment {
    /// Computes the summary of the subtree under `index` anew from the node itself and from its
    /// children's summaries. O(1).
    fn summarize<M: Store>(pool: &mut Pool<M>, index: u32) {
        let node = pool.get(index);
        let mut reach = node.own_reach();
        for below in node.segment.child {
            if let Some(below) = pool.linked(below) {
                reach = reach.max(below.reach);
            }
        }
        pool.get_mut(index).reach = reach;
    }

    /// Corrects the summaries of `index` and of the nodes above it, below which something has
    /// changed that reached as far as `old` and no longer does. O(log n).
    pub(super) fn lower<M: Store>(pool: &mut Pool<M>, mut index: u32, old: Wide) {
        // The node that was corrected last, which need not be looked at again from above.
        let (mut last, mut last_reach) = (NIL, 0);
        while let Some(node) = pool.linked(index) {
            let Links { parent, child } = node.segment;
            let mut reach = node.own_reach();
            if node.reach != old || reach == old {
                return;
            }
            for below in child {
                if below == last {
                    reach = reach.max(last_reach);
                } else if let Some(below) = pool.linked(below) {
                    reach = reach.max(below.reach);
                }
            }
            if reach == old {
                return;
            }
            pool.get_mut(index).reach = reach;
            (last, last_reach, index) = (index, reach, parent);
        }
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
        pages: &ops::Range<SegmentPage>,
    ) -> u32 {
        if pages.is_empty() {
            return NIL;
        }
        let may_show = |index: u32| index != NIL && pool.get(index).reach > wide(id, pages.start);
        while let Some(node) = pool.linked(index) {
            let shown = node.segment_pages();
            if node.segment_id != id || shown.start >= pages.end {
                return NIL;
            }
            if shown.end > pages.start {
                return index;
            }
            let [_, mut below] = node.segment.child;
            if may_show(below) {
                while may_show(pool.get(below).segment.child[0]) {
                    below = pool.get(below).segment.child[0];
                }
                index = below;
            } else {
                index = Self::after_subtree(pool, index);
            }
        }
        NIL
    }
}
