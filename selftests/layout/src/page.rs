// SPDX-License-Identifier: GPL-2.0

//! Page numbers and ranges of them (`src/layout/page.rs`).

use crate::{
    host::{page, pages},
    layout::{FilePage, Pages, SegmentPage, SpacePage},
};

#[test]
fn a_page_is_only_its_number() {
    assert_eq!(size_of::<[SpacePage; 3]>(), 24);
    assert_eq!((page(7).get(), page(7).as_usize()), (7, 7));
    assert_eq!(SegmentPage::from_usize(7), SegmentPage::new(7));
    assert!(SpacePage::FIRST < page(1) && page(u64::MAX) == SpacePage::END);
}

#[test]
fn pages_and_counts_add_up() {
    assert_eq!(
        (page(3) + 4, page(7) - 4, page(7) - page(3)),
        (page(7), page(3), 4)
    );
    assert_eq!(FilePage::END.checked_add(0), Some(FilePage::END));
    assert_eq!(FilePage::END.checked_add(1), None);
}

#[test]
fn ranges_know_their_length_and_what_they_have_in_common() {
    // All pairs of ranges within a few pages, some of which end before they start.
    let all = || (0..5).flat_map(|start| (0..5).map(move |end| (start, end)));
    let none: std::ops::Range<SpacePage> = Pages::none();
    assert!(none.is_empty());
    for (start, end) in all() {
        let a = pages(start, end);
        let of_a = |page: u64| start <= page && page < end;
        assert_eq!(a.count(), (0..5).filter(|&page| of_a(page)).count() as u64);
        for (start, end) in all() {
            let b = pages(start, end);
            let of_b = |page: u64| start <= page && page < end;
            let both = (0..5).filter(|&page| of_a(page) && of_b(page)).count() as u64;
            assert_eq!(a.intersect(&b).count(), both);
            assert_eq!(a.overlaps(&b), both > 0);

            let any = || (0..5).filter(|&page| of_a(page) || of_b(page));
            let hull = a.clone().hull(b);
            assert_eq!(any().next().is_none(), hull.is_empty());
            if let (Some(first), Some(last)) = (any().next(), any().last()) {
                assert_eq!(hull, pages(first, last + 1));
            }
        }
    }
}
