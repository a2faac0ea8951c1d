// SPDX-License-Identifier: GPL-2.0

//! The tree by segment page: which ranges show these pages of that segment?
//!
//! An interval tree. Ranges may overlap here, since a segment's page can be shown more than once.
//! The summary of a subtree is the highest (segment id, end) within. In a subtree whose ids are all
//! `s` or less, one that is above (s, a) means that a range of `s` in it ends after page `a`; a
//! subtree with higher ids in it lies on the one path to where the ranges of `s` end, so it costs
//! O(log n) at most to be wrong about those.
//!
//! The summaries are exact at all times, for notifiers search here with the lock held, and what a
//! search costs must not depend on what the owner did before. A node that comes raises those above
//! it until one reaches as far anyway. A node that goes concerns those above it only as long as
//! none of the others below them reaches as far. A node that loses a part of its subtree when
//! another goes above it is summarized anew if that part reaches as far as it did.

use super::{
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
    pool::{
        Pool,
        Store, //
    },
    tree::{
        Order,
        Tree, //
    },
    Range,
    Segment, //
};
use core::ops;

pub(super) enum BySegment {}

impl Order for BySegment {
    /// The segment's id and the first page in it, and the first page in the space.
    type Key = (Wide, SpacePage);

    /// Segment id and end page in it; exact.
    type Summary = Wide;

    #[inline]
    fn key<S>(node: &Node<S>) -> Self::Key {
        (wide(node.segment_id, node.segment_bounds().0), node.start)
    }

    #[inline]
    fn is_before<S>(node: &Node<S>, key: &Self::Key) -> bool {
        let (at, to) = (wide(node.segment_id, node.segment_bounds().0), key.0);
        at < to || (at == to && node.start < key.1)
    }

    #[inline]
    fn links<S>(node: &Node<S>) -> &Links {
        &node.segment
    }

    #[inline]
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links {
        &mut node.segment
    }

    #[inline]
    fn summary<S>(node: &Node<S>) -> Self::Summary {
        node.reach
    }

    #[inline]
    fn summary_mut<S>(node: &mut Node<S>) -> &mut Self::Summary {
        &mut node.reach
    }

    #[inline]
    fn narrowed<M: Store>(pool: &mut Pool<M>, index: u32, gone: u32) {
        if pool.get(index).reach == pool.get(gone).reach {
            Self::summarize(pool, index);
        }
    }

    /// Only those summaries can change that were what `gone` itself reached.
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
    /// The key of the node that stands for `range`.
    #[inline]
    pub(super) fn key_of<S: Segment>(range: &Range<S>) -> <Self as Order>::Key {
        (wide(range.segment.id(), range.offset), range.start)
    }

    /// Makes the summary of the subtree under `index` anew from the node itself and from its
    /// children's summaries, and says whether it changed.
    pub(super) fn summarize<M: Store>(pool: &mut Pool<M>, index: u32) -> bool {
        let node = pool.get(index);
        let mut reach = node.own_reach();
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

    /// Makes the summaries of `index` and of what is above it right, below which something has
    /// changed that reached as far as `old` and does so no longer. O(log n).
    pub(super) fn lower<M: Store>(pool: &mut Pool<M>, mut index: u32, old: Wide) {
        while index != NIL && pool.get(index).reach == old && Self::summarize(pool, index) {
            index = pool.get(index).segment.parent;
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
