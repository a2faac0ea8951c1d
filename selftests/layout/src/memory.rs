// SPDX-License-Identifier: GPL-2.0

//! Where the memory of a layout comes from and goes to.

use crate::{
    host::{
        clear, insert, listed, pages, range, refill, shed, space, Heap, Layout, Segment,
        INSERT_NODES,
    },
    layout::{Chunk, Error, Node, Spare},
};

#[test]
fn a_range_costs_at_most_128_bytes() {
    assert!(size_of::<Node<Heap>>() <= 128);
    assert!(size_of::<Chunk<Heap>>() <= 4096);
}

#[test]
fn without_memory_a_change_is_refused_and_changes_nothing() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(100, 1);
    assert_eq!(
        insert(&mut layout, range(0, 1, &segment, 0)),
        Err(Error::NoNodes)
    );
    assert_eq!(
        layout.replace(range(0, 1, &segment, 0), true, usize::MAX, |_| ()),
        Err(Error::NoNodes)
    );
    assert_eq!(clear(&mut layout, 0, 100), Ok(()));
    layout.check(true);

    // Use up the one chunk, with a range that can be cut among them.
    refill(&mut layout, 1);
    insert(&mut layout, range(0, 10, &segment, 0)).unwrap();
    let mut page = 10;
    while insert(&mut layout, range(page, page + 1, &segment, 0)).is_ok() {
        page += 1;
    }
    let before = crate::host::listed(&layout);
    assert_eq!(clear(&mut layout, 3, 5), Err(Error::NoNodes));
    assert_eq!(
        layout.replace(range(3, 5, &segment, 0), true, usize::MAX, |_| ()),
        Err(Error::NoNodes)
    );
    assert_eq!(
        layout.protect(pages(3, 5), crate::layout::Prot::NONE),
        Err(Error::NoNodes)
    );
    assert_eq!(crate::host::listed(&layout), before);
    // What cuts nothing in two needs nothing, not even where it ends with the range.
    assert_eq!(clear(&mut layout, 8, 10), Ok(()));
    insert(&mut layout, range(9, 10, &segment, 0)).unwrap_err();
    assert_eq!(clear(&mut layout, 5, 11), Ok(()));
    layout.check(true);
}

#[test]
fn freed_nodes_serve_again() {
    let segment = Segment::new(1);
    let mut layout = space(1000, 32);
    assert!(layout.need(32).is_none());
    assert!(!layout.need(33).is_none());
    for round in 0..100 {
        for page in 0..32 {
            let range = range(2 * page + round, 2 * page + round + 1, &segment, 0);
            insert(&mut layout, range).unwrap();
        }
        layout.check(true);
        clear(&mut layout, 0, 1000).unwrap();
    }
    assert!(layout.need(32).is_none());
}

/// Shows `count` ranges of a page each, with a page between them.
fn fill(layout: &mut Layout, segment: &Segment, count: u64) {
    for page in 0..count {
        refill(layout, INSERT_NODES);
        insert(layout, range(2 * page, 2 * page + 1, segment, 0)).unwrap();
    }
}

#[test]
fn memory_goes_back_when_the_ranges_are_gone() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(200_000, 1);
    for _ in 0..3 {
        fill(&mut layout, &segment, 100_000);
        assert!(!layout.has_surplus());
        assert_eq!(shed(&mut layout), 100_000);
        layout.check(true);

        clear(&mut layout, 20_000, 199_999).unwrap();
        assert!(layout.has_surplus());
        let room = shed(&mut layout);
        assert!((10_000..20_000 + 64 * 32).contains(&room), "{room}");
        assert!(!layout.has_surplus());
        layout.check(true);
        assert_eq!(layout.len(), 10_000);

        clear(&mut layout, 0, 199_999).unwrap();
        let room = shed(&mut layout);
        assert!(room <= 64 * 32, "{room}");
        assert!(layout.is_empty());
        layout.check(true);
    }
}

#[test]
fn memory_of_few_ranges_stays() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(10_000, 1);
    for _ in 0..100 {
        fill(&mut layout, &segment, 64 * 32);
        assert!(!layout.has_surplus());
        clear(&mut layout, 0, 9_999).unwrap();
        assert!(!layout.has_surplus());
    }
    assert!(layout.need(64 * 32).is_none());
}

#[test]
fn what_is_left_of_a_chunk_keeps_its_place() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(200_000, 1);
    fill(&mut layout, &segment, 100_000);
    // A range in every tenth chunk.
    let keeps = |page: u64| page % 320 == 7;
    for page in (0..100_000).filter(|&page| !keeps(page)) {
        clear(&mut layout, 2 * page, 2 * page + 1).unwrap();
        if page % 10_000 == 0 {
            shed(&mut layout);
        }
    }
    shed(&mut layout);
    layout.check(true);
    let left: Vec<u64> = listed(&layout).iter().map(|range| range.0 / 2).collect();
    assert_eq!(
        left,
        (0..100_000).filter(|&page| keeps(page)).collect::<Vec<_>>()
    );
    // Slots without a chunk get one again, and the directory is large enough as it is.
    let need = format!("{:?}", layout.need(90_000));
    assert!(need.contains("slots: 0"), "{need}");
    refill(&mut layout, 90_000);
    layout.check(true);
    for page in (0..100_000).filter(|&page| !keeps(page)) {
        refill(&mut layout, INSERT_NODES);
        insert(&mut layout, range(2 * page, 2 * page + 1, &segment, 0)).unwrap();
    }
    layout.check(true);
}

#[test]
fn more_memory_than_needed_is_taken_or_left_but_not_lost() {
    let segment = Segment::new(1);
    let mut layout = Layout::new(100_000, 1);
    // Asked for one after another, and one of them twice as it were.
    let needs = [1, 40, 500, 500, 100, 3000, 1].map(|nodes| layout.need(nodes));
    for need in needs {
        let Ok(mut spare) = Spare::<Heap>::new(need);
        layout.refill(&mut spare);
        layout.check(true);
        layout.refill(&mut spare);
        layout.check(true);
    }
    assert!(layout.need(3000).is_none());
    for page in 0..3000 {
        insert(&mut layout, range(2 * page, 2 * page + 1, &segment, 0)).unwrap();
    }
    layout.check(true);
}

#[test]
fn a_directory_is_not_moved_for_each_chunk() {
    let mut layout = Layout::new(100, 1);
    let mut moved = 0;
    let mut room = 0;
    for _ in 0..1000 {
        room += 32;
        let need = format!("{:?}", layout.need(room));
        moved += usize::from(!need.contains("slots: 0 "));
        refill(&mut layout, room);
    }
    assert!(moved <= 10, "{moved}");
}
