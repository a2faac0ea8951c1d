// SPDX-License-Identifier: GPL-2.0

//! What the guest's programs share with the VMM, and with each other.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

pub mod dax;
pub mod desk;
pub mod fault_log;
pub mod iommu;
pub mod mailbox;
pub mod mapping;
pub mod pattern;
pub mod ports;
pub mod reading;
pub mod share;
pub mod work;
