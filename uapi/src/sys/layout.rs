// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped, for programs.

use rustix::ioctl::{Opcode, opcode};

use super::ADDRESS_SPACE_TYPE;

/// What [`ADDRESS_SPACE_LAYOUT`] writes of a mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_range {
    /// Start of the range of the address space, in bytes.
    pub addr: u64,
    /// Length of the range in bytes.
    pub length: u64,
    /// Start of the range in the file, or in what was lent, in bytes.
    pub offset: u64,
    /// Inode number of the file; 0 of lent memory.
    pub ino: u64,
    /// Device of its file system; 0 of lent memory.
    pub dev_major: u32,
    /// As above.
    pub dev_minor: u32,
    /// Protection.
    pub prot: u32,
    /// `ADDRESS_SPACE_RANGE_*`.
    pub flags: u32,
}

/// It was mapped with `ADDRESS_SPACE_MAP_PRIVATE`.
pub const ADDRESS_SPACE_RANGE_PRIVATE: u32 = 1 << 0;
/// It is memory that a process has lent.
pub const ADDRESS_SPACE_RANGE_LENT: u32 = 1 << 1;

/// Argument of [`ADDRESS_SPACE_LAYOUT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_layout {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Start of the range to look at, in bytes, a multiple of the page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// Address of an array, which the kernel writes to.
    pub ranges: u64,
    /// How many elements it has room for; output: how many were written.
    pub nr_ranges: u32,
    /// Size of [`address_space_range`] in bytes.
    pub range_size: u32,
    /// Output: the address from which to go on.
    pub next: u64,
}

/// On an asfd, or a view that manages its range: writes what is mapped in a range.
pub const ADDRESS_SPACE_LAYOUT: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x09);
