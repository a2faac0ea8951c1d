// SPDX-License-Identifier: GPL-2.0

//! What a set of ranges promises: to have what was added and nothing else, or to refuse it.

use crate::{
    host::pages,
    layout::RangeSet, //
};
use proptest::prelude::*;

#[test]
fn of_nothing_overlaps_nothing() {
    let none = RangeSet::<4>::none();
    assert!(none.is_empty());
    assert!(!none.overlaps(&pages(0, 1000)));
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut two = RangeSet::<2>::none();
    assert!(two.add(&pages(0, 1)));
    assert!(two.add(&pages(10, 11)));
    assert!(!two.add(&pages(20, 21)));
    assert!(!two.overlaps(&pages(11, 30)));
    // What joins others takes no room.
    assert!(two.add(&pages(1, 10)));
    assert!(two.add(&pages(20, 21)));
}

#[test]
fn what_cannot_be_cut_stays_whole() {
    let mut two = RangeSet::<2>::none();
    assert!(two.add(&pages(0, 10)));
    assert!(two.add(&pages(20, 30)));
    assert!(!two.remove(&pages(2, 4)));
    assert!(two.overlaps(&pages(2, 3)));
    assert_eq!(two.among(&pages(0, 100)), pages(0, 30));
    // At its end there is nothing to be cut in two.
    assert!(two.remove(&pages(5, 25)));
    let ranges: Vec<_> = two.iter().cloned().collect();
    assert_eq!(ranges, [pages(0, 5), pages(25, 30)]);
}

proptest! {
    #[test]
    fn has_what_was_added_and_not_removed(
        steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 1..60)
    ) {
        let mut set = RangeSet::<8>::none();
        let mut model = [false; 80];
        for (add, start, length) in steps {
            let range = pages(start, start + length);
            let fits = if add { set.add(&range) } else { set.remove(&range) };
            for page in start..start + length {
                if fits {
                    model[page as usize] = add;
                }
            }
            let mut was = false;
            for page in 0..80u64 {
                let is = set.overlaps(&pages(page, page + 1));
                prop_assert_eq!(is, model[page as usize], "{}", page);
                was |= is;
            }
            prop_assert_eq!(set.is_empty(), !was);
        }
    }
}
