// SPDX-License-Identifier: GPL-2.0

//! Files to map, plain mappings of them, and touching what is mapped.

use std::fs::File;
use std::os::fd::AsFd;
use std::ptr::null_mut;

use address_space::Prot;
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

pub const PAGE: usize = 4096;
pub const HUGE: usize = 2 << 20;
pub const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

/// A memfd of `length` bytes, none of which is in memory.
pub fn sparse(length: usize) -> Result<File> {
    let file = memfd_create("bench", MemfdFlags::CLOEXEC).context("memfd_create")?;
    ftruncate(&file, length as u64).context("ftruncate")?;
    Ok(file.into())
}

/// A memfd of `length` bytes, all of which are in memory.
pub fn resident(length: usize) -> Result<File> {
    let file = sparse(length)?;
    fallocate(&file, FallocateFlags::empty(), 0, length as u64).context("fallocate")?;
    Ok(file)
}

/// A plain mapping.
pub struct Plain {
    start: *mut u8,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread.
unsafe impl Send for Plain {}
// SAFETY: As above; what can be done with a shared one are system calls.
unsafe impl Sync for Plain {}

impl Plain {
    /// Of a file, from `offset` on.
    pub fn of(file: impl AsFd, offset: usize, length: usize) -> Result<Plain> {
        // SAFETY: A new mapping in a place that the kernel chooses.
        let start = unsafe {
            mmap(
                null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset as u64,
            )
        };
        Ok(Plain {
            start: start.context("mmap")?.cast(),
            length,
        })
    }

    /// A place where nothing can be accessed, and no mapping can join another.
    pub fn nothing(length: usize) -> Result<Plain> {
        // SAFETY: As above.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        Ok(Plain {
            start: start.context("mmap")?.cast(),
            length,
        })
    }

    /// As that, where the kernel would put huge pages.
    pub fn aligned(length: usize) -> Result<Plain> {
        let nothing = Plain::nothing(length + HUGE)?;
        let start = nothing.start.map_addr(|addr| addr.next_multiple_of(HUGE));
        // What is before and after stays, a piece of nothing.
        std::mem::forget(nothing);
        Ok(Plain { start, length })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// Maps a piece of a file over a piece of this.
    pub fn replace(&self, at: usize, file: impl AsFd, offset: usize, length: usize) -> Result<()> {
        ensure!(at + length <= self.length, "outside of the mapping");
        // SAFETY: Within this mapping, of which there is no reference, only accesses
        // that read what they find.
        let done = unsafe {
            mmap(
                self.start.add(at).cast(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                offset as u64,
            )
        };
        done.context("mmap MAP_FIXED")?;
        Ok(())
    }

    /// Leaves a hole in a piece of this, which nobody may touch.
    pub fn remove(&self, at: usize, length: usize) -> Result<()> {
        ensure!(at + length <= self.length, "outside of the mapping");
        // SAFETY: As in `replace()`. Something else may come to lie there only if this
        // process maps it, and it maps nothing while there are holes.
        unsafe { munmap(self.start.add(at).cast(), length) }.context("munmap")
    }

    /// Asks for huge pages.
    pub fn advise_huge(&self) -> Result<()> {
        // SAFETY: This changes nothing that can be read there.
        unsafe { madvise(self.start.cast(), self.length, Advice::LinuxHugepage) }
            .context("madvise MADV_HUGEPAGE")
    }

    /// Has nobody access a piece of this any more, as QEMU does where a device unmaps.
    pub fn forbid(&self, at: usize, length: usize) -> Result<()> {
        ensure!(at + length <= self.length, "outside of the mapping");
        // SAFETY: As in `replace()`.
        let done = unsafe {
            mmap_anonymous(
                self.start.add(at).cast(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        done.context("mmap MAP_FIXED")?;
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: Nobody uses it any more.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

/// How a page is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Read,
    Write,
}

/// Touches one word.
///
/// # Safety
///
/// There must be memory at `at`, writable if it is to be written.
pub unsafe fn touch(at: *mut u8, how: Touch) {
    let word = at.cast::<u64>();
    // SAFETY: By the caller.
    unsafe {
        match how {
            Touch::Read => drop(word.read_volatile()),
            Touch::Write => word.write_volatile(1),
        }
    }
}

/// Touches each page of some memory, in the order given.
///
/// # Safety
///
/// As for [`touch()`], at each page.
pub unsafe fn touch_pages(start: *mut u8, pages: &[u32], how: Touch) {
    for &page in pages {
        // SAFETY: By the caller.
        unsafe { touch(start.add(page as usize * PAGE), how) };
    }
}

/// The numbers below `count`, in their order.
pub fn in_order(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

/// The numbers below `count`, in an order that nobody can guess, but the same each time.
pub fn shuffled(count: usize) -> Vec<u32> {
    let mut numbers = in_order(count);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..count).rev() {
        // xorshift64: good enough to hide the order from a kernel.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(last, (state % (last as u64 + 1)) as usize);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_numbers_are_all_there_once() {
        let mut numbers = shuffled(1000);
        assert_ne!(numbers, in_order(1000));
        numbers.sort_unstable();
        assert_eq!(numbers, in_order(1000));
    }
}
