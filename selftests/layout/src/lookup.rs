// SPDX-License-Identifier: GPL-2.0

//! What is found in a layout: what a page of the space shows, where a page of a segment is shown, and
//! holes. One test for each promise, named after it.

use crate::{
    host::{
        clear, find_hole, insert, of_segment, page, pages, range, removed, shown, space, Layout,
        Segment,
    },
    layout::{FilePage, SegmentPage, Unfinished},
};

#[test]
fn a_new_space_shows_nothing() {
    let mut layout = Layout::new(10, 1);
    assert_eq!(layout.len(), 0);
    assert!(layout.is_empty());
    assert!(layout.lookup(page(0)).is_none() && layout.next(page(0)).is_none());
    assert!(!layout.overlaps(pages(0, 10)) && !layout.shows(0));
    assert_eq!(
        find_hole(&mut layout, 10, 1, FilePage::new(0)),
        Some(page(0))
    );
    assert_eq!(find_hole(&mut layout, 11, 1, FilePage::new(0)), None);
    assert_eq!(layout.showing(0, of_segment(0..u64::MAX)).count(), 0);
}

#[test]
fn a_range_is_found_from_its_first_page_to_its_last() {
    let segment = Segment::new(7);
    let mut layout = space(100, 1);
    insert(&mut layout, range(10, 20, &segment, 5)).unwrap();
    assert!(layout.lookup(page(9)).is_none() && layout.lookup(page(20)).is_none());
    assert_eq!(
        layout
            .lookup(page(10))
            .unwrap()
            .offset_of(page(10))
            .map(SegmentPage::get),
        Some(5)
    );
    assert_eq!(
        layout
            .lookup(page(19))
            .unwrap()
            .offset_of(page(19))
            .map(SegmentPage::get),
        Some(14)
    );
    assert_eq!(
        layout
            .lookup(page(10))
            .unwrap()
            .offset_of(page(20))
            .map(SegmentPage::get),
        None
    );
    assert_eq!(
        layout
            .lookup(page(10))
            .unwrap()
            .offset_of(page(9))
            .map(SegmentPage::get),
        None
    );
    assert_eq!(layout.next(page(0)).unwrap().start, page(10));
    assert_eq!(layout.next(page(19)).unwrap().start, page(10));
    assert!(layout.next(page(20)).is_none());
}

#[test]
fn the_last_pages_of_space_and_segment_can_be_shown() {
    let segment = Segment::new(u64::MAX);
    let mut layout = space(u64::MAX, 10);
    let last = u64::MAX - 1;
    insert(&mut layout, range(last, u64::MAX, &segment, last)).unwrap();
    assert_eq!(
        layout
            .lookup(page(last))
            .unwrap()
            .offset_of(page(last))
            .map(SegmentPage::get),
        Some(last)
    );
    assert!(layout.lookup(page(u64::MAX)).is_none() && layout.next(page(u64::MAX)).is_none());
    assert_eq!(
        shown(&layout, u64::MAX, 0..u64::MAX),
        [(last, u64::MAX, last)]
    );
    let first = layout
        .next_showing(u64::MAX, of_segment(0..u64::MAX), None)
        .unwrap();
    let after = layout.next_showing(u64::MAX, of_segment(0..u64::MAX), Some(first.cursor));
    assert_eq!(after, None);
    assert_eq!(
        find_hole(&mut layout, 1, u64::MAX, FilePage::new(last)),
        None
    );
    assert_eq!(
        find_hole(&mut layout, last, 1, FilePage::new(0)),
        Some(page(0))
    );
    assert_eq!(find_hole(&mut layout, u64::MAX, 1, FilePage::new(0)), None);
    assert_eq!(removed(&mut layout, 0, u64::MAX), [(last, u64::MAX, last)]);
}

#[test]
fn covered_means_no_hole_and_overlaps_means_not_all_hole() {
    let segment = Segment::new(1);
    let mut layout = space(100, 3);
    insert(&mut layout, range(10, 20, &segment, 0)).unwrap();
    insert(&mut layout, range(20, 30, &segment, 0)).unwrap();
    insert(&mut layout, range(31, 40, &segment, 0)).unwrap();
    assert!(
        layout.covered(pages(10, 30))
            && layout.covered(pages(15, 25))
            && layout.covered(pages(39, 40))
    );
    assert!(
        !layout.covered(pages(9, 12))
            && !layout.covered(pages(25, 32))
            && !layout.covered(pages(39, 41))
    );
    assert!(
        layout.overlaps(pages(0, 11))
            && layout.overlaps(pages(29, 31))
            && layout.overlaps(pages(0, 100))
    );
    assert!(
        !layout.overlaps(pages(0, 10))
            && !layout.overlaps(pages(30, 31))
            && !layout.overlaps(pages(12, 12))
    );
}

