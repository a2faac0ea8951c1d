// SPDX-License-Identifier: GPL-2.0

//! Random changes, against a model that is only an array of pages.

use crate::{
    host::{
        all, find_hole, insert, listed, numbers, of_segment, page, pages, refill, Layout, Range,
        Segment, INSERT_NODES,
    },
    layout::{Error, FilePage, Installed, Pages, Prot, SegmentPage},
};
use proptest::prelude::*;
use std::rc::Rc;

/// Length of the space: short, so that changes meet.
const PAGES: u64 = 48;
const SEGMENTS: u64 = 3;

/// What one page shows: segment, page in it, protection.
type Page = Option<(u64, u64, Prot)>;

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Insert(Shown),
    Replace(Shown),
    Remove {
        start: u64,
        end: u64,
    },
    Protect {
        start: u64,
        end: u64,
        prot: Prot,
    },
    Install {
        start: u64,
        end: u64,
    },
    /// No change: a search for what is not shown of a segment, which prepares for it.
    Search {
        id: u64,
        start: u64,
        end: u64,
    },
    Hold,
    Release,
}

/// A range to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    start: u64,
    end: u64,
    segment: u64,
    offset: u64,
    prot: Prot,
    /// Whether its pages were installed before: it is put back.
    installed: bool,
}

fn prots() -> impl Strategy<Value = Prot> {
    prop_oneof![Just(Prot::READ), Just(Prot::READ | Prot::WRITE)]
}

/// Pages of the space, mostly few; some are none, or reach beyond the space.
fn spans() -> impl Strategy<Value = (u64, u64)> {
    (0..PAGES + 2, prop_oneof![4 => 0..6_u64, 1 => 0..PAGES])
        .prop_map(|(start, pages)| (start, start + pages))
}

/// Segments, mostly the first, so that many a range has to do with another.
pub(crate) fn segments() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 1 => 0..SEGMENTS]
}

fn shown() -> impl Strategy<Value = Shown> {
    // Few distances between space and segment, so that many a range continues another.
    let distances = prop_oneof![3 => Just(0), 1 => Just(5), 1 => 0..PAGES];
    let installed = prop_oneof![4 => Just(false), 1 => Just(true)];
    (spans(), segments(), distances, prots(), installed).prop_map(
        |((start, end), segment, distance, prot, installed)| Shown {
            start,
            end,
            segment,
            offset: start + distance,
            prot,
            installed,
        },
    )
}

pub(crate) fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => shown().prop_map(Change::Insert),
        4 => shown().prop_map(Change::Replace),
        4 => spans().prop_map(|(start, end)| Change::Remove { start, end }),
        2 => (spans(), prots()).prop_map(|((start, end), prot)| Change::Protect { start, end, prot }),
        2 => spans().prop_map(|(start, end)| Change::Install { start, end }),
    ]
}

/// Rarer things than those that [`changes()`] are.
fn changes_and_more() -> impl Strategy<Value = Change> {
    prop_oneof![
        30 => changes(),
        1 => Just(Change::Hold),
        1 => Just(Change::Release),
        4 => (spans(), 0..=SEGMENTS).prop_map(|((start, end), id)| Change::Search { id, start, end }),
    ]
}

