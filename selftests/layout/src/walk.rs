// SPDX-License-Identifier: GPL-2.0

//! A walk over what shows a segment, while the layout changes.

use crate::{
    host::{clear, insert, numbers, of_segment, range, space, Segment},
    model::{changes, segments, Change, Pair},
};
use proptest::prelude::*;

#[test]
fn a_walk_misses_no_range_that_joins_one_it_has_passed() {
    let segment = Segment::new(1);
    let mut layout = space(100, 10);
    insert(&mut layout, range(0, 10, &segment, 0)).unwrap();
    insert(&mut layout, range(50, 60, &segment, 5)).unwrap();
    insert(&mut layout, range(20, 30, &segment, 20)).unwrap();
    layout.hold_joins();
    let first = layout.next_showing(1, of_segment(0..100), None).unwrap();
    let second = layout
        .next_showing(1, of_segment(0..100), Some(first.cursor))
        .unwrap();
    assert_eq!((first.start.get(), second.start.get()), (0, 50));
    insert(&mut layout, range(10, 20, &segment, 10)).unwrap();
    let third = layout
        .next_showing(1, of_segment(0..100), Some(second.cursor))
        .unwrap();
    let fourth = layout
        .next_showing(1, of_segment(0..100), Some(third.cursor))
        .unwrap();
    assert_eq!((third.start.get(), fourth.start.get()), (10, 20));
    assert_eq!(
        layout.next_showing(1, of_segment(0..100), Some(fourth.cursor)),
        None
    );
    layout.release_joins();
}

#[test]
fn a_walk_goes_on_when_the_range_it_was_at_is_gone() {
    let segment = Segment::new(1);
    let mut layout = space(100, 10);
    for page in [10, 20, 30] {
        insert(&mut layout, range(page, page + 1, &segment, page)).unwrap();
    }
    let first = layout.next_showing(1, of_segment(0..100), None).unwrap();
    clear(&mut layout, 0, 25).unwrap();
    let second = layout
        .next_showing(1, of_segment(0..100), Some(first.cursor))
        .unwrap();
    assert_eq!(second.start.get(), 30);
    assert_eq!(
        layout.next_showing(1, of_segment(0..100), Some(second.cursor)),
        None
    );
}

/// More than usual: a walk is short, and what could go wrong with it takes a coincidence.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: 10 * usual.cases,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_walk_finds_all_that_shows_the_pages_from_its_start_to_its_end(
        seed: u64,
        before in prop::collection::vec(changes(), 1..40),
        during in prop::collection::vec(prop::collection::vec(changes(), 0..4), 1..10),
        id in segments(),
        start in 0..40_u64,
        pages in 1..30_u64,
    ) {
        let mut pair = Pair::new(seed);
        for change in &before {
            pair.change(change, true);
        }
        let wanted = start..start + pages;
        pair.change(&Change::Hold, true);
        pair.touched.fill(false);
        let at_start = pair.pages.clone();

        let mut found = vec![false; pair.pages.len()];
        let mut after = None;
        let mut during = during.iter();
        while let Some(piece) = pair.layout.next_showing(id, of_segment(wanted.clone()), after) {
            let shown = numbers(piece.start..piece.end);
            found[shown.start as usize..shown.end as usize].fill(true);
            after = Some(piece.cursor);
            for change in during.next().into_iter().flatten() {
                pair.change(change, true);
            }
        }
        pair.change(&Change::Release, true);

        for (page, shown) in at_start.iter().enumerate() {
            if let Some((segment, offset, _)) = shown {
                if *segment == id && wanted.contains(offset) && !pair.touched[page] {
                    prop_assert!(found[page], "page {page} was not found");
                }
            }
        }
        pair.check();
    }
}
