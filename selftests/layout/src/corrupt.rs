// SPDX-License-Identifier: GPL-2.0

//! A corrupt layout: it is reported, and neither panics nor hangs.
//!
//! Arithmetic on pages panics where debug assertions are on, as it is meant to. There a panic counts
//! as a report; that nothing panics is what `cargo test --release` tests.

use crate::{
    host::{all, page, pages, Heap, Segment},
    layout::{self, Client, FilePage, Installed, Prot, Range, SegmentPage, Spare, Store},
};
use std::{array, cell::Cell, convert::Infallible, panic};

thread_local! {
    static REPORTS: Cell<usize> = const { Cell::new(0) };
}

/// As [`Heap`], but it counts the reports.
struct Counting;

impl Client for Counting {
    type Segment = Segment;

    fn corrupt(_: &'static str) {
        REPORTS.set(REPORTS.get() + 1);
    }
}

impl Store for Counting {
    type Chunk = Box<layout::Chunk<Counting>>;
    type Directory = Vec<Self::Chunk>;
    type Error = Infallible;

    fn chunk() -> Result<Self::Chunk, Infallible> {
        Ok(Box::new(array::from_fn(|_| layout::Node::vacant())))
    }

    fn directory(slots: usize) -> Result<Self::Directory, Infallible> {
        Ok(Vec::with_capacity(slots))
    }

    fn slots(directory: &Self::Directory) -> usize {
        directory.capacity()
    }

    fn push(directory: &mut Self::Directory, chunk: Self::Chunk) {
        directory.push(chunk);
    }

    fn pop(directory: &mut Self::Directory) -> Option<Self::Chunk> {
        directory.pop()
    }
}

const RANGES: u64 = 24;

fn range(start: u64, end: u64, segment: &Segment) -> Range<Segment> {
    Range {
        start: page(start),
        end: page(end),
        segment: segment.clone(),
        offset: SegmentPage::new(start),
        prot: Prot::READ,
        installed: Installed::new(),
    }
}

/// Ranges of two pages with a hole of a page behind each, in the nodes 0 and up.
fn built(segment: &Segment, seed: u64) -> layout::Layout<Counting> {
    let mut layout = layout::Layout::new(3 * RANGES, seed);
    let Ok(mut spare) = Spare::new(layout.need(2 * RANGES as usize));
    layout.refill(&mut spare);
    for number in 0..RANGES {
        let number = number * 7 % RANGES;
        let range = range(3 * number, 3 * number + 2, segment);
        layout.replace(range, false, 0, drop).unwrap();
    }
    layout
}

/// All queries. What they return does not matter.
fn query(layout: &mut layout::Layout<Counting>) {
    for number in 0..3 * RANGES {
        layout.lookup(page(number));
        layout.next(page(number));
        layout.ranges(pages(number, 3 * RANGES)).count();
    }
    layout.covered(all());
    layout.find_hole(2, 1, FilePage::FIRST);
    layout.find_hole(1, 1, FilePage::FIRST);
    let wanted = || SegmentPage::FIRST..SegmentPage::END;
    layout.showing(1, wanted()).count();
    let mut after = None;
    while let Some(piece) = layout.next_showing(1, wanted(), after) {
        after = Some(piece.cursor);
    }
}

/// A change of each kind at the range `number`. What it returns does not matter.
fn change(layout: &mut layout::Layout<Counting>, segment: &Segment, kind: u64, number: u64) {
    let start = 3 * number;
    let _ = match kind {
        0 => layout.protect(pages(start + 1, start + 4), Prot::NONE),
        1 => layout.remove(pages(start, start + 1), 9, drop),
        2 => layout.remove(pages(start, start + 2), 9, drop),
        3 => layout.remove(pages(start + 1, start + 7), 9, drop),
        4 => layout.replace(range(start + 2, start + 3, segment), false, 9, drop),
        5 => layout.replace(range(start, start + 2, segment), true, 9, drop),
        6 => layout.replace(range(start + 1, start + 5, segment), true, 9, drop),
        _ => layout.remove(all(), usize::MAX, drop),
    };
}

/// The kinds of [`change()`].
const CHANGES: u64 = 8;

#[test]
fn the_two_stores_do_the_same() {
    assert_eq!(
        size_of::<layout::Node<Counting>>(),
        size_of::<layout::Node<Heap>>()
    );
}

#[test]
fn a_sound_layout_is_not_reported() {
    let segment = Segment::new(1);
    let mut layout = built(&segment, 1);
    for number in 0..RANGES {
        for kind in 0..CHANGES {
            query(&mut layout);
            change(&mut layout, &segment, kind, number);
        }
    }
    assert_eq!(REPORTS.get(), 0);
    layout.check(true);
}

#[test]
fn a_broken_node_is_reported_and_ends_all_walks() {
    for part in 0..layout::PARTS {
        let mut reported = 0;
        for index in 0..RANGES as u32 {
            let segment = Segment::new(1);
            REPORTS.set(0);
            for (kind, number) in (0..CHANGES).flat_map(|kind| (0..RANGES).map(move |n| (kind, n)))
            {
                let used = panic::catch_unwind(|| {
                    let mut layout = built(&segment, number);
                    layout.break_node(index, part);
                    query(&mut layout);
                    change(&mut layout, &segment, kind, number);
                    query(&mut layout);
                });
                assert!(used.is_ok() || cfg!(debug_assertions));
                REPORTS.set(REPORTS.get() + usize::from(used.is_err()));
            }
            reported += u64::from(REPORTS.get() > 0);
            assert_eq!(std::rc::Rc::strong_count(&segment), 1);
        }
        assert_eq!(reported, RANGES, "part {part}");
    }
}
