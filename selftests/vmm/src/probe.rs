// SPDX-License-Identifier: GPL-2.0

//! Whether memory that shows an address space is there. The system call that tries it fails
//! where an access would raise a signal.

use std::fs::File;

use address_space::{Errno, Memory};
use anyhow::{Context as _, Result};
use rig::memfd;
use vm_memory::{VolatileMemoryError, WriteVolatile as _};

const EFAULT: i32 = Errno::FAULT.raw_os_error();

pub struct Probe {
    sink: File,
}

impl Probe {
    pub fn new() -> Result<Probe> {
        Ok(Probe {
            sink: memfd::sparse("sink", 0)?,
        })
    }

    /// Whether the word at an offset can be read.
    pub fn can_read(&self, memory: &Memory, offset: u64) -> Result<bool> {
        let word = memory.as_volatile_slice().subslice(offset as usize, 8)?;
        match (&self.sink).write_volatile(&word) {
            Ok(_) => Ok(true),
            Err(VolatileMemoryError::IOError(error)) if error.raw_os_error() == Some(EFAULT) => {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("at {offset:#x}")),
        }
    }
}
