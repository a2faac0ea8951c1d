// SPDX-License-Identifier: GPL-2.0

//! Relaxed loads of what several tasks change. The kernel crate's own are calls of C functions,
//! each of which costs as much as all else that is done for a page.

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// A relaxed load.
#[inline(always)]
pub(crate) fn peek<T: AtomicType>(word: &Atomic<T>) -> T {
    // SAFETY: Valid and aligned for as long as it is borrowed; a volatile load of a word is what
    // the kernel's atomics make of a relaxed one.
    unsafe { word.as_ptr().read_volatile() }
}
