// SPDX-License-Identifier: GPL-2.0

//! A million ranges. What grows with their number, and how much, is asserted in looks at nodes,
//! which repeat; the tests print the time as well, and set no limit for it.

use crate::{
    host::{
        all, clear, find_hole, insert, looks, of_segment, page, range, refill, space, Layout,
        Range, Segment,
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

/// Does so many operations, which must not look at nodes more than `most` times each.
fn bounded(what: &str, operations: u64, most: f64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    let looks = looks(work) as f64 / operations as f64;
    let each = start.elapsed().as_nanos() / u128::from(operations);
    println!("{what:44} {each:7} ns, {looks:6.1} looks each");
    assert!(looks <= most, "{what}: {looks} looks each, at most {most}");
    looks
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
    bounded("memory for a million", RANGES, 0.0, || {
        refill(&mut layout, RANGES as usize)
    });
    bounded("insert, scattered", RANGES, 100.0, || {
        for number in scattered() {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    assert_eq!(layout.len() as u64, RANGES);
    layout.check(true);

    bounded("lookup, scattered", OPERATIONS, 40.0, || {
        for number in some() {
            assert!(black_box(layout.lookup(page(2 * number))).is_some());
        }
    });
    bounded("lookup, in order", OPERATIONS, 40.0, || {
        for number in 0..OPERATIONS {
            assert!(black_box(layout.lookup(page(2 * number))).is_some());
        }
    });
    bounded(
        "pieces that show a page, scattered",
        OPERATIONS,
        170.0,
        || {
            for number in some() {
                let mut pieces = layout.showing(1, of_segment(2 * number..2 * number + 1));
                assert_eq!(
                    pieces.next().map(|piece| piece.start),
                    Some(page(2 * number))
                );
            }
        },
    );
    bounded(
        "all that show the segment, in one walk",
        RANGES,
        60.0,
        || {
            assert_eq!(
                layout.showing(1, of_segment(0..u64::MAX)).count() as u64,
                RANGES
            );
        },
    );
    bounded(
        "search for a hole that is not there",
        OPERATIONS,
        320.0,
        || {
            for _ in 0..OPERATIONS {
                assert_eq!(
                    find_hole(&mut layout, black_box(2), 1, FilePage::FIRST),
                    None
                );
            }
        },
    );
    bounded("remove and insert, scattered", OPERATIONS, 140.0, || {
        for number in some() {
            clear(&mut layout, 2 * number, 2 * number + 1).unwrap();
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    bounded("replace in place, scattered", OPERATIONS, 125.0, || {
        for number in some() {
            layout
                .replace(one(number, &segment), true, usize::MAX, drop)
                .unwrap();
        }
    });
    layout.check(true);
    let mut removed = 0;
    bounded("remove all in one call", RANGES, 20.0, || {
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
    bounded("insert, in order", RANGES, 55.0, || {
        for number in 0..RANGES {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
    });
    bounded(
        "fill a hole and join both sides, scattered",
        RANGES,
        85.0,
        || {
            for number in scattered() {
                let start = 2 * number + 1;
                insert(&mut layout, same(start, start + 1, &segment)).unwrap();
            }
        },
    );
    layout.check(true);
    assert_eq!(layout.len(), 1);
}

#[test]
fn a_million_pages_of_one_buffer_are_one_range() {
    let segment = Segment::new(1);
    let mut layout = space(RANGES, 1);
    bounded("insert that continues the last", RANGES, 8.0, || {
        for start in 0..RANGES {
            insert(&mut layout, same(start, start + 1, &segment)).unwrap();
        }
    });
    assert_eq!(layout.len(), 1);
}

#[test]
fn a_change_costs_little_more_with_a_million_ranges_than_with_ten() {
    let mut with_ten = None;
    for present in [10, 1000, RANGES] {
        let segment = Segment::new(1);
        let mut layout = space(2 * RANGES, present as usize + 1);
        for number in 0..present {
            insert(&mut layout, one(number, &segment)).unwrap();
        }
        let looks = bounded(
            &format!("map and unmap, {present} present"),
            OPERATIONS,
            // A tree of 100,000 times as many nodes is six times as high; but a change does not
            // only go down the tree, and goes down that by segment now and then.
            with_ten.map_or(45.0, |ten| 3.0 * ten),
            || {
                for number in some() {
                    // No neighbour is continued.
                    let start = 2 * (number % present) + 1;
                    insert(&mut layout, range(start, start + 1, &segment, 0)).unwrap();
                    clear(&mut layout, start, start + 1).unwrap();
                }
            },
        );
        with_ten.get_or_insert(looks);
        layout.check(true);
    }
}
