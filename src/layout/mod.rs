// SPDX-License-Identifier: GPL-2.0

//! What an address space shows: ranges of its pages -> pages of segments.
//!
//! This room owns the ranges and nothing else. It calls nothing of the kernel, so it is compiled
//! on the host too, by `selftests/layout`. All numbers are pages, never bytes. Nobody outside of
//! it can break it: what does not fit is refused, and nothing has changed then.
//!
//! # Locking
//!
//! A [`Layout`] takes no lock. Calls that take `&self` may run together; those that take
//! `&mut self` need it exclusively. It expects one writer at a time, which may call what takes
//! `&self` without the lock that keeps the readers out, since nothing else changes anything.
//!
//! # Memory
//!
//! Reading and changing neither allocate nor free nor sleep, for they happen where an allocation
//! may wait for the very same lock. A change takes at most so many nodes as `Layout::*_NODES` say
//! and its writer brings them beforehand, so that the change cannot fail for lack of memory:
//!
//! ```ignore
//! // The only writer, without the lock:
//! let mut spare = Spare::new(layout.need(Layout::REPLACE_NODES))?;
//! // With the lock:
//! layout.refill(&mut spare);
//! layout.replace(range, true, room, |old| ...)?;
//! // Without it again: what the layout did not need or needs no longer.
//! drop(spare);
//! ```
//!
//! A batch asks for the sum. Nodes that a change frees serve the changes after it; their memory
//! stays until the layout's end.
//!
//! # Inside
//!
//! The ranges are nodes (`node.rs`) of a pool (`pool.rs`), linked to a list and into two trees: by
//! space page (`by_space.rs`), for faults and holes, and by segment page (`by_segment.rs`), for
//! revocations that come from the segment. Both are the same treap (`tree.rs`). The changes are in
//! `change.rs`, and what they are made of in `edit.rs`. Pages have types of their own (`page.rs`).

mod by_segment;
mod by_space;
mod change;
#[cfg(test)]
mod check;
mod edit;
mod installed;
mod node;
pub(crate) mod page;
mod pool;
mod tree;

#[cfg(not(test))]
pub(crate) use self::page::FilePage;
pub(crate) use self::{
    change::Error,
    installed::Installed,
    node::Node,
    page::{
        Pages,
        SegmentPage,
        SpacePage, //
    },
    pool::{
        Chunk,
        Need,
        Spare,
        Store, //
    },
};

use self::{
    by_segment::BySegment,
    by_space::BySpace,
    node::{
        wide,
        NIL, //
    },
    pool::Pool,
    tree::{
        Order,
        Tree, //
    },
};
use core::ops;

/// A handle of a segment.
///
/// Cloning and dropping one happens under the layout's lock and must not sleep. Handles with the
/// same id are taken for the same segment.
pub(crate) trait Segment: Clone {
    /// Tells the segment from all others of the layout, as long as the layout shows it.
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

    /// What both allow.
    #[cfg(test)]
    pub(crate) const fn intersect(self, other: Self) -> Self {
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
    /// What is shown.
    pub(crate) segment: S,
    /// Page of the segment that `start` shows.
    pub(crate) offset: SegmentPage,
    /// For which access.
    pub(crate) prot: Prot,
    /// Which of the pages were installed in an attachment since they are shown: all in the range.
    /// Goes with the pages when a range is cut or joined, and is no part of what a range *is*.
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
            Some(self.offset_end() - (self.end - page))
        } else {
            None
        }
    }
}

/// A run of pages of the space that shows some of the pages of a segment that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First page in the space.
    pub(crate) start: SpacePage,
    /// Page after the last in the space.
    pub(crate) end: SpacePage,
    /// Page of the segment that `start` shows.
    pub(crate) offset: SegmentPage,
    /// For which access.
    pub(crate) prot: Prot,
    /// Where to go on.
    pub(crate) cursor: Cursor,
}

/// How far [`Layout::next_showing()`] has come. It stays good when the layout changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// As in the range of the last piece.
    offset: SegmentPage,
    /// As in the range of the last piece.
    start: SpacePage,
}

/// The ranges of one address space.
///
/// *n* is their number in what is said of costs.
pub(crate) struct Layout<M: Store> {
    pool: Pool<M>,
    space: Tree<BySpace>,
    segments: Tree<BySegment>,
    /// Page after the last of the space.
    end: SpacePage,
    /// How many callers have put joins on hold.
    holds: usize,
}

impl<M: Store> Layout<M> {
    /// A space of `pages` pages with nothing in it. Allocates nothing.
    ///
    /// `seed` is to be random, so that no owner can choose changes that make the trees deep.
    pub(crate) fn new(pages: u64, seed: u64) -> Self {
        Self {
            pool: Pool::new(seed),
            space: Tree::new(),
            segments: Tree::new(),
            end: SpacePage::new(pages),
            holds: 0,
        }
    }

