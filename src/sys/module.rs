// SPDX-License-Identifier: GPL-2.0

//! This module, as C has it.
//!
//! C header: [`include/linux/export.h`](srctree/include/linux/export.h)

use crate::sys::{
    bindings,
    safe_fns, //
};
use kernel::{
    error::to_result,
    fs::File,
    prelude::*, //
};

extern "C" {
    /// A `struct module`, which kbuild defines in every module; only its address is used.
    static __this_module: u8;
}

/// `THIS_MODULE`: what tables of operations name as their owner.
pub(crate) const THIS_MODULE: *mut bindings::module = (&raw const __this_module).cast_mut().cast();

/// Keeps the module while this file of its device is open, if the kernel crate does not: for the
/// device's `open()`, and nothing else. `ENODEV`: it is being unloaded.
pub(crate) fn keep_while_open(file: &File) -> Result {
    to_result(safe_fns::address_space_helper_own_device(file))
}