/// A layout, and what it should be.
pub(crate) struct Pair {
    pub(crate) layout: Layout,
    pub(crate) pages: Vec<Page>,
    /// Pages that were changed by [`Change::Insert`], [`Change::Replace`] or [`Change::Remove`].
    pub(crate) touched: Vec<bool>,
    /// Pages that were installed since they show what they show.
    installed: Vec<bool>,
    segments: Vec<Segment>,
    /// Whether there was never a hold.
    joined: bool,
    holds: usize,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            layout: Layout::new(PAGES, seed),
            pages: vec![None; PAGES as usize],
            touched: vec![false; PAGES as usize],
            installed: vec![false; PAGES as usize],
            segments: (0..SEGMENTS).map(Rc::new).collect(),
            joined: true,
            holds: 0,
        }
    }

    /// What lies within the space of these pages.
    fn span(start: u64, end: u64) -> core::ops::Range<usize> {
        let end = end.min(PAGES) as usize;
        (start as usize).min(end)..end
    }

    /// What a change of these pages removes from the model, page by page.
    fn old(&self, start: u64, end: u64) -> Vec<(u64, Page)> {
        Self::span(start, end)
            .filter(|&page| self.pages[page].is_some())
            .map(|page| (page as u64, self.pages[page]))
            .collect()
    }

    /// Makes a change in both. If `frugal`, it brings memory only when the layout needs some.
    pub(crate) fn change(&mut self, change: &Change, frugal: bool) {
        let nodes = match change {
            Change::Insert(_) => INSERT_NODES,
            Change::Replace(_) => Layout::REPLACE_NODES,
            Change::Remove { .. } => Layout::REMOVE_NODES,
            Change::Protect { .. } => Layout::PROTECT_NODES,
            Change::Install { .. } | Change::Search { .. } | Change::Hold | Change::Release => 0,
        };
        if !frugal {
            refill(&mut self.layout, nodes);
        }
        if self.try_change(change) == Err(Error::NoNodes) {
            assert!(frugal, "there was memory for {nodes} nodes");
            self.check();
            refill(&mut self.layout, nodes);
            assert_ne!(self.try_change(change), Err(Error::NoNodes));
        }
    }

    fn try_change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Insert(shown) => {
                let range = self.range(shown);
                let result = insert(&mut self.layout, range);
                let full = !self.old(shown.start, shown.end).is_empty();
                let refused = match Self::is_range(shown) {
                    false => Some(Error::BadRange),
                    true => full.then_some(Error::Exists),
                };
                Self::expect(result, refused)?;
                self.show(shown);
            }
            Change::Replace(shown) => {
                let refused = (!Self::is_range(shown)).then_some(Error::BadRange);
                let range = self.range(shown);
                if refused.is_none() {
                    self.check_room(shown.start, shown.end, |layout, room, each| {
                        layout.replace(range.clone(), true, room, each)
                    });
                }
                let mut removed = Vec::new();
                let room = self.parts(shown.start, shown.end);
                let each = |old| removed.push(old);
                let result = self.layout.replace(range, true, room, each);
                Self::expect(result, refused)?;
                self.check_removed(shown.start, shown.end, &removed);
                self.show(shown);
            }
            Change::Remove { start, end } => {
                self.check_room(*start, *end, |layout, room, each| {
                    layout.remove(pages(*start, *end), room, each)
                });
                let mut removed = Vec::new();
                let room = self.parts(*start, *end);
                let each = |old| removed.push(old);
                let result = self.layout.remove(pages(*start, *end), room, each);
                Self::expect(result, None)?;
                self.check_removed(*start, *end, &removed);
                let span = Self::span(*start, *end);
                self.pages[span.clone()].fill(None);
                self.installed[span.clone()].fill(false);
                self.touched[span].fill(true);
            }
            Change::Install { start, end } => {
                for range in self.layout.ranges(pages(*start, *end)) {
                    let wanted = (range.start..range.end).intersect(&pages(*start, *end));
                    range.installed.add(wanted.clone());
                    let known = wanted.start.as_usize()..wanted.end.as_usize();
                    self.installed[known].fill(true);
                }
            }
            Change::Protect { start, end, prot } => {
                let result = self.layout.protect(pages(*start, *end), *prot);
                Self::expect(result, None)?;
                for page in self.pages[Self::span(*start, *end)].iter_mut().flatten() {
                    page.2 = *prot;
                }
            }
            Change::Search { id, start, end } => self.check_unshown(*id, *start..*end),
            Change::Hold => {
                self.layout.hold_joins();
                self.joined = false;
                self.holds += 1;
            }
            Change::Release => {
                if self.holds > 0 {
                    self.layout.release_joins();
                    self.holds -= 1;
                }
            }
        }
        Ok(())
    }

    fn range(&self, shown: &Shown) -> Range {
        let installed = Installed::new();
        if shown.installed {
            installed.add(pages(shown.start, shown.end));
        }
        Range {
            start: page(shown.start),
            end: page(shown.end),
            segment: self.segments[shown.segment as usize].clone(),
            offset: SegmentPage::new(shown.offset),
            prot: shown.prot,
            installed,
        }
    }

    /// How many ranges the layout has in these pages.
    fn parts(&self, start: u64, end: u64) -> usize {
        self.layout.ranges(pages(start, end)).count()
    }

    /// With room for one range less than it removes, a change is refused.
    fn check_room(
        &mut self,
        start: u64,
        end: u64,
        change: impl FnOnce(&mut Layout, usize, &mut dyn FnMut(Range)) -> Result<(), Error>,
    ) {
        let Some(less) = self.parts(start, end).checked_sub(1) else {
            return;
        };
        let before = listed(&self.layout);
        let mut each = |_| panic!("removed, and refused");
        let result = change(&mut self.layout, less, &mut each);
        assert_eq!(result, Err(Error::NoRoom));
        assert_eq!(listed(&self.layout), before);
    }

    fn is_range(shown: &Shown) -> bool {
        shown.start < shown.end && shown.end <= PAGES
    }

    /// Passes on an error for a lack of nodes, and the expected one; panics for any other.
    fn expect(result: Result<(), Error>, refused: Option<Error>) -> Result<(), Error> {
        match refused {
            None => assert!(matches!(result, Ok(()) | Err(Error::NoNodes)), "{result:?}"),
            Some(refused) => assert_eq!(result, Err(refused)),
        }
        result
    }

    fn show(&mut self, shown: &Shown) {
        for page in shown.start..shown.end {
            let offset = shown.offset + (page - shown.start);
            self.pages[page as usize] = Some((shown.segment, offset, shown.prot));
            self.touched[page as usize] = true;
            self.installed[page as usize] = shown.installed;
        }
    }

    fn check_removed(&self, start: u64, end: u64, removed: &[Range]) {
        self.check_installed(removed.iter());
        let removed: Vec<_> = removed
            .iter()
            .flat_map(|range| {
                numbers(range.start..range.end).map(|number| {
                    let offset = range.offset_of(page(number)).unwrap();
                    (number, Some((*range.segment, offset.get(), range.prot)))
                })
            })
            .collect();
        assert_eq!(removed, self.old(start, end));
    }

    /// Every page that was installed is known, and only pages of the range are.
    fn check_installed<'a>(&self, ranges: impl Iterator<Item = &'a Range>) {
        for range in ranges {
            let known = range.installed.pages();
            for number in numbers(range.start..range.end) {
                let missed = self.installed[number as usize] && !known.contains(&page(number));
                assert!(!missed, "page {number} of {range:?}");
            }
            assert!(known.is_empty() || known.start >= range.start && known.end <= range.end);
        }
    }

    /// Compares the results of all queries.
    pub(crate) fn check(&mut self) {
        self.layout.check(self.joined);
        self.check_pages();
        self.check_runs();
        self.check_installed(self.layout.ranges(all()));
        for id in 0..=SEGMENTS {
            for (start, end) in [(0, u64::MAX), (0, 3), (7, 8), (10, 30), (20, 20), (45, 60)] {
                self.check_showing(id, start..end);
            }
        }
        if find_hole(&mut self.layout, 1, PAGES, FilePage::new(PAGES - 1)).is_none() {
            self.layout.check_bounds_are_exact();
        }
        for pages in [1, 2, 3, 5, 8, 13, PAGES, PAGES + 1] {
            for (align, congruent) in [(1, 0), (2, 5), (4, 0), (8, 3), (PAGES, 20)] {
                self.check_hole(pages, align, congruent);
            }
        }
        for (id, segment) in self.segments.iter().enumerate() {
            let ranges = self.layout.ranges(all());
            let handles = ranges.filter(|range| *range.segment == id as u64).count();
            assert_eq!(Rc::strong_count(segment), 1 + handles, "handles of {id}");
        }
    }

    fn check_pages(&self) {
        for number in 0..PAGES + 3 {
            let shown = self.layout.lookup(page(number)).map(|range| {
                let offset = range.offset_of(page(number)).unwrap();
                (*range.segment, offset.get(), range.prot)
            });
            let expected = self.pages.get(number as usize).copied().flatten();
            assert_eq!(shown, expected, "page {number}");
            let next = self.layout.next(page(number));
            let first = (number..PAGES).find(|&page| self.pages[page as usize].is_some());
            assert_eq!(
                next.map(|range| range.start.get().max(number)),
                first,
                "after {number}"
            );
            for end in number..PAGES {
                let mut shows = (number..end).map(|page| self.pages[page as usize].is_some());
                let span = pages(number, end);
                assert_eq!(
                    self.layout.covered(span.clone()),
                    shows.clone().all(|it| it)
                );
                assert_eq!(self.layout.overlaps(span), shows.any(|it| it));
            }
        }
    }

    /// The ranges are the runs of pages that continue each other, and no shorter.
    fn check_runs(&self) {
        let mut runs = 0;
        let mut expected = None;
        for page in &self.pages {
            if page.is_some() && *page != expected {
                runs += 1;
            }
            expected = page.map(|(id, offset, prot)| (id, offset + 1, prot));
        }
        let count = self.layout.ranges(all()).count();
        assert_eq!(self.layout.len(), count);
        assert!(if self.joined {
            count == runs
        } else {
            count >= runs
        });
    }

    fn check_showing(&self, id: u64, wanted: core::ops::Range<u64>) {
        let mut expected: Vec<_> = (0..PAGES)
            .filter_map(|page| {
                let (segment, offset, prot) = self.pages[page as usize]?;
                (segment == id && wanted.contains(&offset)).then_some((page, offset, prot))
            })
            .collect();
        let pieces: Vec<_> = self
            .layout
            .showing(id, of_segment(wanted.clone()))
            .collect();
        let mut shown: Vec<_> = pieces
            .iter()
            .flat_map(|piece| {
                assert!(piece.start < piece.end);
                let offsets = piece.offset.get()..;
                numbers(piece.start..piece.end)
                    .zip(offsets)
                    .map(|(page, offset)| (page, offset, piece.prot))
            })
            .collect();
        shown.sort_unstable_by_key(|shown| shown.0);
        expected.sort_unstable_by_key(|shown| shown.0);
        assert_eq!(shown, expected, "{id} {wanted:?}");

        let shows = self.pages.iter().flatten().any(|page| page.0 == id);
        assert_eq!(self.layout.shows(id), shows);
    }

    fn check_unshown(&mut self, id: u64, wanted: core::ops::Range<u64>) {
        let wanted = wanted.start..wanted.end.min(wanted.start.saturating_add(4 * PAGES));
        let expected: Vec<_> = {
            let is_shown = |at: &u64| {
                let mut pages = self.pages.iter().flatten();
                pages.any(|(segment, offset, _)| *segment == id && offset == at)
            };
            wanted.clone().filter(|at| !is_shown(at)).collect()
        };
        // One range at a time: it goes on where it was left.
        let (mut found, mut rest) = (Vec::new(), of_segment(wanted));
        loop {
            match self.layout.next_unshown(id, rest.clone(), 1) {
                Ok(None) => break,
                Ok(Some(unshown)) => {
                    assert!(unshown.start < unshown.end);
                    found.extend(unshown.start.get()..unshown.end.get());
                    rest.start = unshown.end;
                }
                Err(next) => {
                    assert!(next > rest.start);
                    rest.start = next;
                }
            }
        }
        assert_eq!(found, expected, "{id}");
    }

    fn check_hole(&mut self, pages: u64, align: u64, congruent: u64) {
        let expected = (0..PAGES).find(|&start| {
            start % align == congruent % align
                && start + pages <= PAGES
                && self.pages[Self::span(start, start + pages)]
                    .iter()
                    .all(Option::is_none)
        });
        let found = find_hole(&mut self.layout, pages, align, FilePage::new(congruent));
        assert_eq!(
            found,
            expected.map(page),
            "{pages} pages, {congruent} mod {align}"
        );
    }
}

proptest! {
    #[test]
    fn any_changes_leave_what_an_array_of_pages_would_show(
        seed: u64,
        frugal: bool,
        changes in prop::collection::vec(changes_and_more(), 1..80),
    ) {
        let mut pair = Pair::new(seed);
        for change in &changes {
            pair.change(change, frugal);
            pair.check();
        }
        // Last, since they add all that waits to the tree.
        for id in 0..=SEGMENTS {
            for (start, end) in [(0, u64::MAX), (0, 3), (7, 8), (10, 30), (20, 20), (45, 60)] {
                pair.check_unshown(id, start..end);
            }
        }
    }
}
