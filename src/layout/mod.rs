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
//! (`layout/chunks.rs`), linked into a list and two trees: by space page (`layout/by_space.rs`), for
//! faults and holes, and by segment page (`layout/by_segment.rs`), for revocations that come from
//! the segment. Both are the same treap (`layout/tree.rs`). The newest ranges wait to be added to
//! the second (`layout/waiting.rs`). The changes are in `layout/change.rs`, their steps in
//! `layout/edit.rs`, and what is searched for in `layout/search.rs`.

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
mod search;
mod tree;
mod waiting;

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
    search::Unfinished,
};

use self::{
    by_segment::BySegment,
    by_space::BySpace,
    change::Finger,
    node::NIL,
    pool::Pool,
    tree::Tree,
    waiting::Waiting, //
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

/// The ranges of one address space.
///
/// In all costs, *n* is their number.
pub(crate) struct Layout<M: Store> {
    pool: Pool<M>,
    space: Tree<BySpace>,
    segments: Tree<BySegment>,
    /// What is not in that tree yet.
    waiting: Waiting,
    /// The place of the last change, or behind it, and the hole there. What changes that in any
    /// other way forgets it.
    finger: Option<Finger>,
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
            waiting: Waiting::new(),
            finger: None,
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
}
