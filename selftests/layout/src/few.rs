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
fn those_are_covered_whose_pages_are_all_there() {
    let outer = few(&[(0, 10), (20, 30)]);
    for inner in [
        &[][..],
        &[(0, 10)],
        &[(3, 4), (29, 30)],
        &[(20, 30), (0, 10)],
    ] {
        assert!(outer.covers(&few(inner)), "{inner:?}");
    }
    for inner in [&[(0, 11)][..], &[(15, 16)], &[(3, 4), (19, 21)], &[(0, 30)]] {
        assert!(!outer.covers(&few(inner)), "{inner:?}");
    }
    assert!(!few(&[]).covers(&few(&[(1, 2)])));
}

#[test]
fn what_is_removed_is_gone_and_nothing_else_is() {
    for (start, end) in [
        (0, 10),
        (2, 8),
        (0, 5),
        (5, 10),
        (20, 30),
        (0, 100),
        (9, 21),
    ] {
        let mut few = few(&[(0, 10), (20, 30)]);
        few.remove(&pages(start, end));
        for page in 0..40 {
            let was = page < 10 || (20..30).contains(&page);
            let removed = (start..end).contains(&page);
            let is = few.overlaps(&pages(page, page + 1));
            assert_eq!(is, was && !removed, "{page} of {start}..{end}");
        }
    }
}

#[test]
fn what_cannot_be_cut_stays_in_the_middle() {
    let mut four = few(&[(0, 10), (20, 30), (40, 50), (60, 70)]);
    four.remove(&pages(22, 24));
    assert!(four.overlaps(&pages(22, 24)));
    four.remove(&pages(20, 24));
    assert!(!four.overlaps(&pages(20, 24)));
    assert!(four.overlaps(&pages(24, 30)));
}

#[test]
fn among_pages_are_those_that_were_added() {
    let two = few(&[(10, 20), (40, 50)]);
    assert_eq!(two.among(&pages(0, 100)), pages(10, 50));
    assert_eq!(two.among(&pages(15, 30)), pages(15, 20));
    assert!(two.among(&pages(20, 40)).is_empty());
    let ranges: Vec<_> = two.iter().cloned().collect();
    assert_eq!(ranges, [pages(10, 20), pages(40, 50)]);
}

#[test]
fn exact_is_what_was_not_extended() {
    assert!(few(&[(0, 1), (100, 101), (200, 201), (300, 301), (301, 302)]).is_exact());
    assert!(!few(&[(0, 1), (100, 101), (200, 201), (300, 301), (310, 311)]).is_exact());
}

#[test]
fn a_range_too_many_extends_the_nearest() {
    let five = few(&[(0, 1), (100, 101), (200, 201), (300, 301), (310, 311)]);
    assert!(five.overlaps(&pages(305, 306)));
    assert!(!five.overlaps(&pages(1, 100)));
    assert!(!five.overlaps(&pages(201, 300)));
}
