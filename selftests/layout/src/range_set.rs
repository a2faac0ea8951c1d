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
fn of_a_range_that_cannot_be_cut_the_longer_part_stays() {
    let mut one = RangeSet::<1>::none();
    assert!(one.add(&pages(0, 10)));
    one.remove(&pages(2, 4));
    assert!(!one.overlaps(&pages(0, 4)));
    assert_eq!(one.among(&pages(0, 100)), pages(4, 10));
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
            let fits = if add { set.add(&range) } else { set.remove(&range); true };
            for page in start..start + length {
                if fits {
                    model[page as usize] = add;
                }
            }
            let mut was = false;
            for page in 0..80u64 {
                let is = set.overlaps(&pages(page, page + 1));
                // Only a cut for which there is no room removes more.
                let cut = !add && set.iter().count() == 8;
                prop_assert!(is == model[page as usize] || cut && !is, "{page}");
                model[page as usize] = is;
                was |= is;
            }
            prop_assert_eq!(set.is_empty(), !was);
        }
    }
}
