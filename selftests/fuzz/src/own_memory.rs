// SPDX-License-Identifier: GPL-2.0

//! Memory of the fuzzer's own, which it lends: a file to all others. It has a size, beyond which
//! nothing is mapped. Processes that the fuzzer forks inherit it, and break copy-on-write.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use address_space::{Lend, Prot};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::plain::Plain;
use rustix::mm::{Advice, madvise};

use crate::op::*;

/// Where the kernel puts nothing by itself, so that what is unmapped stays a hole.
const FIRST: usize = 64 << 30;
/// How much room each has there.
const ROOM: usize = 1 << 30;

/// Memory that is lent.
pub struct OwnMemory {
    mapping: Plain,
    /// How many pages are mapped, from the first on.
    pages: Cell<u64>,
    writable: Lend,
    readable: Lend,
    /// For writing by the kernel, as a debugger does.
    debugger: File,
}

impl OwnMemory {
    /// `pages` pages of up to `most`.
    pub fn new(pages: u64, most: u64) -> Result<OwnMemory> {
        static NEXT: AtomicUsize = AtomicUsize::new(FIRST);
        let length = (most * PAGE) as usize;
        let at = NEXT.fetch_add(ROOM, Relaxed);
        let mapping = Plain::anonymous_at(at, length)?;
        mapping.unmap_at((pages * PAGE) as usize, length - (pages * PAGE) as usize)?;
        let start = NonNull::new(mapping.as_ptr()).context("memory at address 0")?;
        // SAFETY: Only raw pointers lead there.
        let lend = |prot| unsafe { Lend::new(start, length, prot) };
        Ok(OwnMemory {
            pages: Cell::new(pages),
            writable: lend(READ_WRITE)?,
            readable: lend(Prot::READ)?,
            debugger: OpenOptions::new().write(true).open("/proc/self/mem")?,
            mapping,
        })
    }

    /// What stands for it.
    pub fn fd(&self, writable: bool) -> BorrowedFd<'_> {
        if writable {
            self.writable.as_fd()
        } else {
            self.readable.as_fd()
        }
    }

    /// The mapping, of which only what [`resize()`](OwnMemory::resize) left is there.
    pub fn mapping(&self) -> &Plain {
        &self.mapping
    }

    /// How many pages there are.
    pub fn pages(&self) -> u64 {
        self.pages.get()
    }

    /// Unmaps pages at the end, or maps new ones there.
    pub fn resize(&self, pages: u64) -> Result<()> {
        let bytes = |pages: u64| (pages * PAGE) as usize;
        let (old, new) = (bytes(self.pages.get()), bytes(pages));
        match new.cmp(&old) {
            Ordering::Less => self.mapping.unmap_at(new, old - new)?,
            Ordering::Equal => (),
            Ordering::Greater => self.mapping.map_anonymous_at(old, new - old)?,
        }
        self.pages.set(pages);
        Ok(())
    }

    /// Has the kernel write there.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let start = self.mapping.as_ptr().expose_provenance() as u64;
        self.debugger
            .write_all_at(bytes, start + at)
            .context("/proc/self/mem")
    }

    /// Drops what is in some pages.
    pub fn drop_pages(&self, at: Span) -> Result<()> {
        let at = Span::new(
            at.start,
            at.end().min(self.pages.get()).max(at.start) - at.start,
        );
        if at.count > 0 {
            // SAFETY: The pages are within the mapping, to which only raw pointers lead.
            unsafe {
                let start = self.mapping.as_ptr().add((at.start * PAGE) as usize);
                madvise(
                    start.cast(),
                    (at.count * PAGE) as usize,
                    Advice::LinuxDontNeed,
                )
            }
            .context("MADV_DONTNEED")?;
        }
        Ok(())
    }

    /// Takes it back: it is lent no longer, and stays this process's.
    pub fn take_back(&self) -> Result<()> {
        self.writable.revoke()?;
        Ok(self.readable.revoke()?)
    }
}
