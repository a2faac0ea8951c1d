// SPDX-License-Identifier: GPL-2.0

//! Attachments: the VMAs that map an asfd or a view.
//!
//! An attachment is a PFN map: it gets frames, never references, so nothing can pin what a
//! revocation must take away. A fault goes through `operations.rs` (shims), `fault.rs`
//! (what it comes to), `around.rs` (which pages) and `install.rs` (entries of page tables); where
//! there is no page for it, `refuse.rs` has the answer.
//!
//! Everything here runs with the mmap lock (or the VMA lock) of the attached process held, which
//! comes with a VM operation, or which `populate.rs` has tried.

pub(crate) mod access;
pub(crate) mod around;
pub(crate) mod attach;
pub(crate) mod fault;
mod fault_for_vm;
pub(crate) mod install;
mod operations;
pub(crate) mod populate;
mod refuse;
pub(crate) mod vma;