#[test]
fn a_hole_is_the_lowest_that_is_congruent() {
    let segment = Segment::new(1);
    let mut layout = space(10_000, 10);
    insert(&mut layout, range(0, 100, &segment, 0)).unwrap();
    insert(&mut layout, range(600, 1000, &segment, 0)).unwrap();
    insert(&mut layout, range(1030, 1600, &segment, 0)).unwrap();
    assert_eq!(
        find_hole(&mut layout, 500, 1, FilePage::new(0)),
        Some(page(100))
    );
    assert_eq!(
        find_hole(&mut layout, 501, 1, FilePage::new(0)),
        Some(page(1600))
    );
    assert_eq!(
        find_hole(&mut layout, 6, 512, FilePage::new(0)),
        Some(page(512))
    );
    assert_eq!(
        find_hole(&mut layout, 6, 512, FilePage::new(512 * 9 + 3)),
        Some(page(515))
    );
    // Long enough, but nowhere congruent before the next.
    assert_eq!(
        find_hole(&mut layout, 100, 512, FilePage::new(0)),
        Some(page(2048))
    );
    assert_eq!(
        find_hole(&mut layout, 6, 0, FilePage::new(3)),
        Some(page(100))
    );
    assert_eq!(find_hole(&mut layout, 0, 1, FilePage::new(0)), None);
    assert_eq!(
        find_hole(&mut layout, 8400, 1, FilePage::new(0)),
        Some(page(1600))
    );
    assert_eq!(find_hole(&mut layout, 8401, 1, FilePage::new(0)), None);
}

#[test]
fn a_segment_page_is_found_wherever_it_is_shown() {
    let (one, two, three) = (Segment::new(1), Segment::new(2), Segment::new(3));
    let mut layout = space(100, 10);
    insert(&mut layout, range(60, 70, &two, 5)).unwrap();
    insert(&mut layout, range(0, 20, &two, 0)).unwrap();
    insert(&mut layout, range(20, 30, &one, 0)).unwrap();
    insert(&mut layout, range(30, 40, &three, 0)).unwrap();
    insert(&mut layout, range(40, 42, &two, 0)).unwrap();
    layout.check(true);
    assert_eq!(shown(&layout, 2, 8..12), [(8, 12, 8), (63, 67, 8)]);
    assert_eq!(shown(&layout, 2, 0..1), [(0, 1, 0), (40, 41, 0)]);
    assert_eq!(shown(&layout, 2, 19..1000), [(19, 20, 19)]);
    assert_eq!(shown(&layout, 2, 20..1000), []);
    assert_eq!(shown(&layout, 2, 5..5), []);
    assert_eq!(shown(&layout, 4, 0..u64::MAX), []);
    assert!(layout.shows(1) && layout.shows(2) && layout.shows(3) && !layout.shows(0));
    removed(&mut layout, 20, 30);
    assert!(!layout.shows(1) && layout.shows(2));
}

#[test]
fn among_many_holes_that_do_not_fit_one_is_found_that_does() {
    let segment = Segment::new(1);
    let mut layout = space(100_000, 6000);
    // Holes of nine pages, none of which has a multiple of 512 and room for eight behind it.
    for page in 0..5_000 {
        let start = 10 * page;
        insert(&mut layout, range(start, start + 1, &segment, 3 * page)).unwrap();
    }
    let found = find_hole(&mut layout, 9, 512, FilePage::new(0)).unwrap();
    assert_eq!(found.get() % 512, 0);
    assert!(!layout.overlaps(pages(found.get(), found.get() + 9)));
}

#[test]
fn a_search_for_a_hole_makes_up_for_what_changes_have_left_wrong() {
    let segment = Segment::new(1);
    let mut layout = space(10_000, 1000);
    for page in 0..900 {
        insert(&mut layout, range(11 * page, 11 * page + 1, &segment, 0)).unwrap();
    }
    // Long holes are filled, but for a page.
    for page in 0..899 {
        insert(
            &mut layout,
            range(11 * page + 1, 11 * page + 10, &segment, 50),
        )
        .unwrap_or(());
    }
    layout.check(true);
    let first = FilePage::new(0);
    assert_eq!(layout.find_hole(3, 1, first, 3), Err(Unfinished));
    let found = find_hole(&mut layout, 3, 1, first);
    assert!(found.is_some());
    // And it does so once.
    assert_eq!(layout.find_hole(3, 1, first, 0), Ok(found));
    clear(&mut layout, 0, 500).unwrap();
    layout.check(true);
    assert_eq!(
        find_hole(&mut layout, 500, 1, FilePage::new(0)),
        Some(page(0))
    );
}
