// SPDX-License-Identifier: GPL-2.0

//! What a few ranges promise: to have what was added, and to tell a few apart.

use crate::{
    host::pages,
    layout::FewRanges, //
};

fn few(ranges: &[(u64, u64)]) -> FewRanges {
    let mut few = FewRanges::none();
    for &(start, end) in ranges {
        few.add(&pages(start, end));
    }
    few
}

#[test]
fn of_nothing_overlap_nothing() {
    let none = few(&[(5, 5)]);
    assert!(none.is_empty());
    assert!(!none.overlaps(&pages(0, 1000)));
    assert!(!few(&[(5, 6)]).is_empty());
}

#[test]
fn the_first_and_the_last_page_leave_alone_what_is_between() {
    let ends = few(&[(0, 1), (999, 1000)]);
    assert!(ends.overlaps(&pages(0, 1)));
    assert!(ends.overlaps(&pages(999, 1000)));
    assert!(!ends.overlaps(&pages(1, 999)));
    assert!(!ends.overlaps(&pages(1000, 1001)));
}

#[test]
fn however_many_are_added_all_of_them_are_there() {
    for step in [1, 2, 10, 97] {
        let ranges: Vec<_> = (0..50)
            .map(|n| (n * step * 7 % 1000, n * step * 7 % 1000 + 1 + n % 3))
            .collect();
        let few = few(&ranges);
        for &(start, end) in &ranges {
            for page in start..end {
                assert!(few.overlaps(&pages(page, page + 1)), "{page} of {ranges:?}");
            }
        }
    }
}

#[test]
fn a_range_too_many_extends_the_nearest() {
    let five = few(&[(0, 1), (100, 101), (200, 201), (300, 301), (310, 311)]);
    assert!(five.overlaps(&pages(305, 306)));
    assert!(!five.overlaps(&pages(1, 100)));
    assert!(!five.overlaps(&pages(201, 300)));
}
