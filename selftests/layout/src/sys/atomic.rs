// SPDX-License-Identifier: GPL-2.0

//! The part of the kernel's atomics (`kernel::sync::atomic`) that the layout uses, on the host.

use std::sync::atomic::{AtomicU64, Ordering};

/// The orderings, which are types in the kernel.
pub(crate) mod ordering {
    pub(crate) struct Relaxed;
}

/// A value that several threads may change.
pub(crate) struct Atomic<T>(AtomicU64, std::marker::PhantomData<T>);

impl Atomic<u64> {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value), std::marker::PhantomData)
    }

    pub(crate) fn load(&self, _: ordering::Relaxed) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn cmpxchg(&self, old: u64, new: u64, _: ordering::Relaxed) -> Result<u64, u64> {
        self.0
            .compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
    }
}
