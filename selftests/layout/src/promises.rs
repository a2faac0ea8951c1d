// SPDX-License-Identifier: GPL-2.0

//! What a layout promises, one test for each, named after it.

use crate::{
    host::{
        all, clear, find_hole, insert, listed, of_segment, page, pages, range, space, Layout,
        Range, Segment,
    },
    layout::{Error, FilePage, Prot, SegmentPage, Unfinished},
};

/// What [`Layout::remove()`] removes.
fn removed(layout: &mut Layout, start: u64, end: u64) -> Vec<(u64, u64, u64)> {
    let mut all = Vec::new();
    let each = |old: Range| all.push((old.start.get(), old.end.get(), old.offset.get()));
    layout.remove(pages(start, end), usize::MAX, each).unwrap();
    layout.check(true);
    all
}

/// Where the pieces are that show these pages.
fn shown(layout: &Layout, id: u64, wanted: core::ops::Range<u64>) -> Vec<(u64, u64, u64)> {
    layout
        .showing(id, of_segment(wanted))
        .map(|piece| (piece.start.get(), piece.end.get(), piece.offset.get()))
        .collect()
}

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
fn remove_in_the_middle_leaves_both_ends_with_their_offsets() {
    let segment = Segment::new(1);
    let mut layout = space(100, 2);
    insert(&mut layout, range(10, 20, &segment, 5)).unwrap();
    assert_eq!(removed(&mut layout, 13, 15), [(13, 15, 8)]);
    assert_eq!(listed(&layout), [(10, 13, 1, 5), (15, 20, 1, 10)]);
}

#[test]
fn remove_cuts_what_reaches_beyond_and_takes_what_lies_within() {
    let segment = Segment::new(1);
    let mut layout = space(100, 3);
    insert(&mut layout, range(0, 10, &segment, 100)).unwrap();
    insert(&mut layout, range(20, 30, &segment, 200)).unwrap();
    insert(&mut layout, range(30, 40, &segment, 300)).unwrap();
    assert_eq!(
        removed(&mut layout, 5, 35),
        [(5, 10, 105), (20, 30, 200), (30, 35, 300)]
    );
    assert_eq!(listed(&layout), [(0, 5, 1, 100), (35, 40, 1, 305)]);
}

#[test]
fn remove_of_nothing_changes_nothing_and_needs_no_node() {
    let segment = Segment::new(1);
    let mut layout = space(100, 1);
    insert(&mut layout, range(10, 20, &segment, 0)).unwrap();
    for (start, end) in [(0, 10), (20, 100), (15, 15), (18, 12), (200, u64::MAX)] {
        assert_eq!(removed(&mut layout, start, end), []);
    }
    assert_eq!(listed(&layout), [(10, 20, 1, 0)]);
}

#[test]
fn neighbours_that_continue_each_other_are_one_range() {
    let segment = Segment::new(1);
    let mut layout = space(100, 2);
    for page in [4, 6, 5, 0, 1, 3, 2] {
        insert(&mut layout, range(page, page + 1, &segment, 50 + page)).unwrap();
        layout.check(true);
    }
    assert_eq!(listed(&layout), [(0, 7, 1, 50)]);
    assert_eq!(std::rc::Rc::strong_count(&segment), 2);
    assert_eq!(shown(&layout, 1, 53..55), [(3, 5, 53)]);
}

#[test]
fn neighbours_of_another_segment_offset_or_protection_stay_apart() {
    let (one, two) = (Segment::new(1), Segment::new(2));
    let mut layout = space(100, 4);
    insert(&mut layout, range(10, 20, &one, 10)).unwrap();
    insert(&mut layout, range(20, 30, &two, 20)).unwrap();
    insert(&mut layout, range(0, 10, &one, 1)).unwrap();
    let prot = Prot::READ | Prot::WRITE;
    insert(
        &mut layout,
        Range {
            prot,
            ..range(30, 40, &two, 30)
        },
    )
    .unwrap();
    layout.check(true);
    assert_eq!(layout.len(), 4);
}

