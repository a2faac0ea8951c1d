// SPDX-License-Identifier: GPL-2.0

//! A node of a layout: one range, and its place in the list and in the two trees.
//!
//! This file owns what a node holds and what it costs: 128 bytes, two cache lines. All functions
//! are O(1).

use super::{
    page::{
        SegmentPage,
        SpacePage, //
    },
    Range,
    Segment, //
};
use core::ops;

/// What a layout is used with: the segments that it shows, and where its defects are reported.
pub(crate) trait Client {
    /// The handle of a segment.
    type Segment: Segment;

    /// Reports that the layout is corrupt, which is a defect of the layout itself; `what` says in
    /// which respect. The layout then carries on as well as it can, and may call this again. May
    /// be called under the layout's lock, and must not sleep.
    fn corrupt(what: &'static str);
}

/// As [`Client::corrupt()`], out of the way of code that never calls it.
#[cold]
#[inline(never)]
pub(super) fn corrupt<M: Client>(what: &'static str) {
    M::corrupt(what);
}

/// The index that is no node.
pub(super) const NIL: u32 = u32::MAX;

/// A node's place in one tree.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub(super) parent: u32,
    /// Left: smaller keys. Right: greater keys.
    pub(super) child: [u32; 2],
}

impl Links {
    pub(super) const NONE: Self = Self {
        parent: NIL,
        child: [NIL; 2],
    };
}

/// How a node is linked to others: in the list, in the tree by space page, and in that by segment
/// page or among those that wait. To be read in one go, since to find a node takes a while.
#[derive(Clone, Copy)]
pub(super) struct AllLinks {
    pub(super) next: u32,
    pub(super) space: Links,
    pub(super) segment: Links,
    pub(super) waits: bool,
    pub(super) segment_id: u64,
}

/// A segment's id and a page in it, in this order, so that one comparison compares both.
pub(super) type Wide = u128;

/// See [`Wide`].
#[inline]
pub(super) fn wide(id: u64, page: SegmentPage) -> Wide {
    (Wide::from(id) << 64) | Wide::from(page.get())
}

/// The reach of a node that waits: no range ends before the first page of its segment, and where a
/// node has lost its range, no segment has the last id.
pub(super) const WAITS: Wide = Wide::MAX << 64;

/// One range and its place in the list and in the two trees.
///
/// The way down the tree by space page reads only the first cache line.
#[repr(C, align(64))]
pub(crate) struct Node<M: Client> {
    /// First page of the range in the space: a copy that can be read without a look at whether the
    /// node is vacant.
    pub(super) start: SpacePage,
    /// Of the subtree by space page, no less than the pages of the longest hole between any of its
    /// ranges and the range after that.
    pub(super) gap: u64,
    /// In the tree by space page.
    pub(super) space: Links,
    /// The node after this one by space page, or [`NIL`].
    pub(super) next: u32,
    /// Of both trees: no node has a higher one than its parent.
    pub(super) priority: u32,
    /// In the tree by segment page, or in the list of those that wait to be added to it.
    pub(super) segment: Links,
    /// The highest (segment id, end page in it) of the subtree by segment page, or that it waits.
    pub(super) reach: Wide,
    /// The id of the range's segment, which would otherwise be a pointer away.
    pub(super) segment_id: u64,
    /// The range; [`None`] while the node is vacant.
    pub(super) range: Option<Range<M::Segment>>,
}

impl<M: Client> Node<M> {
    /// A node without a range: what new chunks are filled with.
    pub(crate) const fn vacant() -> Self {
        Self {
            start: SpacePage::FIRST,
            gap: 0,
            space: Links::NONE,
            next: NIL,
            priority: 0,
            segment: Links::NONE,
            reach: 0,
            segment_id: 0,
            range: None,
        }
    }

    /// Gives the node, which is not in the tree by segment page, the range `range`.
    #[inline]
    pub(super) fn fill(&mut self, range: Range<M::Segment>) {
        self.start = range.start;
        self.segment_id = range.segment.id();
        self.range = Some(range);
    }

    /// How it is linked to others.
    #[inline(always)]
    pub(super) fn all_links(&self) -> AllLinks {
        AllLinks {
            next: self.next,
            space: self.space,
            segment: self.segment,
            waits: self.waits(),
            segment_id: self.segment_id,
        }
    }

    /// Whether it waits to be added to the tree by segment page.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        self.reach == WAITS
    }

    /// The range of the node, which is in use: only in a corrupt layout there is none.
    #[inline]
    pub(super) fn shown(&self) -> Option<&Range<M::Segment>> {
        if self.range.is_none() {
            corrupt::<M>("a vacant node is in use");
        }
        self.range.as_ref()
    }

    /// Page after the last in the space.
    #[inline]
    pub(super) fn end(&self) -> SpacePage {
        self.shown().map_or(self.start, |range| range.end)
    }

    /// The segment's id, and the page after the last in it.
    #[inline]
    pub(super) fn own_reach(&self) -> Wide {
        wide(self.segment_id, self.segment_pages().end)
    }

    /// The pages of the segment.
    #[inline]
    pub(super) fn segment_pages(&self) -> ops::Range<SegmentPage> {
        self.shown()
            .map_or(SegmentPage::FIRST..SegmentPage::FIRST, |range| {
                range.offset..range.offset_end()
            })
    }
}
