// SPDX-License-Identifier: GPL-2.0

//! Attachments: the VMAs that map an asfd or a view.
//!
//! Everything here runs with the mmap lock (or the VMA lock) of the attached process held,
//! which the caller of a VM operation holds already, or which `populate.rs` has tried.

pub(crate) mod fault;
pub(crate) mod huge;
pub(crate) mod install;
pub(crate) mod populate;
pub(crate) mod vma;
