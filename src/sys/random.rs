// SPDX-License-Identifier: GPL-2.0

//! Random numbers.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::sys::safe_fns;

/// A number that nobody can guess.
pub(crate) fn get_u64() -> u64 {
    safe_fns::get_random_u64()
}
