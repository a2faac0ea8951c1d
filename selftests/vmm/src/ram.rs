// SPDX-License-Identifier: GPL-2.0

//! The guest's memory: a memfd from guest address 0 on.

use std::fs::File;

use anyhow::Result;
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

/// How much there is, in bytes.
pub const LENGTH: u64 = 256 << 20;

pub struct Ram {
    pub file: File,
    pub memory: GuestMemoryMmap,
}

impl Ram {
    pub fn new() -> Result<Ram> {
        let file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC)?);
        file.set_len(LENGTH)?;
        let region = (
            GuestAddress(0),
            LENGTH as usize,
            Some(FileOffset::new(file.try_clone()?, 0)),
        );
        Ok(Ram {
            memory: GuestMemoryMmap::from_ranges_with_files([region])?,
            file,
        })
    }

    pub fn read(&self, gpa: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(gpa))?;
        Ok(bytes)
    }

    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.memory.write_slice(bytes, GuestAddress(gpa))?)
    }
}
