// SPDX-License-Identifier: GPL-2.0

//! This module, as C has it.
//!
//! C header: [`include/linux/export.h`](srctree/include/linux/export.h)

use crate::sys::bindings;

extern "C" {
    /// A `struct module`, which kbuild defines in every module; only its address is used.
    static __this_module: u8;
}

/// `THIS_MODULE`: what tables of operations name as their owner.
pub(crate) const THIS_MODULE: *mut bindings::module = (&raw const __this_module).cast_mut().cast();
