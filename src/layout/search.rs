// SPDX-License-Identifier: GPL-2.0

//! The searches of a layout: for a hole, and for what shows pages of a segment.
//!
//! This file owns no data. A search by segment page looks at the tree, and at the few ranges that
//! wait to be added to it (`layout/waiting.rs`).

use super::{
    by_segment::BySegment,
    chunks::Store,
    node::{
        wide,
        Wide, //
    },
    page::{
        FilePage,
        Pages,
        SegmentPage,
        SpacePage, //
    },
    tree::{
        Order,
        Tree, //
    },
    Layout,
    Prot, //
};
use core::ops;

/// A run of pages of the space that shows some of the pages of a segment that a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First page in the space.
    pub(crate) start: SpacePage,
    /// Page after the last in the space.
    pub(crate) end: SpacePage,
    /// Page of the segment that `start` shows.
    pub(crate) offset: SegmentPage,
    /// The accesses that are allowed.
    pub(crate) prot: Prot,
    /// From where the search continues.
    pub(crate) cursor: Cursor,
}

/// How far [`Layout::next_showing()`] has come. It stays valid when the layout changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// As in the range of the last piece.
    offset: SegmentPage,
    /// As in the range of the last piece.
    start: SpacePage,
}

/// A search has looked at as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished;

/// How many holes may be long enough and not fit before others are looked for.
const MISFITS: usize = 64;

impl<M: Store> Layout<M> {
    /// The lowest start of a hole of `pages` pages that leaves the same remainder as `first` when
    /// divided by `align`. Where many holes are long enough but have no such start, one of those
    /// that have it for sure.
    ///
    /// For an address at which huge pages are possible: first with their size as `align` and the
    /// first page of the file that is to be shown, then with 1. Corrects no more than so many
    /// bounds: [`Unfinished`] if there are more, and the next search finds these corrected. Else
    /// O(log n). Changes only the bounds of holes.
    pub(crate) fn find_hole(
        &mut self,
        pages: u64,
        align: u64,
        first: FilePage,
        corrections: usize,
    ) -> Result<Option<SpacePage>, Unfinished> {
        if pages == 0 {
            return Ok(None);
        }
        let align = align.max(1);
        let want = first.get() % align;
        let mut misfits = 0;
        let start_in = |hole: ops::Range<SpacePage>| {
            let have = hole.start.get() % align;
            let skip = if want >= have {
                want - have
            } else {
                // A remainder is less than `align`.
                align.wrapping_sub(have - want)
            };
            let start = hole.start.checked_add(skip)?;
            (start.checked_add(pages)? <= hole.end).then_some(start)
        };
        let found = self
            .space
            .holes(&mut self.pool, self.end, pages, corrections, |hole| {
                let start = start_in(hole).map(Some);
                misfits += usize::from(start.is_none());
                start.or((misfits == MISFITS).then_some(None))
            })?;
        match found {
            Some(None) => self.space.holes(
                &mut self.pool,
                self.end,
                pages.saturating_add(align - 1),
                corrections,
                start_in,
            ),
            found => Ok(found.flatten()),
        }
    }

    /// Whether any range shows the segment `id`. O(log n).
    pub(crate) fn shows(&self, id: u64) -> bool {
        let shows = |index: u32| {
            let node = self.pool.linked(index);
            node.is_some_and(|node| node.segment_id == id)
        };
        self.waiting.showing(&self.pool, id).any(shows)
            || shows(self.segments.lower_bound(&self.pool, &first_of(id)))
    }

