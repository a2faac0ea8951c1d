// SPDX-License-Identifier: GPL-2.0

//! Plain mappings of a process: what there is without an address space.

use std::os::fd::AsFd;
use std::ptr::null_mut;

use anyhow::{Context as _, Result, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const RESERVED: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// A huge page, in bytes.
const HUGE: usize = 2 << 20;

/// A mapping, which is unmapped when this is dropped.
pub struct Plain {
    start: *mut u8,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Plain {}
// SAFETY: Through a shared reference there are only system calls, which the kernel
// serializes, and a raw pointer, whose accesses are the caller's unsafe code.
unsafe impl Sync for Plain {}

impl Plain {
    /// Maps a file, shared, from `offset` on.
    pub fn of(file: impl AsFd, offset: usize, length: usize) -> Result<Plain> {
        // SAFETY: A new mapping where the kernel chooses replaces nothing.
        let start = unsafe {
            mmap(
                null_mut(),
                length,
                READ_WRITE,
                MapFlags::SHARED,
                file,
                offset as u64,
            )
        };
        Plain::new(start, length)
    }

    /// Maps a file, private: what is written is written to copies of its pages.
    pub fn private(file: impl AsFd, length: usize) -> Result<Plain> {
        // SAFETY: As in `of()`.
        let start = unsafe { mmap(null_mut(), length, READ_WRITE, MapFlags::PRIVATE, file, 0) };
        Plain::new(start, length)
    }

    /// Maps private memory, zeroed.
    pub fn anonymous(length: usize) -> Result<Plain> {
        // SAFETY: As in `of()`.
        let start = unsafe { mmap_anonymous(null_mut(), length, READ_WRITE, MapFlags::PRIVATE) };
        Plain::new(start, length)
    }

    /// The same at an address where nothing is.
    pub fn anonymous_at(at: usize, length: usize) -> Result<Plain> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: A new mapping replaces nothing.
        let start = unsafe {
            let at = std::ptr::with_exposed_provenance_mut(at);
            mmap_anonymous(at, length, READ_WRITE, flags)
        };
        Plain::new(start, length)
    }

    /// Reserves addresses: they cannot be accessed, and no other mapping merges with them.
    pub fn reserved(length: usize) -> Result<Plain> {
        // SAFETY: As in `of()`.
        let start = unsafe { mmap_anonymous(null_mut(), length, ProtFlags::empty(), RESERVED) };
        Plain::new(start, length)
    }

    /// Reserves addresses that begin where a huge page can.
    pub fn reserved_aligned(length: usize) -> Result<Plain> {
        let reserved = Plain::reserved(length + HUGE)?;
        let start = reserved.start.map_addr(|addr| addr.next_multiple_of(HUGE));
        // The parts before and after stay reserved.
        std::mem::forget(reserved);
        Ok(Plain { start, length })
    }

    fn new(start: rustix::io::Result<*mut libc::c_void>, length: usize) -> Result<Plain> {
        let start = start.context("mmap")?.cast();
        Ok(Plain { start, length })
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Maps a part of a file, shared, over a part of this.
    pub fn map_at(&self, at: usize, file: impl AsFd, offset: usize, length: usize) -> Result<()> {
        self.map_with(at, file, offset, length, READ_WRITE)
    }

    /// The same, only for reading.
    pub fn map_for_reading_at(
        &self,
        at: usize,
        file: impl AsFd,
        offset: usize,
        length: usize,
    ) -> Result<()> {
        self.map_with(at, file, offset, length, ProtFlags::READ)
    }

    fn map_with(
        &self,
        at: usize,
        file: impl AsFd,
        offset: usize,
        length: usize,
        prot: ProtFlags,
    ) -> Result<()> {
        self.check(at, length)?;
        // SAFETY: The range lies within this mapping, into which no references exist: only
        // raw pointers are given out, and no content is promised behind them.
        let done = unsafe {
            mmap(
                self.start.add(at).cast(),
                length,
                prot,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                offset as u64,
            )
        };
        done.context("mmap MAP_FIXED")?;
        Ok(())
    }

    /// Makes a part of this inaccessible and keeps its addresses reserved, as QEMU does
    /// when a device unmaps.
    pub fn reserve_at(&self, at: usize, length: usize) -> Result<()> {
        self.check(at, length)?;
        let flags = RESERVED | MapFlags::FIXED;
        // SAFETY: As in `map_at()`.
        let done = unsafe {
            let start = self.start.add(at).cast();
            mmap_anonymous(start, length, ProtFlags::empty(), flags)
        };
        done.context("mmap MAP_FIXED")?;
        Ok(())
    }

    /// Unmaps a part of this, which leaves a hole. The caller must not access it, nor let
    /// this process map anything else before it is mapped again.
    pub fn unmap_at(&self, at: usize, length: usize) -> Result<()> {
        self.check(at, length)?;
        // SAFETY: As in `map_at()`.
        unsafe { munmap(self.start.add(at).cast(), length) }.context("munmap")
    }

    /// Maps private memory, zeroed, over a part of this.
    pub fn map_anonymous_at(&self, at: usize, length: usize) -> Result<()> {
        self.check(at, length)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: As in `map_at()`.
        let done = unsafe { mmap_anonymous(self.start.add(at).cast(), length, READ_WRITE, flags) };
        done.context("mmap MAP_FIXED")?;
        Ok(())
    }

    fn check(&self, at: usize, length: usize) -> Result<()> {
        let end = at.checked_add(length);
        ensure!(
            end.is_some_and(|end| end <= self.length),
            "outside of the mapping"
        );
        Ok(())
    }

    /// Asks for huge pages.
    pub fn advise_huge(&self) -> Result<()> {
        self.advise(Advice::LinuxHugepage)
            .context("madvise MADV_HUGEPAGE")
    }

    /// Keeps it out of children that are forked.
    pub fn do_not_inherit(&self) -> Result<()> {
        self.advise(Advice::LinuxDontFork)
            .context("madvise MADV_DONTFORK")
    }

    fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: The range is this mapping, and neither advice changes its content here.
        unsafe { madvise(self.start.cast(), self.length, advice) }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, and nothing borrows from it. If it fails,
        // addresses are lost and nothing else.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}
