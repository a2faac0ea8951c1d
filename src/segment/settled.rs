// SPDX-License-Identifier: GPL-2.0

//! What is known of an mm's notifiers: which of the invalidations that they were called back for
//! have ended for certain. Each arena has one, and each lend.
//!
//! Takes no lock. `notifier.rs` notes in it, and asks it before a look is begun.

use kernel::sync::atomic::{
    ordering::*,
    Atomic, //
};

/// The latest sequence in an mm that has settled; 0, which is none, before.
///
/// The notifiers of an mm have their sequences from one count. One that is inserted gets that of
/// the invalidation that is under way, or of the last one before. So what is known of one notifier
/// is known of all: of this sequence, and of those before it, nothing is under way.
pub(crate) struct Settled(Atomic<usize>);

impl Settled {
    /// Of an mm in which none has.
    pub(crate) const fn new() -> Self {
        Settled(Atomic::new(0))
    }

    /// Whether any has.
    pub(crate) fn is_known(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// This one has.
    pub(super) fn note(&self, seq: usize) {
        // Of two at once the earlier one may stay, which is true as well.
        if self.0.load(Relaxed) < seq {
            self.0.store(seq, Release);
        }
    }

    /// Whether nothing is under way that this one was given out for. Whoever is told so sees the
    /// page tables as they were left.
    pub(super) fn includes(&self, seq: usize) -> bool {
        seq <= self.0.load(Acquire)
    }
}
