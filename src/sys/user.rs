// SPDX-License-Identifier: GPL-2.0

//! Reads of the calling task's memory that take a few instructions.

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::sys::safe_fns;

/// Reads the five words at an address. May sleep. `EFAULT`.
#[inline(always)]
pub(crate) fn read_five(addr: usize, words: &mut [u64; 5]) -> Result {
    to_result(safe_fns::address_space_helper_read_five(words, addr))
}
