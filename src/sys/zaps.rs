// SPDX-License-Identifier: GPL-2.0

//! Who may zap the VMAs of a mapping: many at a time, or one alone.
//!
//! Who zaps alone may take entries out of a page table before the zap that flushes them, and leave
//! it two that say from where to where; so nobody else may take those out meanwhile.
//!
//! Nobody waits here. Who cannot zap alone zaps as others do; who cannot zap at all comes back,
//! and whoever zaps alone does so for a few page tables of one VMA at a time, and not while somebody
//! wants to come back: there is hardly a moment between two of these times.

use kernel::sync::atomic::{
    ordering::*,
    Atomic, //
};

use crate::sys::peek::peek;

/// Who zaps a mapping's VMAs.
///
/// # Invariants
///
/// `now` is the number of [`Shared`] there are, or [`ALONE`] if there is an [`Alone`], and then no
/// `Shared`. `wanted` is the number of [`Wanted`].
pub(crate) struct Zaps {
    now: Atomic<i32>,
    wanted: Atomic<i32>,
}

const ALONE: i32 = -1;

/// The right to zap, which others may have too, but nobody alone.
pub(crate) struct Shared<'a>(&'a Zaps);

/// The right to zap that nobody else has.
pub(crate) struct Alone<'a>(&'a Zaps);

/// The wish to zap: as long as there is one, nobody begins to zap alone.
pub(crate) struct Wanted<'a>(&'a Zaps);

impl Zaps {
    pub(crate) fn new() -> Self {
        // INVARIANT: There is none yet.
        Zaps {
            now: Atomic::new(0),
            wanted: Atomic::new(0),
        }
    }

    /// Has nobody begin to zap alone. To be had while [`Zaps::try_shared`] is tried again.
    pub(crate) fn want(&self) -> Wanted<'_> {
        // INVARIANT: Just counted.
        self.wanted.fetch_add(1, Relaxed);
        Wanted(self)
    }

    /// [`None`]: somebody zaps alone.
    pub(crate) fn try_shared(&self) -> Option<Shared<'_>> {
        let mut now = peek(&self.now);
        while now != ALONE {
            match self.now.cmpxchg(now, now + 1, Acquire) {
                // INVARIANT: Just counted.
                Ok(_) => return Some(Shared(self)),
                Err(changed) => now = changed,
            }
        }
        None
    }

    /// [`None`]: somebody zaps, or wants to.
    pub(crate) fn try_alone(&self) -> Option<Alone<'_>> {
        if peek(&self.wanted) != 0 {
            return None;
        }
        // INVARIANT: There was none, and is this one now.
        let taken = self.now.cmpxchg(0, ALONE, Acquire);
        taken.ok().map(|_| Alone(self))
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // INVARIANT: This one is no more.
        self.0.now.fetch_sub(1, Release);
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        // INVARIANT: This one is no more.
        self.0.wanted.fetch_sub(1, Relaxed);
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // INVARIANT: This one is no more, and there is no other.
        self.0.now.store(0, Release);
    }
}
