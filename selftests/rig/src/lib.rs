// SPDX-License-Identifier: GPL-2.0

//! What the test programs share.
//!
//! Memory: [`memfd`] makes files to map, [`plain`] maps them without an address space.
//! A tiny KVM guest: [`flat`].
//! Processes: [`channel`] starts and talks to them, [`process`] sets them up.
//! Results: [`tap`] prints them, [`check`] compares, [`fdinfo`] reads a space's layout.

#![warn(
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks
)]

pub mod channel;
pub mod check;
pub mod fdinfo;
pub mod flat;
pub mod memfd;
pub mod plain;
pub mod process;
pub mod tap;

use address_space::Prot;

/// Reading and writing.
pub const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
