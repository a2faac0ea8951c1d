// SPDX-License-Identifier: GPL-2.0

//! Which pages of a range were ever entered in a window.
//!
//! A hull: no page outside of it was. So nothing need be zapped there, and nothing at all where it
//! is empty.

// `sys` says what an atomic is: the kernel's, or on the host one that looks like it.
use crate::sys::atomic::{
    ordering::Relaxed,
    Atomic, //
};
use core::{
    fmt,
    ops::Range, //
};

/// The pages of the space between the first and the last that were entered.
///
/// Faults add to it together, with the layout's lock held shared. Exact when it is held
/// exclusively, which is when it matters; the lock orders everything, so nothing here does.
pub(crate) struct Entered {
    /// The first page; if there is none, no less than the last page that can be.
    first: Atomic<u64>,
    /// The page after the last; if there is none, 0.
    end: Atomic<u64>,
}

impl Entered {
    /// No pages.
    pub(crate) const fn new() -> Self {
        Self {
            first: Atomic::new(u64::MAX),
            end: Atomic::new(0),
        }
    }

    /// The pages; an empty range if there are none.
    pub(crate) fn pages(&self) -> Range<u64> {
        let (first, end) = (self.first.load(Relaxed), self.end.load(Relaxed));
        if first < end {
            first..end
        } else {
            0..0
        }
    }

    /// Adds pages, which are in the range. Writes nothing if they are known.
    pub(crate) fn add(&self, pages: Range<u64>) {
        if pages.is_empty() {
            return;
        }
        Self::change(&self.first, pages.start, |old| pages.start < old);
        Self::change(&self.end, pages.end, |old| pages.end > old);
    }

    /// Writes `new` as long as there is something that is worse.
    fn change(word: &Atomic<u64>, new: u64, better_than: impl Fn(u64) -> bool) {
        let mut old = word.load(Relaxed);
        while better_than(old) {
            match word.cmpxchg(old, new, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Adds those of another.
    pub(super) fn unite(&self, other: &Self) {
        self.add(other.pages());
    }

    /// Those from `start` to `end`.
    pub(super) fn within(&self, start: u64, end: u64) -> Self {
        let pages = self.pages();
        let (first, end) = (pages.start.max(start), pages.end.min(end));
        if first < end {
            Self {
                first: Atomic::new(first),
                end: Atomic::new(end),
            }
        } else {
            Self::new()
        }
    }
}

impl Clone for Entered {
    fn clone(&self) -> Self {
        self.within(0, u64::MAX)
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pages().fmt(f)
    }
}
