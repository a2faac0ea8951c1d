// SPDX-License-Identifier: GPL-2.0

//! Unmodified vhost-user devices, for programs that put an IOMMU in front of
//! them.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

pub mod daemon;
pub mod storage;
