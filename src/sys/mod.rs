// SPDX-License-Identifier: GPL-2.0

//! C interfaces of the kernel as safe types, for what the kernel crate has none.
//!
//! Knows nothing of address spaces.

pub(crate) mod bindings;
pub(crate) mod mapping;
pub(crate) mod rwsem;
pub(crate) mod trace;
pub(crate) mod workers;
