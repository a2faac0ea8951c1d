// SPDX-License-Identifier: GPL-2.0

//! The RAM of a guest from guest address 0 on, as its VMM and its drivers see it: a memfd, or
//! memory of the VMM's own that it lends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address_space::{Lend, page_size};
use anyhow::{Context as _, Result, ensure};
use rustix::mm::{Advice, madvise};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use crate::{READ_WRITE, memfd};

/// What lies below is not given out by [`Ram::pages()`].
const FIRST: u64 = 1 << 20;

/// Guest RAM.
pub struct Ram {
    fd: OwnedFd,
    memory: GuestMemoryMmap,
    length: u64,
    next: AtomicU64,
}

impl Ram {
    /// RAM of so many bytes, a memfd.
    pub fn new(length: u64) -> Result<Ram> {
        let file = memfd::sparse("guest-ram", length)?;
        let region = (
            GuestAddress(0),
            length as usize,
            Some(FileOffset::new(file.try_clone()?, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([region])?;
        Ok(Ram::of(file, memory, length))
    }

    /// The same without a file: anonymous memory of this process, which lends it.
    pub fn lent(length: u64) -> Result<Ram> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), length as usize)])?;
        let start = NonNull::new(memory.get_host_address(GuestAddress(0))?)
            .context("guest memory at address 0")?;
        // SAFETY: It is only accessed by volatile copies, as a guest's must be.
        let lend = unsafe { Lend::new(start, length as usize, READ_WRITE) }?;
        Ok(Ram::of(lend, memory, length))
    }

    fn of(fd: impl Into<OwnedFd>, memory: GuestMemoryMmap, length: u64) -> Ram {
        Ram {
            fd: fd.into(),
            memory,
            length,
            next: AtomicU64::new(FIRST),
        }
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

impl Ram {
    /// Drops what is in some pages of anonymous memory, as a balloon does: they are zeroes then.
    pub fn drop_pages(&self, gpa: u64, length: u64) -> Result<()> {
        let end = gpa.checked_add(length);
        ensure!(end.is_some_and(|end| end <= self.length), "beyond the RAM");
        let start = self.memory.get_host_address(GuestAddress(gpa))?;
        // SAFETY: The pages are the guest's, and all accesses to them are volatile copies.
        Ok(unsafe { madvise(start.cast(), length as usize, Advice::LinuxDontNeed) }?)
    }

    /// Takes back what was lent.
    pub fn take_back(&self) -> Result<()> {
        Ok(Lend::from(self.fd.try_clone()?).revoke()?)
    }
}

/// What stands for it: the memfd, or what was lent.
impl AsFd for Ram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The alignment of addresses for so many bytes: large ones can be mapped by huge pages.
pub(crate) fn alignment(length: u64) -> u64 {
    const HUGE: u64 = 2 << 20;
    if length >= HUGE { HUGE } else { page_size() }
}
