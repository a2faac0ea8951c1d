// SPDX-License-Identifier: GPL-2.0

//! Relaxed loads, on the host.

use super::atomic::{ordering::Relaxed, Atomic};

/// A relaxed load.
pub(crate) fn peek(word: &Atomic<u64>) -> u64 {
    word.load(Relaxed)
}
