// SPDX-License-Identifier: GPL-2.0

//! What changes of a layout promise (`src/layout/change.rs`), one test for each, named after it.

use crate::{
    host::{
        all, clear, insert, listed, page, pages, range, removed, shown, space, Layout, Range,
        Segment,
    },
    layout::{Error, Prot},
};

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