    /// Length of the space.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> u64 {
        self.end.get()
    }

    /// Number of ranges: neighbours that continue each other count as one.
    pub(crate) fn len(&self) -> usize {
        self.pool.used()
    }

    /// Whether nothing is shown at all.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What memory [`Self::refill()`] must bring before changes can take `nodes` nodes.
    ///
    /// For the only writer, which needs no lock for it. O(1).
    pub(crate) fn need(&self, nodes: usize) -> Need {
        self.pool.need(nodes)
    }

    /// Takes the memory of `spare`, and leaves in it what is to be freed without the lock.
    ///
    /// O(new chunks); now and then, when the directory must grow, O(all chunks), which is O(1) for
    /// each chunk over the layout's life.
    pub(crate) fn refill(&mut self, spare: &mut Spare<M>) {
        self.pool.refill(spare);
    }

    fn range(&self, index: u32) -> Option<&Range<M::Segment>> {
        if index == NIL {
            None
        } else {
            self.pool.get(index).range.as_ref()
        }
    }

    /// What `page` shows. O(log n).
    pub(crate) fn lookup(&self, page: SpacePage) -> Option<&Range<M::Segment>> {
        self.range(self.space.at(&self.pool, page))
    }

    /// The first range that ends after `page`: the one that has it, or else the next. O(log n).
    ///
    /// Going on from the end of the range found visits all ranges, and it does not matter what
    /// changes in between.
    pub(crate) fn next(&self, page: SpacePage) -> Option<&Range<M::Segment>> {
        self.range(self.space.ending_after(&self.pool, page))
    }

    /// The ranges that have any of `pages`, in order. O(log n), and O(1) for each.
    pub(crate) fn ranges(
        &self,
        pages: ops::Range<SpacePage>,
    ) -> impl Iterator<Item = &Range<M::Segment>> {
        let end = pages.end;
        let mut index = if pages.is_empty() {
            NIL
        } else {
            self.space.ending_after(&self.pool, pages.start)
        };
        core::iter::from_fn(move || {
            let range = self.range(index)?;
            index = self.pool.get(index).next;
            (range.start < end).then_some(range)
        })
        .fuse()
    }

    /// Whether any of `pages` shows something. O(log n).
    pub(crate) fn overlaps(&self, pages: ops::Range<SpacePage>) -> bool {
        self.ranges(pages).next().is_some()
    }

    /// Whether each of `pages` shows something. O(log n), and O(1) for each range.
    pub(crate) fn covered(&self, pages: ops::Range<SpacePage>) -> bool {
        let (mut page, end) = (pages.start, pages.end);
        for range in self.ranges(pages) {
            if range.start > page {
                return false;
            }
            page = range.end;
        }
        page >= end
    }

    /// The lowest start of a hole of `pages` pages that leaves the same remainder as `congruent`
    /// when divided by `align`.
    ///
    /// For an address at which huge pages are possible: first with their size as `align` and the
    /// file's page as `congruent`, then with 1. O(log n), amortized over the changes before, and
    /// O(log n) for each hole that is long enough and has no such start, of which there can be no
    /// more than ranges. Changes nothing but what is remembered of holes.
    pub(crate) fn find_hole(
        &mut self,
        pages: u64,
        align: u64,
        congruent: u64,
    ) -> Option<SpacePage> {
        if pages == 0 {
            return None;
        }
        let align = align.max(1);
        let want = congruent % align;
        self.space
            .holes(&mut self.pool, self.end, pages, |start, end| {
                let (start, end) = (start.get(), end.get());
                let have = start % align;
                let skip = if want >= have {
                    want - have
                } else {
                    align - (have - want)
                };
                let start = start.checked_add(skip)?;
                (start.checked_add(pages)? <= end).then_some(SpacePage::new(start))
            })
    }

    /// What is not after any range of the segment `id` in the tree by segment page.
    fn first_of(id: u64) -> <BySegment as Order>::Key {
        (wide(id, SegmentPage::new(0)), SpacePage::new(0))
    }

    /// Whether any range shows the segment `id`. O(log n).
    pub(crate) fn shows(&self, id: u64) -> bool {
        let index = self.segments.lower_bound(&self.pool, &Self::first_of(id));
        index != NIL && self.pool.get(index).segment_id == id
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
        let mut index = self.segments.lower_bound(&self.pool, &Self::first_of(id));
        core::iter::from_fn(move || {
            index = Tree::<BySegment>::showing(&self.pool, index, id, &pages);
            let piece = self.piece(index, &pages)?;
            index = Tree::<BySegment>::next(&self.pool, index);
            Some(piece)
        })
    }

    /// The next piece of the space that shows any of `pages` of the segment `id`: the first, or the
    /// one after the piece that left the cursor `after`. O(log n).
    ///
    /// For a caller that releases the lock in between. Whatever shows any of the pages from the
    /// first call to the last is in some piece (it may be in two if it is cut at the right
    /// moment), provided that [`Self::hold_joins()`] was called before the first, and
    /// [`Self::release_joins()`] not until the last: a range that joins one which was passed
    /// already would be passed with it. What is replaced is gone, even by the very same; finding
    /// that is up to the caller that replaces it.
    pub(crate) fn next_showing(
        &self,
        id: u64,
        pages: ops::Range<SegmentPage>,
        after: Option<Cursor>,
    ) -> Option<Piece> {
        let from = match after {
            None => Self::first_of(id),
            // What follows in the order of the tree: no two ranges start at the same page.
            Some(cursor) => (wide(id, cursor.offset), cursor.start + 1),
        };
        let index = self.segments.lower_bound(&self.pool, &from);
        let index = Tree::<BySegment>::showing(&self.pool, index, id, &pages);
        self.piece(index, &pages)
    }

    /// The piece of a range that shows any of `pages`.
    fn piece(&self, index: u32, pages: &ops::Range<SegmentPage>) -> Option<Piece> {
        let range = self.range(index)?;
        let before = pages.start.max(range.offset) - range.offset;
        let behind = range.offset_end() - pages.end.min(range.offset_end());
        Some(Piece {
            start: range.start + before,
            end: range.end - behind,
            offset: range.offset + before,
            prot: range.prot,
            cursor: Cursor {
                offset: range.offset,
                start: range.start,
            },
        })
    }
}
