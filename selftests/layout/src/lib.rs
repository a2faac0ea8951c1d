// SPDX-License-Identifier: GPL-2.0

//! Tests of what an address space shows (`src/layout/mod.rs` of the module), without a kernel.
//!
//! `cargo test -p layout-tests` runs all of them, and
//! `cargo test -p layout-tests --release -- --nocapture million` prints what an operation costs when
//! there are a million ranges.

#![cfg(test)]

#[forbid(unsafe_code)]
#[path = "../../../src/layout/mod.rs"]
mod layout;

mod change;
mod corrupt;
mod few;
mod host;
mod installed;
mod lookup;
mod memory;
mod model;
mod page;
mod prot;
mod range_set;
mod scale;
/// What `layout` takes from the kernel.
mod sys {
    pub(crate) mod atomic;
    pub(crate) mod peek;
}
mod walk;
