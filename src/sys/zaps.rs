// SPDX-License-Identifier: GPL-2.0

//! Who may zap the VMAs of a mapping: many at a time, or one alone.
//!
//! Who zaps alone may take entries out of a page table before the zap that flushes them, and leave
//! it two that say from where to where; so nobody else may take those out meanwhile.
//!
//! Nobody waits here. Who cannot zap alone zaps as others do; who cannot zap at all comes back,
//! and whoever zaps alone does so for a few page tables of one VMA at a time.

use kernel::sync::atomic::{
    ordering::*,
    Atomic, //
};

/// Who zaps a mapping's VMAs.
///
/// # Invariants
///
/// The number of [`Shared`] there are, or [`ALONE`] if there is an [`Alone`], and then no
/// `Shared`.
pub(crate) struct Zaps(Atomic<i32>);

const ALONE: i32 = -1;

/// The right to zap, which others may have too, but nobody alone.
pub(crate) struct Shared<'a>(&'a Zaps);

/// The right to zap that nobody else has.
pub(crate) struct Alone<'a>(&'a Zaps);

impl Zaps {
    pub(crate) fn new() -> Self {
        // INVARIANT: There is none yet.
        Zaps(Atomic::new(0))
    }

    /// [`None`]: somebody zaps alone.
    pub(crate) fn try_shared(&self) -> Option<Shared<'_>> {
        let mut now = self.0.load(Relaxed);
        while now != ALONE {
            match self.0.cmpxchg(now, now + 1, Acquire) {
                // INVARIANT: Just counted.
                Ok(_) => return Some(Shared(self)),
                Err(changed) => now = changed,
            }
        }
        None
    }

    /// [`None`]: somebody zaps.
    pub(crate) fn try_alone(&self) -> Option<Alone<'_>> {
        // INVARIANT: There was none, and is this one now.
        self.0.cmpxchg(0, ALONE, Acquire).ok().map(|_| Alone(self))
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // INVARIANT: This one is no more.
        self.0 .0.fetch_sub(1, Release);
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // INVARIANT: This one is no more, and there is no other.
        self.0 .0.store(0, Release);
    }
}
