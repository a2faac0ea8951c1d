// SPDX-License-Identifier: GPL-2.0

//! Which pages of a range were ever installed in an attachment's page table.
//!
//! This file owns the note of them, which is a hull: no page outside of it was installed. So a zap
//! can leave out what is outside, and all of the range if the hull is empty. Everything is O(1).

// The kernel's, or on the host one with the same methods.
use crate::sys::{
    atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    peek::peek, //
};
use core::{
    fmt,
    ops::Range, //
};

use super::page::{
    Pages,
    SpacePage, //
};

/// The pages of the space from the first that was installed to the last.
///
/// Faults add to it concurrently, with the layout's lock held shared. It is exact when the lock is
/// held exclusively, which is when it matters; the lock orders all accesses, so relaxed ones do.
pub(crate) struct Installed {
    /// The first page; [`SpacePage::END`] if there is none.
    first: Atomic<u64>,
    /// The page after the last; 0 if there is none.
    end: Atomic<u64>,
}

impl Installed {
    /// No pages.
    pub(crate) const fn new() -> Self {
        Self {
            first: Atomic::new(SpacePage::END.get()),
            end: Atomic::new(SpacePage::FIRST.get()),
        }
    }

    /// The pages; an empty range if there are none.
    pub(crate) fn pages(&self) -> Range<SpacePage> {
        let first = SpacePage::new(peek(&self.first));
        let end = SpacePage::new(peek(&self.end));
        if first < end {
            first..end
        } else {
            SpacePage::FIRST..SpacePage::FIRST
        }
    }

    /// Adds pages, which are in the range. Writes nothing if they are in it already.
    pub(crate) fn add(&self, pages: Range<SpacePage>) {
        if pages.is_empty() {
            return;
        }
        let (first, end) = (pages.start.get(), pages.end.get());
        Self::change(&self.first, first, |old| first < old);
        Self::change(&self.end, end, |old| end > old);
    }

    /// Writes `new` unless the word has a value that it is not better than.
    fn change(word: &Atomic<u64>, new: u64, better_than: impl Fn(u64) -> bool) {
        let mut old = peek(word);
        while better_than(old) {
            match word.cmpxchg(old, new, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Adds the pages of another.
    pub(super) fn unite(&self, other: &Self) {
        self.add(other.pages());
    }

    /// Those of the pages that are among `pages`.
    pub(super) fn within(&self, pages: &Range<SpacePage>) -> Self {
        let pages = self.pages().intersect(pages);
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
        self.within(&(SpacePage::FIRST..SpacePage::END))
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pages().fmt(f)
    }
}
