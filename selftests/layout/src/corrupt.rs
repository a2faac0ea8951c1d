// SPDX-License-Identifier: GPL-2.0

//! A corrupt layout: it is reported, and neither panics nor hangs.
//!
//! Arithmetic on pages panics where debug assertions are on, as it is meant to. There a panic counts
//! as a report; that nothing panics is what `cargo test --release` tests.

use crate::{
    host::{all, page, pages, refill, Layout, Range, Segment, REPORTS},
    layout::{self, FilePage, Prot, SegmentPage},
};
use std::panic;

const RANGES: u64 = 24;

/// Pages that show those of the segment with the same numbers.
fn range(start: u64, end: u64, segment: &Segment) -> Range {
    crate::host::range(start, end, segment, start)
}

/// Ranges of two pages with a hole of a page behind each, in the nodes 0 and up. None waits to be
/// added to the tree by segment page if there was a walk, else the newest do.
fn built(segment: &Segment, seed: u64, walk: bool) -> Layout {
    let mut layout = Layout::new(3 * RANGES, seed);
    refill(&mut layout, 2 * RANGES as usize);
    for number in 0..RANGES {
        let number = number * 7 % RANGES;
        let range = range(3 * number, 3 * number + 2, segment);
        layout.replace(range, false, 0, drop).unwrap();
    }
    if walk {
        layout.hold_joins();
        layout.release_joins();
    }
    layout
}

/// All queries. What they return does not matter.
fn query(layout: &mut Layout, id: u64) {
    for number in 0..3 * RANGES {
        layout.lookup(page(number));
        layout.next(page(number));
        layout.ranges(pages(number, 3 * RANGES)).count();
    }
    layout.covered(all());
    let _ = layout.find_hole(2, 1, FilePage::FIRST, usize::MAX);
    let _ = layout.find_hole(1, 1, FilePage::FIRST, usize::MAX);
    let wanted = || SegmentPage::FIRST..SegmentPage::END;
    layout.showing(id, wanted()).count();
    let mut after = None;
    while let Some(piece) = layout.next_showing(id, wanted(), after) {
        after = Some(piece.cursor);
    }
}

/// A change of each kind at the range `number`. What it returns does not matter.
fn change(layout: &mut Layout, segment: &Segment, kind: u64, number: u64) {
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
fn a_sound_layout_is_not_reported() {
    REPORTS.set(Some(0));
    let segment = Segment::new(1);
    let mut layout = built(&segment, 1, false);
    for number in 0..RANGES {
        for kind in 0..CHANGES {
            query(&mut layout, *segment);
            change(&mut layout, &segment, kind, number);
        }
    }
    assert_eq!(REPORTS.get(), Some(0));
    layout.check(true);
}

#[test]
fn a_broken_node_is_reported_and_ends_all_walks() {
    let parts = (0..layout::PARTS).flat_map(|part| [(part, false), (part, true)]);
    // A node that has lost its range still has the segment's id, which may be 0.
    for (id, (part, walk)) in parts.flat_map(|part| [(0, part), (1, part)]) {
        let mut reported = 0;
        for index in 0..RANGES as u32 {
            let segment = Segment::new(id);
            REPORTS.set(Some(0));
            let mut panics = 0;
            for (kind, number) in (0..CHANGES).flat_map(|kind| (0..RANGES).map(move |n| (kind, n)))
            {
                let used = panic::catch_unwind(|| {
                    let mut layout = built(&segment, number, walk);
                    layout.break_node(index, part);
                    query(&mut layout, *segment);
                    change(&mut layout, &segment, kind, number);
                    query(&mut layout, *segment);
                });
                assert!(used.is_ok() || cfg!(debug_assertions));
                panics += usize::from(used.is_err());
            }
            reported += u64::from(REPORTS.get() != Some(0) || panics > 0);
            assert_eq!(std::rc::Rc::strong_count(&segment), 1);
        }
        // What waits has no use for all links.
        assert!(reported == RANGES || !walk && reported > 0, "part {part}");
    }
}
