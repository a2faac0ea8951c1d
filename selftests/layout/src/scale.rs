// SPDX-License-Identifier: GPL-2.0

//! A million ranges. The tests print the time and set no limit for it; but they would not end if an
//! operation visited all ranges.

use crate::{
    host::{
        all, clear, find_hole, insert, of_segment, page, range, refill, space, Layout, Range,
        Segment,
    },
    layout::FilePage,
};
use std::{hint::black_box, time::Instant};

const RANGES: u64 = 1_000_000;

/// How often something is done to measure it, where it need not be done to all ranges.
const OPERATIONS: u64 = RANGES / 5;

/// The numbers `0..RANGES` in an order that jumps about.
fn scattered() -> impl Iterator<Item = u64> {
    (0..RANGES).map(|step| step * 611_953 % RANGES)
}

/// The first [`OPERATIONS`] of [`scattered()`].
fn some() -> impl Iterator<Item = u64> {
    scattered().take(OPERATIONS as usize)
}

fn timed<T>(what: &str, operations: u64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let each = start.elapsed().as_nanos() / u128::from(operations);
    println!("{what:44} {each:7} ns each");
    result
}

/// Pages that show the same pages of the segment.
fn same(start: u64, end: u64, segment: &Segment) -> Range {
    range(start, end, segment, start)
}

/// The range number `number`: one page, with a hole of one page behind it.
fn one(number: u64, segment: &Segment) -> Range {
    same(2 * number, 2 * number + 1, segment)
}

#[test]
fn a_million_ranges_are_inserted_found_and_removed() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(2 * RANGES, 0x5eed);
    timed("memory for a million", RANGES, || {
        refill(&mut layout, RANGES as usize)
    });
    timed("insert, scattered", RANGES, || {
        for number in scattered() {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    assert_eq!(layout.len() as u64, RANGES);
    layout.check(true);

    timed("lookup, scattered", OPERATIONS, || {
        for number in some() {
            assert!(black_box(layout.lookup(page(2 * number))).is_some());
        }
    });
    timed("lookup, in order", OPERATIONS, || {
        for number in 0..OPERATIONS {
            assert!(black_box(layout.lookup(page(2 * number))).is_some());
        }
    });
    timed("pieces that show a page, scattered", OPERATIONS, || {
        for number in some() {
            let mut pieces = layout.showing(1, of_segment(2 * number..2 * number + 1));
            assert_eq!(
                pieces.next().map(|piece| piece.start),
                Some(page(2 * number))
            );
        }
    });
    timed("all that show the segment, in one walk", RANGES, || {
        assert_eq!(
            layout.showing(1, of_segment(0..u64::MAX)).count() as u64,
            RANGES
        );
    });
    timed("search for a hole that is not there", OPERATIONS, || {
        for _ in 0..OPERATIONS {
            assert_eq!(
                find_hole(&mut layout, black_box(2), 1, FilePage::FIRST),
                None
            );
        }
    });
    timed("remove and insert, scattered", OPERATIONS, || {
        for number in some() {
            clear(&mut layout, 2 * number, 2 * number + 1).unwrap();
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    timed("replace in place, scattered", OPERATIONS, || {
        for number in some() {
            layout
                .replace(one(number, &segment), true, usize::MAX, drop)
                .unwrap();
        }
    });
    layout.check(true);
    let mut removed = 0;
    timed("remove all in one call", RANGES, || {
        layout.remove(all(), usize::MAX, |_| removed += 1).unwrap();
    });
    assert_eq!(removed, RANGES);
    assert!(layout.is_empty());
    layout.check(true);
}

#[test]
fn a_million_holes_filled_leave_one_range() {
    let segment = Segment::new(1);
    let mut layout = space(2 * RANGES, RANGES as usize);
    timed("insert, in order", RANGES, || {
        for number in 0..RANGES {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    timed("fill a hole and join both sides, scattered", RANGES, || {
        for number in scattered() {
            let start = 2 * number + 1;
            insert(&mut layout, same(start, start + 1, &segment)).unwrap();
        }
    });
    layout.check(true);
    assert_eq!(layout.len(), 1);
}

#[test]
fn a_million_pages_of_one_buffer_are_one_range() {
    let segment = Segment::new(1);
    let mut layout = space(RANGES, 1);
    timed("insert that continues the last", RANGES, || {
        for start in 0..RANGES {
            insert(&mut layout, same(start, start + 1, &segment)).unwrap();
        }
    });
    assert_eq!(layout.len(), 1);
}

#[test]
fn a_change_costs_little_more_with_a_million_ranges_than_with_ten() {
    for present in [10, 1000, RANGES] {
        let segment = Segment::new(1);
        let mut layout = space(2 * RANGES, present as usize + 1);
        for number in 0..present {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
        timed(
            &format!("map and unmap, {present} present"),
            OPERATIONS,
            || {
                for number in some() {
                    // No neighbour is continued.
                    let start = 2 * (number % present) + 1;
                    insert(&mut layout, range(start, start + 1, &segment, 0)).unwrap();
                    clear(&mut layout, start, start + 1).unwrap();
                }
            },
        );
        layout.check(true);
    }
}
