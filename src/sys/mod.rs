// SPDX-License-Identifier: GPL-2.0

//! C interfaces of the kernel as safe types and functions, where the kernel crate has none.
//!
//! Nothing here knows what an address space is, but that a mount may say what its holes answer:
//! each other file could move to `rust/kernel` as it stands.

pub(crate) mod bindings;
pub(crate) mod errno;
pub(crate) mod file;
pub(crate) mod file_operations;
mod file_system;
mod inode;
pub(crate) mod kvm;
pub(crate) mod lockdep;
pub(crate) mod mapping;
pub(crate) mod mm;
pub(crate) mod module;
pub(crate) mod mount_options;
pub(crate) mod named_files;
pub(crate) mod page;
pub(crate) mod peek;
pub(crate) mod plain;
pub(crate) mod random;
pub(crate) mod rwlock;
mod safe_fns;
pub(crate) mod small_vec;
pub(crate) mod task;
pub(crate) mod trace;
pub(crate) mod user;
pub(crate) mod wait;
pub(crate) mod warn;
pub(crate) mod workers;
pub(crate) mod zapping_tasks;
pub(crate) mod zaps;

// For `layout/`, which the host compiles too, with a `sys::atomic` of its own.
pub(crate) use kernel::sync::atomic;
