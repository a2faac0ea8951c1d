// SPDX-License-Identifier: GPL-2.0

//! Unmodified vhost-user devices, and a guest's end of them with or without an
//! IOMMU between, for programs that put one there or measure it.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

pub mod daemon;
pub mod device;
pub mod machine;
pub mod ram;
pub mod ring;
pub mod storage;
