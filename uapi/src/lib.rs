// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Address spaces as file descriptors.
//!
//! An *address space* is a kernel object behind a file descriptor, the *asfd*.
//! The owner of the asfd composes the address space from ranges of files.
//! Processes attach it with `mmap()`, virtual machines use it as a memory slot,
//! and all of them see the composition live: what is mapped is visible at once,
//! and when a call that unmaps something returns, no process and no guest can
//! reach it any more. A *view* is a file descriptor for a range of an address
//! space, with fewer rights: it can only be attached.
//!
//! The crate needs the `address_space` kernel module and access to
//! `/dev/address_space`.
//!
//! # Composing and attaching
//!
//! ```no_run
//! use address_space::{AddressSpace, Prot};
//! use std::fs::File;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // 1 MiB in which nothing is mapped.
//! let space = AddressSpace::new(1 << 20)?;
//! let window = space.attach(.., Prot::READ)?;
//!
//! // The window shows the file as soon as it is mapped.
//! let file = File::open("/etc/os-release")?;
//! space.map(&file).at(0).commit()?;
//! let mut bytes = [0; 16];
//! window.read_slice(0, &mut bytes)?;
//!
//! // Once this returns it does not; reading it again would raise SIGBUS.
//! space.unmap(..)?;
//! # Ok(())
//! # }
//! ```
//!
//! Methods take ranges as those of collections do: `..`, `4096..`, `..8192`. One without an
//! end goes to the end of the address space or view.
//!
//! # Many changes at once
//!
//! [`AddressSpace::register()`] prepares a file that will be mapped many times.
//! [`AddressSpace::batch()`] makes many changes in one step, all or none.
//! [`AddressSpace::protect()`] and [`AddressSpace::move_to()`] change what is
//! mapped.
//!
//! # Giving other processes less
//!
//! ```no_run
//! use address_space::{AddressSpace, Prot, View};
//! use std::os::fd::OwnedFd;
//!
//! # fn send(_: OwnedFd) {}
//! # fn receive() -> OwnedFd { unimplemented!() }
//! # fn main() -> Result<(), address_space::Error> {
//! # let space = AddressSpace::new(1 << 20)?;
//! // The owner makes a view of the first 64 KiB and sends it over a socket.
//! send(space.view(0..0x1_0000, Prot::READ)?.into());
//!
//! // The other process can read what the owner maps there.
//! let view = View::from(receive());
//! let window = view.attach(.., Prot::READ)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is not there
//!
//! An access to a hole raises SIGBUS, unless [`Holes`] says otherwise: it may be
//! absorbed, or wait until something is mapped there. [`AddressSpace::watch()`] tells
//! who makes such accesses.
//!
//! # Memory of a process
//!
//! Not only files can be mapped: a process can [lend](Lend) a range of its own memory.
//!
//! # Under a KVM guest
//!
//! See [`AddressSpace::attach_kvm()`].
//!
//! # In front of a device
//!
//! See [`iommu`]: an IOMMU domain that confines an unmodified vhost-user device.
//!
//! # Under a guest's file system
//!
//! See [`dax`]: a DAX window that a virtio-fs file server changes by itself.
//!
//! # Features
//!
//! - `iommu`: [`iommu::Domain`] implements `vm_memory::Iommu`.
//! - `vm-memory`: `GuestRegion`, an attachment as a region of guest memory, and
//!   `Memory::as_volatile_slice()`, for code that uses the `vm-memory` crate.
//! - `kvm-ioctls`: `vm_fd()`, to pass a virtual machine of the `kvm-ioctls`
//!   crate.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, clippy::undocumented_unsafe_blocks)]
#![warn(rust_2018_idioms, unsafe_op_in_unsafe_fn)]

mod advice;
mod batch;
mod call;
pub mod dax;
mod device;
mod error;
mod events;
mod fd;
#[cfg(feature = "vm-memory")]
mod guest_memory;
mod holes;
pub mod iommu;
mod kvm;
mod layout;
mod lend;
mod map;
mod prot;
mod query;
mod range;
mod registration;
mod space;
pub mod sys;
mod try_access;
mod view;
mod window;

pub use advice::Advice;
pub use batch::Batch;
pub use device::Device;
pub use error::{Error, Result};
pub use events::{Event, EventKind, Events};
#[cfg(feature = "vm-memory")]
pub use guest_memory::GuestRegion;
pub use holes::Holes;
#[cfg(feature = "kvm-ioctls")]
pub use kvm::vm_fd;
pub use kvm::{KvmFlags, KvmUnmapError, KvmWindow};
pub use layout::{Info, Mapped, Source};
pub use lend::Lend;
pub use map::Map;
pub use prot::Prot;
pub use query::{Capabilities, Features, query};
pub use registration::Registration;
/// The error number of a system call.
pub use rustix::io::Errno;
pub use space::AddressSpace;
pub use view::View;
pub use window::{Memory, Window, Word};

/// The size of a page in bytes. Addresses, offsets and lengths are multiples of it.
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