    /// The pieces of the space that show any of `pages` of the segment `id`.
    #[cfg(test)]
    pub(crate) fn showing(
        &self,
        id: u64,
        pages: ops::Range<SegmentPage>,
    ) -> impl Iterator<Item = Piece> + '_ {
        let mut after = None;
        core::iter::from_fn(move || {
            let piece = self.next_showing(id, pages.clone(), after)?;
            after = Some(piece.cursor);
            Some(piece)
        })
    }

    /// The next piece of the space that shows any of `pages` of the segment `id`: the first, or the
    /// one after the piece with the cursor `after`. O(log n).
    ///
    /// For a caller that drops the lock in between. A page that shows any of `pages` from the first
    /// call to the last is in some piece (in two if its range is cut at the right moment), provided
    /// that [`Self::hold_joins()`] was called before the first, and [`Self::release_joins()`] not
    /// before the last: the search would miss a range that joins one which it has passed. It may
    /// also miss a range that is replaced meanwhile, even by an equal one; to revoke that is the
    /// task of the caller that replaces it.
    pub(crate) fn next_showing(
        &self,
        id: u64,
        pages: ops::Range<SegmentPage>,
        after: Option<Cursor>,
    ) -> Option<Piece> {
        let from = match after {
            None => first_of(id),
            // What follows in the order of the tree. A range starts before the last page number.
            Some(cursor) => (wide(id, cursor.offset), cursor.start + 1),
        };
        let index = self.segments.lower_bound(&self.pool, &from);
        let index = Tree::<BySegment>::showing(&self.pool, index, id, &pages);
        let index = self.earliest_showing(index, id, &pages, &from);
        self.piece(index, &pages)
    }

    /// Of the ranges that wait, and have a key from `from` on, the first that shows any of `pages`
    /// of the segment `id`, if that is before the node `index`: else that.
    fn earliest_showing(
        &self,
        mut index: u32,
        id: u64,
        pages: &ops::Range<SegmentPage>,
        from: &<BySegment as Order>::Key,
    ) -> u32 {
        let mut before = self.pool.linked(index).map(BySegment::key);
        for waiting in self.waiting.showing(&self.pool, id) {
            let node = self.pool.get(waiting);
            if node.segment_id != id || !node.segment_pages().overlaps(pages) {
                continue;
            }
            let key = BySegment::key(node);
            if key >= *from && before.is_none_or(|before| key < before) {
                (index, before) = (waiting, Some(key));
            }
        }
        index
    }

    /// The first of `pages` of the segment `id` that no range shows, with those that follow it;
    /// [`None`] where all are shown. O(log n) for each range that is passed; after `most` it gives
    /// up, and says from where to go on. Adds what waits to the tree.
    pub(crate) fn next_unshown(
        &mut self,
        id: u64,
        pages: ops::Range<SegmentPage>,
        most: usize,
    ) -> Result<Option<ops::Range<SegmentPage>>, SegmentPage> {
        self.add_waiting();
        let mut rest = pages;
        let mut index = self.segments.lower_bound(&self.pool, &first_of(id));
        for _ in 0..most {
            if rest.is_empty() {
                return Ok(None);
            }
            index = Tree::<BySegment>::showing(&self.pool, index, id, &rest);
            let Some(range) = self.range(index) else {
                return Ok(Some(rest));
            };
            // They come in the order of their first page of the segment.
            if range.offset > rest.start {
                return Ok(Some(rest.start..range.offset));
            }
            // Then it shows none of the rest, and those after it are next.
            rest.start = range.offset_end();
        }
        if rest.is_empty() {
            return Ok(None);
        }
        Err(rest.start)
    }

    /// The piece of a range that shows any of `pages`.
    fn piece(&self, index: u32, pages: &ops::Range<SegmentPage>) -> Option<Piece> {
        let range = self.range(index)?;
        let shown = (range.offset..range.offset_end()).intersect(pages);
        let start = range.start + (shown.start - range.offset);
        Some(Piece {
            start,
            end: start + shown.count(),
            offset: shown.start,
            prot: range.prot,
            cursor: Cursor {
                offset: range.offset,
                start: range.start,
            },
        })
    }
}

/// The least key that a range of the segment `id` can have in the tree by segment page.
#[inline]
fn first_of(id: u64) -> (Wide, SpacePage) {
    (wide(id, SegmentPage::FIRST), SpacePage::FIRST)
}
