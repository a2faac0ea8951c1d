// SPDX-License-Identifier: GPL-2.0

//! Which pages of a range were ever installed in an attachment.
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

use super::page::{
    Pages,
    SpacePage, //
};

/// The pages of the space between the first and the last that were installed.
///
/// Faults add to it concurrently, with the layout's lock held shared. Exact when that is held
/// exclusively, which is when it matters; the lock orders everything, so nothing here does.
pub(crate) struct Installed {
    /// The first page; if there is none, no less than the last page that can be.
    first: Atomic<u64>,
    /// The page after the last; if there is none, 0.
    end: Atomic<u64>,
}

impl Installed {
    /// No pages.
    pub(crate) const fn new() -> Self {
        Self {
            first: Atomic::new(u64::MAX),
            end: Atomic::new(0),
        }
    }

    /// The pages; an empty range if there are none.
    pub(crate) fn pages(&self) -> Range<SpacePage> {
        let first = SpacePage::new(self.first.load(Relaxed));
        let end = SpacePage::new(self.end.load(Relaxed));
        if first < end {
            first..end
        } else {
            Pages::none()
        }
    }

    /// Adds pages, which are in the range. Writes nothing if they are known.
    pub(crate) fn add(&self, pages: Range<SpacePage>) {
        if pages.is_empty() {
            return;
        }
        let (start, end) = (pages.start.get(), pages.end.get());
        Self::change(&self.first, start, |old| start < old);
        Self::change(&self.end, end, |old| end > old);
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

    /// Those in `range`.
    pub(super) fn within(&self, range: &Range<SpacePage>) -> Self {
        let pages = self.pages().intersect(range);
        if pages.is_empty() {
            return Self::new();
        }
        Self {
            first: Atomic::new(pages.start.get()),
            end: Atomic::new(pages.end.get()),
        }
    }
}

impl Clone for Installed {
    fn clone(&self) -> Self {
        self.within(&(SpacePage::new(0)..SpacePage::new(u64::MAX)))
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pages().fmt(f)
    }
}
