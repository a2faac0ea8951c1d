// SPDX-License-Identifier: GPL-2.0

//! How many pages a fault installs: one, or also those that follow.
//!
//! To install resident neighbours in the same fault makes a sequential first touch cheaper than
//! a fault for each page, and a single touch a little dearer. So the number follows what the
//! faults of a task show, as readahead does: it doubles as long as each fault is where the one
//! before left off, and is one again when it is not. What is known of the pages around is
//! installed in any case, as the kernel does for files that are read (`fault_around_bytes`): with
//! frames that are known it costs a few instructions a page, and nothing is written by it.
//!
//! A guess that nothing but speed depends on: no lock, and a few places for all tasks.

use kernel::{
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
    task::Task, //
};

use crate::{
    layout::SpacePage,
    segment::frame::HUGE_PAGES,
    sys::peek::peek, //
};

/// The most pages that are installed in one go: with one hold of the install lock, from arrays
/// on the stack.
pub(crate) const MOST: usize = 64;

/// The most pages that one fault installs: those of a page table.
const LONGEST: u64 = HUGE_PAGES as u64;

/// The aligned run of pages that any fault looks at.
pub(crate) const AROUND: u64 = 16;

const PLACES: usize = 16;
/// Of a place, the bits that hold the number of pages; the others hold the page.
const COUNT_BITS: u32 = 12;

/// Where faults left off.
pub(crate) struct Readahead {
    places: [Atomic<u64>; PLACES],
}

impl Readahead {
    pub(crate) fn new() -> Self {
        Readahead {
            places: [const { Atomic::new(0) }; PLACES],
        }
    }

    fn place(&self) -> Option<&Atomic<u64>> {
        // Tasks are large, so their low address bits hardly differ.
        let place = (Task::current_raw() as usize >> 12) % PLACES;
        self.places.get(place)
    }

    /// How many pages the current task's fault on `page` should install.
    pub(crate) fn count(&self, page: SpacePage) -> u64 {
        let Some(place) = self.place() else { return 1 };
        let last = peek(place);
        if last >> COUNT_BITS != page.get() || page.get() == 0 {
            return 1;
        }
        (2 * (last & ((1 << COUNT_BITS) - 1))).clamp(1, LONGEST)
    }

    /// A fault of the current task has installed what comes before `next`; `count` pages, or as
    /// many as it would have but for an end of something.
    pub(crate) fn note(&self, next: SpacePage, count: u64) {
        if let Some(place) = self.place() {
            place.store((next.get() << COUNT_BITS) | count, Relaxed);
        }
    }
}
