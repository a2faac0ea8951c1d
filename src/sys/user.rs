// SPDX-License-Identifier: GPL-2.0

//! Reads of the calling task's memory that take a few instructions.

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::sys::safe_fns;

/// The five words at an address. May sleep. `EFAULT`.
pub(crate) fn read_five(addr: usize) -> Result<[u64; 5]> {
    let mut words = [0; 5];
    to_result(safe_fns::address_space_helper_read_five(&mut words, addr))?;
    Ok(words)
}
