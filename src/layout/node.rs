// SPDX-License-Identifier: GPL-2.0

//! A node of a layout: one range, and its place in the list and in the two trees.

use super::{
    page::{
        SegmentPage,
        SpacePage, //
    },
    Range,
    Segment, //
};
use crate::sys::warn::warn_on_once;

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

/// A segment's id and a page in it, in this order, so that they are compared at once.
pub(super) type Wide = u128;

/// See [`Wide`].
#[inline]
pub(super) fn wide(id: u64, page: SegmentPage) -> Wide {
    (Wide::from(id) << 64) | Wide::from(page.get())
}

/// One range and its place in the two trees.
///
/// The way down the tree by space page reads only the first cache line.
#[repr(C, align(64))]
pub(crate) struct Node<S> {
    /// First page of the range in the space: a copy that can be read without asking whether the
    /// node is vacant.
    pub(super) start: SpacePage,
    /// Of the subtree by space page, no less than the pages of the longest hole behind any of its
    /// ranges and in front of another.
    pub(super) gap: u64,
    /// In the tree by space page.
    pub(super) space: Links,
    /// The node after this one by space page, or [`NIL`]; of a vacant node, the next vacant one.
    pub(super) next: u32,
    /// Of both trees: no node has a higher one than its parent.
    pub(super) priority: u32,
    /// In the tree by segment page.
    pub(super) segment: Links,
    /// The highest (segment id, end page in it) of the subtree by segment page.
    pub(super) reach: Wide,
    /// The id of the range's segment, which would otherwise be a pointer away.
    pub(super) segment_id: u64,
    /// What the node stands for; [`None`] while it is vacant.
    pub(super) range: Option<Range<S>>,
}

impl<S> Node<S> {
    /// A node that stands for nothing: what new chunks are filled with.
    pub(crate) const fn vacant() -> Self {
        Self {
            start: SpacePage::new(0),
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

    /// Lets the node, which is not in the tree by segment page, stand for `range`.
    #[inline]
    pub(super) fn fill(&mut self, range: Range<S>)
    where
        S: Segment,
    {
        self.start = range.start;
        self.segment_id = range.segment.id();
        self.range = Some(range);
    }

    /// Page after the last in the space. Of a vacant node, which only a corrupt tree leads to, that
    /// is its first: it stands for nothing.
    #[inline]
    pub(super) fn end(&self) -> SpacePage {
        match &self.range {
            Some(range) => range.end,
            None => {
                vacant();
                self.start
            }
        }
    }

    /// The segment's id, and the page after the last in it.
    #[inline]
    pub(super) fn own_reach(&self) -> Wide {
        wide(self.segment_id, self.segment_bounds().1)
    }

    /// First page and page after the last in the segment; none of a vacant node.
    #[inline]
    pub(super) fn segment_bounds(&self) -> (SegmentPage, SegmentPage) {
        match &self.range {
            Some(range) => (range.offset, range.offset_end()),
            None => {
                vacant();
                (SegmentPage::new(0), SegmentPage::new(0))
            }
        }
    }
}

/// A node is in a tree and stands for nothing: the trees are corrupt.
#[cold]
#[inline(never)]
fn vacant() {
    warn_on_once!(true);
}
