// SPDX-License-Identifier: GPL-2.0

//! memfds to map.

use std::fs::File;

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

/// A memfd of `length` bytes, none of which is in memory. `flags` are added to
/// close-on-exec.
pub fn with_flags(name: &str, length: u64, flags: MemfdFlags) -> Result<File> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | flags).context("memfd_create")?;
    let file = File::from(file);
    file.set_len(length).context("ftruncate")?;
    Ok(file)
}

/// A memfd of `length` bytes, none of which is in memory.
pub fn sparse(name: &str, length: u64) -> Result<File> {
    with_flags(name, length, MemfdFlags::empty())
}

/// A memfd of `length` bytes, all of which are in memory.
pub fn resident(name: &str, length: u64) -> Result<File> {
    let file = sparse(name, length)?;
    fallocate(&file, FallocateFlags::empty(), 0, length).context("fallocate")?;
    Ok(file)
}
