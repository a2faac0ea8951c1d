// SPDX-License-Identifier: GPL-2.0

//! What user space asks for: the files it holds, the calls on them, and every check of what it
//! passes.
//!
//! A call goes `file.rs` > `asfd.rs` (or `view.rs`) > `manage.rs` (or `kvm.rs`) > `uapi.rs` (reads
//! the struct) > `request.rs` (checks it), and from there to the space. No lock is held while user
//! memory is read or written: it may be anything, an attachment of the very space included.

mod advise;
pub(crate) mod asfd;
pub(crate) mod batch;
pub(crate) mod device;
mod events;
pub(crate) mod fdinfo;
pub(crate) mod file;
pub(crate) mod kvm;
mod lend;
pub(crate) mod manage;
pub(crate) mod named;
mod query;
mod ranges;
pub(crate) mod request;
pub(crate) mod uapi;
pub(crate) mod view;
