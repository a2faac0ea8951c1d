// SPDX-License-Identifier: GPL-2.0

//! A virtio-fs file server, as a vhost-user device, that maps files into its guest's DAX
//! window by itself.
//!
//! - [`share`] answers the guest's requests; [`serve`] takes them from the queues.
//! - [`state`] is what another server needs to take over from one that was killed.
//! - [`asked`] is for comparison: the window when it is the VMM that changes it.
//! - [`confine`] takes from the process all that it does not need.

#![warn(rust_2018_idioms, unreachable_pub, clippy::undocumented_unsafe_blocks)]

pub mod asked;
pub mod confine;
pub mod serve;
pub mod share;
pub mod state;