#[test]
fn insert_where_something_is_shown_is_refused() {
    let segment = Segment::new(1);
    let mut layout = space(100, 10);
    insert(&mut layout, range(10, 20, &segment, 0)).unwrap();
    for (start, end) in [(9, 11), (19, 21), (12, 15), (0, 100), (10, 20)] {
        assert_eq!(
            insert(&mut layout, range(start, end, &segment, 0)),
            Err(Error::Exists)
        );
    }
    assert_eq!(listed(&layout), [(10, 20, 1, 0)]);
}

#[test]
fn what_is_no_range_of_the_space_is_refused() {
    let segment = Segment::new(1);
    let mut layout = space(100, 10);
    let bad = [
        range(5, 5, &segment, 0),
        range(6, 5, &segment, 0),
        range(0, 101, &segment, 0),
        range(100, 101, &segment, 0),
        range(u64::MAX - 1, u64::MAX, &segment, 0),
        range(0, 2, &segment, u64::MAX - 1),
    ];
    for range in bad {
        assert_eq!(insert(&mut layout, range.clone()), Err(Error::BadRange));
        assert_eq!(
            layout.replace(range, true, usize::MAX, |_| ()),
            Err(Error::BadRange)
        );
    }
    assert!(layout.is_empty());
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
fn replace_returns_the_old_and_shows_the_new() {
    let (one, two) = (Segment::new(1), Segment::new(2));
    let mut layout = space(100, 5);
    insert(&mut layout, range(0, 30, &one, 0)).unwrap();
    let mut old = Vec::new();
    layout
        .replace(range(10, 20, &two, 7), true, usize::MAX, |range| {
            old.push(range)
        })
        .unwrap();
    layout.check(true);
    assert_eq!(old, [range(10, 20, &one, 10)]);
    assert_eq!(
        listed(&layout),
        [(0, 10, 1, 0), (10, 20, 2, 7), (20, 30, 1, 20)]
    );

    // The very same pages: the node stays, and is found by its new segment only.
    old.clear();
    layout
        .replace(range(10, 20, &one, 70), true, usize::MAX, |range| {
            old.push(range)
        })
        .unwrap();
    layout.check(true);
    assert_eq!(old, [range(10, 20, &two, 7)]);
    assert!(!layout.shows(2));
    assert_eq!(shown(&layout, 1, 75..76), [(15, 16, 75)]);

    // And back: all three are one again.
    layout
        .replace(range(10, 20, &one, 10), true, usize::MAX, |_| ())
        .unwrap();
    layout.check(true);
    assert_eq!(listed(&layout), [(0, 30, 1, 0)]);
}

#[test]
fn replace_in_place_needs_no_node() {
    let (one, two) = (Segment::new(1), Segment::new(2));
    let mut layout = space(100, 1);
    insert(&mut layout, range(10, 20, &one, 0)).unwrap();
    for page in 30..30 + layout_room(&layout) {
        insert(&mut layout, range(page, page + 1, &one, 2 * page)).unwrap();
    }
    assert_eq!(
        insert(&mut layout, range(90, 91, &one, 0)),
        Err(Error::NoNodes)
    );
    layout
        .replace(range(10, 20, &two, 0), true, usize::MAX, |_| ())
        .unwrap();
    assert_eq!(layout.lookup(page(10)).unwrap().segment, two);
}

/// Nodes that are left.
fn layout_room(layout: &Layout) -> u64 {
    (0..)
        .find(|&nodes| !layout.need(nodes + 1).is_none())
        .unwrap() as u64
}

#[test]
fn protect_cuts_at_its_borders_and_joins_what_is_alike_again() {
    let segment = Segment::new(1);
    let mut layout = space(100, 4);
    insert(&mut layout, range(0, 30, &segment, 0)).unwrap();
    layout.protect(pages(10, 20), Prot::NONE).unwrap();
    layout.check(true);
    assert_eq!(
        listed(&layout),
        [(0, 10, 1, 0), (10, 20, 1, 10), (20, 30, 1, 20)]
    );
    let prots = [5, 15, 25].map(|at| layout.lookup(page(at)).unwrap().prot);
    assert_eq!(prots, [Prot::READ, Prot::NONE, Prot::READ]);
    layout.protect(pages(0, 100), Prot::READ).unwrap();
    layout.check(true);
    assert_eq!(listed(&layout), [(0, 30, 1, 0)]);
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
fn handles_are_given_back_with_their_ranges() {
    let segment = Segment::new(1);
    let mut layout = space(100, 40);
    for page in 0..40 {
        insert(&mut layout, range(2 * page, 2 * page + 1, &segment, 0)).unwrap();
    }
    assert_eq!(std::rc::Rc::strong_count(&segment), 41);
    clear(&mut layout, 0, 40).unwrap();
    assert_eq!(std::rc::Rc::strong_count(&segment), 21);
    drop(layout);
    assert_eq!(std::rc::Rc::strong_count(&segment), 1);
}

#[test]
fn protections_are_the_bits_of_mmap() {
    assert_eq!(Prot::from_bits(0), Some(Prot::NONE));
    assert_eq!(Prot::from_bits(3), Some(Prot::READ | Prot::WRITE));
    assert_eq!(Prot::from_bits(8), None);
    assert_eq!(Prot::from_bits(u32::MAX), None);
    let all = Prot::READ | Prot::WRITE | Prot::EXEC;
    assert_eq!(all.bits(), 7);
    assert!(all.contains(Prot::EXEC) && !Prot::READ.contains(all));
    assert!(Prot::NONE.contains(Prot::NONE) && !Prot::NONE.contains(Prot::READ));
}

/// Everything that a refused change must not alter.
fn state(layout: &Layout) -> impl PartialEq + std::fmt::Debug {
    let installed = layout.ranges(all());
    let installed: Vec<_> = installed.map(|range| range.installed.pages()).collect();
    (listed(layout), installed)
}

#[test]
fn a_refusal_for_what_is_shown_or_for_lack_of_room_changes_nothing() {
    let (one, two) = (Segment::new(1), Segment::new(2));
    let mut layout = space(100, 10);
    insert(&mut layout, range(10, 20, &one, 0)).unwrap();
    insert(&mut layout, range(20, 30, &two, 0)).unwrap();
    insert(&mut layout, range(40, 50, &one, 0)).unwrap();
    layout
        .lookup(page(15))
        .unwrap()
        .installed
        .add(pages(12, 18));
    let before = state(&layout);
    let never = |_: Range| panic!("removed, and refused");

    for (start, end) in [(0, 11), (19, 20), (29, 41), (49, 100), (0, 100), (12, 13)] {
        let result = layout.replace(range(start, end, &two, 7), false, 100, never);
        assert_eq!(result, Err(Error::Exists));
        assert_eq!(state(&layout), before);
    }
    // Whole ranges, parts of one, both its ends, and in place.
    for (start, end, parts) in [
        (10, 50, 3),
        (0, 100, 3),
        (15, 45, 3),
        (19, 21, 2),
        (10, 20, 1),
        (12, 13, 1),
        (5, 15, 1),
    ] {
        for room in 0..parts {
            let shown = layout.replace(range(start, end, &two, 7), true, room, never);
            let removed = layout.remove(pages(start, end), room, never);
            assert_eq!((shown, removed), (Err(Error::NoRoom), Err(Error::NoRoom)));
            assert_eq!(state(&layout), before);
        }
        let mut copy = space(100, 10);
        for range in layout.ranges(all()) {
            insert(&mut copy, range.clone()).unwrap();
        }
        let mut removed = 0;
        copy.remove(pages(start, end), parts, |_| removed += 1)
            .unwrap();
        assert_eq!(removed, parts);
        copy.check(true);
    }
    assert_eq!(layout.remove(pages(50, 100), 0, never), Ok(()));
    layout.check(true);
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
