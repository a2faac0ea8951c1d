// SPDX-License-Identifier: GPL-2.0

//! Mappings of files, of which others change the content.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of a file from its start on.
pub struct Mapping {
    /// `length` bytes that are mapped, for reading and perhaps for writing, until the drop.
    /// Nothing else in this process accesses them, and no reference to them is given out
    /// but to atomics.
    start: NonNull<u8>,
    length: usize,
    writable: bool,
}

/// For whom stores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// There are none.
    None,
    /// For all.
    Shared,
    /// For this mapping.
    Private,
}

impl Mapping {
    pub fn new(file: &File, length: usize, stores: Stores) -> Result<Mapping> {
        let (prot, flags) = match stores {
            Stores::None => (ProtFlags::READ, MapFlags::SHARED),
            Stores::Shared => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Stores::Private => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        // SAFETY: A new mapping where the kernel chooses replaces nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), length, prot, flags, file, 0) };
        let start = start.with_context(|| format!("mmap, {stores:?}"))?;
        Ok(Mapping {
            start: NonNull::new(start.cast()).context("mmap at 0")?,
            length,
            writable: stores != Stores::None,
        })
    }

    /// Copies what is there now.
    pub fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>> {
        self.check(&range)?;
        let mut bytes = vec![0; range.len()];
        // SAFETY: The range is in the mapping, and the vector is as long. What another
        // process stores meanwhile makes any bytes, which are valid.
        unsafe {
            let from = self.start.as_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), range.len());
        }
        Ok(bytes)
    }

    pub fn put(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(&(offset..offset + bytes.len()))?;
        ensure!(self.writable, "a mapping for reading");
        // SAFETY: The range is in the mapping, which can be written.
        unsafe {
            let to = self.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }

    /// A word that others store to.
    pub fn word(&self, offset: usize) -> Result<&AtomicU64> {
        self.check(&(offset..offset + 8))?;
        ensure!(offset % 8 == 0 && self.writable, "no word at {offset}");
        // SAFETY: The word is in the mapping, which is page-aligned and can be written, and
        // lives as long as the result.
        Ok(unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    /// Writes what is mapped to a file, by a system call that reads it.
    pub fn write_to(&self, range: Range<usize>, file: &File, at: u64) -> Result<usize> {
        self.check(&range)?;
        // SAFETY: The range is in the mapping. Nothing but the kernel accesses it before the
        // call returns.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len())
        };
        file.write_at(bytes, at).context("write from a mapping")
    }

    /// Reads from a file into what is mapped, by a system call that writes it.
    pub fn read_from(&self, range: Range<usize>, file: &File, at: u64) -> Result<usize> {
        self.check(&range)?;
        ensure!(self.writable, "a mapping for reading");
        // SAFETY: As in `write_to()`, and the mapping can be written.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.len())
        };
        file.read_at(bytes, at).context("read into a mapping")
    }

    fn check(&self, range: &Range<usize>) -> Result<()> {
        ensure!(
            range.start <= range.end && range.end <= self.length,
            "{range:?} of {} bytes",
            self.length
        );
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, and nothing borrows from it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
