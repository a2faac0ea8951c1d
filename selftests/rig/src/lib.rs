// SPDX-License-Identifier: GPL-2.0

//! What the test programs share.
//!
//! - Memory: [`memfd`] makes files to map, [`plain`] maps them without an address space.
//! - A tiny KVM guest: [`flat`].
//! - The first file system of a Linux guest: [`initramfs`].
//! - Processes: [`channel`] starts and talks to them, [`process`] sets them up; those that
//!   obey have a [`role`].
//! - Results: a program runs [`cases`], [`tap`] and [`show`] print them, [`check`] compares, [`fdinfo`] reads a space's layout.
//! - vhost-user devices: [`folder`], [`daemon`], [`storage`] and [`file_server`] start them,
//!   [`frontend`] is the VMM's side of the protocol.
//! - A guest of such a device: [`ram`], a [`bus`] with or without an IOMMU, a [`ring`] and
//!   the [`device`] at its other end. With a disk it is a [`machine`] that makes requests,
//!   which are [`order`]s.

#![warn(
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks
)]

pub mod bus;
pub mod cases;
pub mod channel;
pub mod check;
pub mod daemon;
pub mod device;
pub mod fdinfo;
pub mod file_server;
pub mod flat;
pub mod folder;
pub mod frontend;
pub mod initramfs;
pub mod machine;
pub mod memfd;
pub mod order;
pub mod plain;
pub mod process;
pub mod ram;
pub mod ring;
pub mod role;
pub mod show;
pub mod storage;
pub mod tap;

use address_space::Prot;

/// Reading and writing.
pub const READ_WRITE: Prot = Prot::READ_WRITE;
