// SPDX-License-Identifier: GPL-2.0

//! What an address space shows: ranges of its pages -> pages of segments.
//!
//! This directory owns the ranges and nothing else. It calls nothing of the kernel, so
//! `selftests/layout` compiles it on the host too. All numbers are pages, never bytes; a page of a
//! space, of a segment and of a file have types of their own (`layout/page.rs`). No caller can
//! break a layout: a change that does not fit is an error, and changes nothing.
//!
//! # Locking
//!
//! A [`Layout`] takes no lock. Calls that take `&self` may run at the same time; those that take
//! `&mut self` need it exclusively. It expects one writer at a time, which may read it (`&self`)
//! without the lock that keeps the readers out, since nothing else changes it.
//!
//! # Memory
//!
//! Reading and changing neither allocate nor free nor sleep, because they happen where an
//! allocation may wait for the very same lock. A change takes at most as many nodes as
//! `Layout::*_NODES` say. The writer provides them beforehand, so that a lack of memory cannot make
//! the change fail:
//!
//! ```ignore
//! // The only writer, without the lock:
//! let mut spare = Spare::new(layout.need(Layout::REPLACE_NODES))?;
//! // With the lock:
//! layout.refill(&mut spare);
//! layout.replace(range, true, room, |old| ...)?;
//! // Without the lock: what the layout did not need.
//! drop(spare);
//! ```
//!
//! A batch asks for the sum. Nodes that a change frees serve the changes after it. Memory of which
//! nothing is in use goes back when there is more of it than of the rest
//! ([`Layout::has_surplus()`]):
//!
//! ```ignore
//! let mut surplus = Surplus::new();
//! // With the lock:
//! let more = layout.shed(&mut surplus);
//! // Without it:
//! surplus.free();
//! ```
//!
//! # Defects
//!
//! Nothing here panics in the kernel. A link that leads nowhere and a node that should have a range
//! and has none are defects of the layout itself: they are reported ([`Client::corrupt()`]), and
//! the walk that met them ends.
//!
//! # Inside
//!
//! The ranges are nodes (`layout/node.rs`) of a pool (`layout/pool.rs`), whose memory comes in chunks
//! (`layout/chunks.rs`), linked into a list and two trees: by space page (`layout/by_space.rs`), for faults and holes, and by segment page
//! (`layout/by_segment.rs`), for revocations that come from the segment. Both are the same treap
//! (`layout/tree.rs`). The changes are in `layout/change.rs`, and their steps in `layout/edit.rs`.

mod by_segment;
mod by_space;
mod change;
#[cfg(test)]
mod check;
mod chunks;
mod edit;
mod few;
mod installed;
mod node;
mod page;
mod pool;
mod range_set;
mod tree;

#[cfg(test)]
pub(crate) use self::check::PARTS;
pub(crate) use self::{
    change::Error,
    chunks::{
        Chunk,
        Need,
        Slot,
        Spare,
        Store,
        Surplus, //
    },
    few::FewRanges,
    installed::Installed,
    node::{
        Client,
        Node, //
    },
    page::{
        FilePage,
        Pages,
        SegmentPage,
        SpacePage, //
    },
    range_set::RangeSet,
};

use self::{
    by_segment::BySegment,
    by_space::BySpace,
    node::{
        wide,
        Wide,
        NIL, //
    },
    pool::Pool,
    tree::Tree,
};
use core::ops;

/// A handle of a segment.
///
/// The layout clones and drops handles under its lock, where neither may sleep. Handles with the
/// same id are those of the same segment.
pub(crate) trait Segment: Clone {
    /// A number that no other segment of the layout has, as long as the layout shows it.
    fn id(&self) -> u64;
}

/// What a range may be accessed for: the bits of `PROT_READ`, `PROT_WRITE` and `PROT_EXEC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prot(u8);

impl Prot {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// Reading.
    pub(crate) const READ: Self = Self(1);
    /// Writing.
    pub(crate) const WRITE: Self = Self(2);
    /// Fetching instructions.
    pub(crate) const EXEC: Self = Self(4);

