// SPDX-License-Identifier: GPL-2.0

//! The C interfaces: the kernel crate's bindings and those that it lacks, which bindgen makes
//! from `bindings_helper.h`.
//!
//! For the types that make something safe of them: those in `sys/`, and where the C object
//! is the very thing a file is about (the arena, the mm source, notifiers, frames, VMAs and
//! their page table entries).

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    improper_ctypes
)]

pub(crate) use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(env!("ADDRESS_SPACE_BINDINGS"));
