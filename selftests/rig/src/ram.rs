// SPDX-License-Identifier: GPL-2.0

//! The RAM of a guest: a memfd from guest address 0 on, as its VMM and its drivers see it.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address_space::page_size;
use anyhow::{Context as _, Result};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::memfd;

/// What lies below is not given out by [`Ram::pages()`].
const FIRST: u64 = 1 << 20;

/// Guest RAM.
pub struct Ram {
    file: File,
    memory: GuestMemoryMmap,
    length: u64,
    next: AtomicU64,
}

impl Ram {
    /// RAM of so many bytes.
    pub fn new(length: u64) -> Result<Ram> {
        let file = memfd::sparse("guest-ram", length)?;
        let region = (
            GuestAddress(0),
            length as usize,
            Some(FileOffset::new(file.try_clone()?, 0)),
        );
        Ok(Ram {
            memory: GuestMemoryMmap::from_ranges_with_files([region])?,
            file,
            length,
            next: AtomicU64::new(FIRST),
        })
    }

    /// The memfd.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// This process's mapping of it.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Gives out guest pages for so many bytes, which are zeroed and which nothing else
    /// uses. Returns their guest address.
    pub fn pages(&self, length: u64) -> Result<u64> {
        let length = length.next_multiple_of(page_size());
        let aligned = |next: u64| next.next_multiple_of(alignment(length));
        let fits = |next| Some(aligned(next) + length).filter(|&end| end <= self.length);
        let next = self.next.fetch_update(Relaxed, Relaxed, fits);
        let next = next.ok().context("the guest's RAM is used up")?;
        Ok(aligned(next))
    }

    /// Writes bytes at a guest address.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.memory.write_slice(bytes, GuestAddress(gpa))?)
    }

    /// Reads bytes at a guest address.
    pub fn read(&self, gpa: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(gpa))?;
        Ok(bytes)
    }
}

/// The alignment of addresses for so many bytes: large ones can be mapped by huge pages.
pub(crate) fn alignment(length: u64) -> u64 {
    const HUGE: u64 = 2 << 20;
    if length >= HUGE { HUGE } else { page_size() }
}