    /// The protection of these `PROT_*` bits; [`None`] if there are others among them.
    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        if bits <= 7 {
            Some(Self(bits as u8))
        } else {
            None
        }
    }

    /// The `PROT_*` bits.
    pub(crate) const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether everything that `other` allows is allowed.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl ops::BitAnd for Prot {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl ops::BitOr for Prot {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A run of pages of the space that shows a run of pages of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Range<S> {
    /// First page in the space.
    pub(crate) start: SpacePage,
    /// Page after the last in the space.
    pub(crate) end: SpacePage,
    /// The segment that is shown.
    pub(crate) segment: S,
    /// Page of the segment that `start` shows.
    pub(crate) offset: SegmentPage,
    /// The accesses that are allowed.
    pub(crate) prot: Prot,
    /// Which of the pages were installed in an attachment's page table since they are shown. Stays
    /// with the pages when the range is cut or joined; two ranges may be equal without it.
    pub(crate) installed: Installed,
}

impl<S: PartialEq> PartialEq for Range<S> {
    fn eq(&self, other: &Self) -> bool {
        let of = |range: &Self| (range.start, range.end, range.offset, range.prot);
        of(self) == of(other) && self.segment == other.segment
    }
}

impl<S: Eq> Eq for Range<S> {}

impl<S> Range<S> {
    /// Number of pages.
    pub(crate) fn pages(&self) -> u64 {
        self.end - self.start
    }

    /// Page after the last in the segment.
    pub(crate) fn offset_end(&self) -> SegmentPage {
        self.offset + self.pages()
    }

    /// Page of the segment that `page` of the space shows; [`None`] outside of the range.
    pub(crate) fn offset_of(&self, page: SpacePage) -> Option<SegmentPage> {
        if (self.start..self.end).contains(&page) {
            Some(self.offset + (page - self.start))
        } else {
            None
        }
    }
}

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

/// The ranges of one address space.
///
/// In all costs, *n* is their number.
pub(crate) struct Layout<M: Store> {
    pool: Pool<M>,
    space: Tree<BySpace>,
    segments: Tree<BySegment>,
    /// Page after the last of the space.
    end: SpacePage,
    /// Number of pages that show something.
    mapped: u64,
    /// The number of callers that need ranges not to be joined.
    holds: usize,
}

impl<M: Store> Layout<M> {
    /// A space of `pages` pages with nothing in it. Allocates nothing.
    ///
    /// `seed` must be random, so that no owner can choose changes that make the trees deep.
    pub(crate) fn new(pages: u64, seed: u64) -> Self {
        Self {
            pool: Pool::new(seed),
            space: Tree::new(),
            segments: Tree::new(),
            end: SpacePage::new(pages),
            mapped: 0,
            holds: 0,
        }
    }

    /// Number of ranges: neighbours that continue each other count as one.
    pub(crate) fn len(&self) -> usize {
        self.pool.used()
    }

    /// Number of pages that show something.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Whether nothing is shown at all.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that [`Self::refill()`] must bring before changes can take `nodes` nodes.
    ///
    /// For the only writer, which needs no lock for it. O(1).
    pub(crate) fn need(&self, nodes: usize) -> Need {
        self.pool.need(nodes)
    }

    /// Takes the memory of `spare`, and leaves in it what the caller frees without the lock.
    ///
    /// O(new chunks); now and then, when the directory must grow, O(all chunks), which is O(1) for
    /// each chunk over the layout's life.
    pub(crate) fn refill(&mut self, spare: &mut Spare<M>) {
        self.pool.refill(spare);
    }

    /// Whether there is memory that [`Self::shed()`] would give back. O(1).
    pub(crate) fn has_surplus(&self) -> bool {
        self.pool.has_surplus()
    }

    /// Moves memory of which nothing is in use into `surplus`, which is empty and is to be freed
    /// without the lock, and says whether to go on. Some thousand instructions at most.
    ///
    /// Of memory that was used once and is so no longer, what remains in the end is no more than
    /// the rest and 256 KiB, besides what still holds a range or more: one range keeps 4 KiB. And
    /// the directory, 24 bytes for each 4 KiB.
    pub(crate) fn shed(&mut self, surplus: &mut Surplus<M>) -> bool {
        self.pool.shed(surplus)
    }

    fn range(&self, index: u32) -> Option<&Range<M::Segment>> {
        self.pool.linked(index)?.shown()
    }

    /// What `page` shows. O(log n).
    pub(crate) fn lookup(&self, page: SpacePage) -> Option<&Range<M::Segment>> {
        let (_, range) = self.space.at(&self.pool, page)?;
        Some(range)
    }

    /// The first range that ends after `page`: the one that has it, or else the next. O(log n).
    ///
    /// A walk that goes on from the end of each range visits all ranges, whatever changes in
    /// between.
    pub(crate) fn next(&self, page: SpacePage) -> Option<&Range<M::Segment>> {
        self.range(self.space.ending_after(&self.pool, page))
    }

    /// The ranges that have a page of `pages`, in order. O(log n), and O(1) for each.
    pub(crate) fn ranges(
        &self,
        pages: ops::Range<SpacePage>,
    ) -> impl Iterator<Item = &Range<M::Segment>> {
        let mut index = if pages.is_empty() {
            NIL
        } else {
            self.space.ending_after(&self.pool, pages.start)
        };
        core::iter::from_fn(move || {
            let range = self.range(index)?;
            index = self.pool.get(index).next;
            (range.start < pages.end).then_some(range)
        })
        .fuse()
    }

    /// Whether any page of `pages` shows something. O(log n).
    pub(crate) fn overlaps(&self, pages: ops::Range<SpacePage>) -> bool {
        self.ranges(pages).next().is_some()
    }

    /// Whether every page of `pages` shows something. O(log n), and O(1) for each range.
    pub(crate) fn covered(&self, pages: ops::Range<SpacePage>) -> bool {
        let ops::Range { mut start, end } = pages;
        for range in self.ranges(start..end) {
            if range.start > start {
                return false;
            }
            start = range.end;
        }
        start >= end
    }

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
        let index = self.segments.lower_bound(&self.pool, &first_of(id));
        let node = self.pool.linked(index);
        node.is_some_and(|node| node.segment_id == id)
    }

    /// The pieces of the space that show any of `pages` of the segment `id`. O(log n + pieces).
    ///
    /// For a caller that keeps the lock; see [`Self::next_showing()`].
    #[cfg(test)]
    pub(crate) fn showing(
        &self,
        id: u64,
        pages: ops::Range<SegmentPage>,
    ) -> impl Iterator<Item = Piece> + '_ {
        let mut index = self.segments.lower_bound(&self.pool, &first_of(id));
        core::iter::from_fn(move || {
            index = Tree::<BySegment>::showing(&self.pool, index, id, &pages);
            let piece = self.piece(index, &pages)?;
            index = Tree::<BySegment>::next(&self.pool, index);
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
        self.piece(index, &pages)
    }

    /// The first of `pages` of the segment `id` that no range shows, with those that follow it;
    /// [`None`] where all are shown. O(log n) for each range that is passed; after `most` it gives
    /// up, and says from where to go on.
    pub(crate) fn next_unshown(
        &self,
        id: u64,
        pages: ops::Range<SegmentPage>,
        most: usize,
    ) -> Result<Option<ops::Range<SegmentPage>>, SegmentPage> {
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
