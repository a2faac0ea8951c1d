// SPDX-License-Identifier: GPL-2.0

//! What was installed of a range (`src/layout/installed.rs`), as the changes of a layout keep it.

use crate::{
    host::{insert, listed, numbers, page, pages, range, space, Layout, Segment},
    layout::Prot,
};

#[test]
fn what_was_installed_goes_with_its_pages() {
    let (one, two) = (Segment::new(1), Segment::new(2));
    let mut layout = space(100, 10);
    let installed = |layout: &Layout, at| {
        let range = layout.lookup(page(at)).unwrap();
        numbers(range.installed.pages())
    };
    insert(&mut layout, range(10, 30, &one, 10)).unwrap();
    assert_eq!(installed(&layout, 10), 0..0);
    layout
        .lookup(page(10))
        .unwrap()
        .installed
        .add(pages(12, 12));
    assert_eq!(installed(&layout, 10), 0..0);
    for (wanted, hull) in [
        (20..22, 20..22),
        (15..16, 15..22),
        (17..25, 15..25),
        (18..19, 15..25),
    ] {
        layout
            .lookup(page(10))
            .unwrap()
            .installed
            .add(page(wanted.start)..page(wanted.end));
        assert_eq!(installed(&layout, 10), hull);
    }

    // Cut, by a change in the middle: what comes out and what stays knows its own part.
    let mut old = Vec::new();
    let each = |range| old.push(range);
    layout
        .replace(range(18, 21, &two, 0), true, 1, each)
        .unwrap();
    layout.check(true);
    assert_eq!(numbers(old[0].installed.pages()), 18..21);
    let parts = [10, 18, 21].map(|at| installed(&layout, at));
    assert_eq!(parts, [15..18, 0..0, 21..25]);
    // Cut at either end, and where nothing was installed.
    let mut parts = Vec::new();
    layout
        .remove(pages(10, 16), 1, |range| {
            parts.push(numbers(range.installed.pages()))
        })
        .unwrap();
    layout
        .remove(pages(23, 28), 1, |range| {
            parts.push(numbers(range.installed.pages()))
        })
        .unwrap();
    layout
        .remove(pages(28, 30), 1, |range| {
            parts.push(numbers(range.installed.pages()))
        })
        .unwrap();
    assert_eq!(parts, [15..16, 23..25, 0..0]);
    assert_eq!([16, 21].map(|at| installed(&layout, at)), [16..18, 21..23]);

    // Put back, as a batch that is undone does: joined on both sides.
    layout.replace(old.remove(0), true, 1, drop).unwrap();
    layout.check(true);
    assert_eq!((listed(&layout).len(), installed(&layout, 16)), (1, 16..23));
    // A join with something in front, and behind, where nothing was installed.
    insert(&mut layout, range(10, 16, &one, 10)).unwrap();
    insert(&mut layout, range(23, 30, &one, 23)).unwrap();
    assert_eq!((listed(&layout).len(), installed(&layout, 10)), (1, 16..23));

    // It stays when the protection changes, here and back, and goes when another is shown.
    layout.protect(pages(20, 30), Prot::NONE).unwrap();
    assert_eq!([10, 20].map(|at| installed(&layout, at)), [16..20, 20..23]);
    layout.protect(pages(0, 100), Prot::NONE).unwrap();
    layout.check(true);
    assert_eq!(installed(&layout, 10), 16..23);
    let copy = layout.lookup(page(10)).unwrap().clone();
    assert_eq!(numbers(copy.installed.pages()), 16..23);
    layout
        .replace(range(10, 30, &two, 0), true, 1, drop)
        .unwrap();
    assert_eq!(installed(&layout, 10), 0..0);
}

#[test]
fn a_range_that_is_put_back_brings_what_was_installed() {
    let segment = Segment::new(1);
    for part in [pages(10, 11), pages(14, 15), pages(10, 20)] {
        let mut layout = space(100, 10);
        insert(&mut layout, range(0, 10, &segment, 0)).unwrap();
        insert(&mut layout, range(20, 30, &segment, 20)).unwrap();
        let old = range(10, 20, &segment, 10);
        old.installed.add(part.clone());
        insert(&mut layout, old).unwrap();
        assert_eq!(layout.len(), 1);
        assert_eq!(layout.lookup(page(0)).unwrap().installed.pages(), part);
    }
}

#[test]
fn what_was_installed_is_no_part_of_what_a_range_is() {
    let segment = Segment::new(1);
    let (one, other) = (range(0, 9, &segment, 0), range(0, 9, &segment, 0));
    one.installed.add(pages(3, 4));
    assert_eq!(one, other);
}
