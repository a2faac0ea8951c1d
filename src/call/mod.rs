// SPDX-License-Identifier: GPL-2.0

//! What user space asks for: the files it holds, the calls on them, and every check of what
//! it passes.
//!
//! Nothing here takes a lock of a space by itself but `ops`, and none is held while user
//! memory is read or written.

pub(crate) mod asfd;
pub(crate) mod device;
pub(crate) mod fdinfo;
pub(crate) mod file;
pub(crate) mod kvm;
pub(crate) mod request;
pub(crate) mod uapi;
pub(crate) mod view;
