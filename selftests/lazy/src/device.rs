// SPDX-License-Identifier: GPL-2.0

//! A device: a process that has a view of the guest's memory, and nothing else of it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use address_space::{View, Window};
use anyhow::{Result, ensure};
use rig::{READ_WRITE, memfd};

use crate::guest::{BUFFER, buffer_byte};

/// What the device writes at an offset in its buffer.
pub fn written_byte(at: usize) -> u8 {
    !buffer_byte(at)
}

/// The device's view, attached.
pub struct Device {
    window: Window,
}

impl Device {
    pub fn attach(view: &View) -> Result<Device> {
        let window = view.attach(0..view.length()?, READ_WRITE)?;
        Ok(Device { window })
    }

    /// Reads a part of the buffer, and fails if it is not what was there before the guest moved.
    pub fn check(&self, at: usize, length: usize) -> Result<()> {
        let mut bytes = vec![0; length];
        self.window.read_slice(BUFFER.start + at, &mut bytes)?;
        compare(at, &bytes)
    }

    /// The same, of what a system call has copied from there.
    pub fn check_by_system_call(&self, at: usize, length: usize) -> Result<()> {
        let file: File = memfd::sparse("device", 0)?;
        let offset = BUFFER.start + at;
        ensure!(offset + length <= self.window.len(), "beyond the memory");
        // SAFETY: The range lies within the window, as was checked, and the kernel only reads
        // it; where it cannot, the call fails.
        let written = unsafe {
            let from = self.window.as_ptr().add(offset);
            libc::write(file.as_raw_fd(), from.cast(), length)
        };
        if written < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        compare(at, &bytes)
    }

    /// Writes to a part of the buffer.
    pub fn write(&self, at: usize, length: usize) -> Result<()> {
        let bytes: Vec<_> = (at..at + length).map(written_byte).collect();
        Ok(self.window.write_slice(BUFFER.start + at, &bytes)?)
    }
}

fn compare(at: usize, bytes: &[u8]) -> Result<()> {
    let wrong = (0..bytes.len()).find(|&byte| bytes[byte] != buffer_byte(at + byte));
    ensure!(wrong.is_none(), "a wrong byte in the buffer: {wrong:x?}");
    Ok(())
}
