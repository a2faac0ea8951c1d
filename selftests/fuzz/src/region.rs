// SPDX-License-Identifier: GPL-2.0

//! The region of addresses for the attachments of a process: it is the same in each process,
//! and nothing else is in it, so that any access to it is safe.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap_fixed,
};

use crate::op::*;
use crate::probe;

/// Far from the addresses that the kernel chooses.
const BASE: u64 = 0x6000_0000_0000;

/// The region of this process. There is only one, for as long as the process exists.
pub struct Region {
    /// Where system calls copy to and from.
    scratch: Option<OwnedFd>,
}

impl Region {
    /// Reserves the region, and empties it.
    pub fn new() -> Result<Region> {
        let region = Region { scratch: None };
        region
            .reserve(Span::new(0, PLACES * PLACE_PAGES))
            .context("cannot reserve addresses for attachments")?;
        Ok(region)
    }

    /// The region in a forked child, which inherits its content.
    pub fn forked() -> Region {
        Region { scratch: None }
    }

    /// The address of a page of it.
    pub fn address(page: u64) -> u64 {
        BASE + page * PAGE
    }

    fn addr(page: u64) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(Self::address(page) as usize)
    }

    fn length(at: Span) -> usize {
        (at.count * PAGE) as usize
    }

    /// Makes a part of it inaccessible, and keeps it reserved.
    fn reserve(&self, at: Span) -> rustix::io::Result<()> {
        // SAFETY: The region is reserved for attachments, which only probes access.
        unsafe {
            mmap_anonymous(
                Self::addr(at.start),
                Self::length(at),
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )?;
        }
        Ok(())
    }

    /// Maps a part of an asfd or view.
    pub fn attach(
        &self,
        fd: BorrowedFd<'_>,
        at: Span,
        prot: u32,
        place: u64,
    ) -> rustix::io::Result<()> {
        let target = Span::new(place, at.count);
        // What is there is unmapped first, so that it is gone even if the rest fails.
        self.reserve(target)?;
        // SAFETY: As in `reserve()`.
        unsafe {
            mmap(
                Self::addr(place),
                Self::length(target),
                ProtFlags::from_bits_retain(prot),
                MapFlags::SHARED | MapFlags::FIXED,
                fd,
                at.start * PAGE,
            )
        }
        .inspect_err(|_| {
            // A failed mmap() may leave a hole, into which another mapping could be put.
            let _ = self.reserve(target);
        })?;
        Ok(())
    }

    pub fn detach(&self, at: Span) -> rustix::io::Result<()> {
        self.reserve(at)
    }

    pub fn mprotect(&self, at: Span, prot: u32) -> rustix::io::Result<()> {
        let prot = MprotectFlags::from_bits_retain(prot);
        // SAFETY: As in `reserve()`.
        unsafe { mprotect(Self::addr(at.start), Self::length(at), prot) }
    }

    pub fn mremap(&self, at: Span, to: u64) -> rustix::io::Result<()> {
        let length = Self::length(at);
        // SAFETY: As in `reserve()`.
        unsafe {
            mremap_fixed(
                Self::addr(at.start),
                length,
                length,
                MremapFlags::MAYMOVE,
                Self::addr(to),
            )?;
        }
        self.reserve(at)
    }

    pub fn touch(&mut self, touches: &[Touch]) -> Result<Vec<Touched>> {
        touches
            .iter()
            .map(|touch| {
                let addr = Self::address(touch.page) + touch.cell * CELL;
                Ok(match touch.access {
                    Access::Load => probe::load(addr),
                    // SAFETY: As in `reserve()`.
                    Access::Store(value) => unsafe { probe::store(addr, value) },
                    Access::CopyFrom => self.copy_from(addr)?,
                    Access::CopyTo(value) => self.copy_to(addr, value)?,
                    Access::DebugFrom => Self::debug_from(addr)?,
                    Access::DebugTo(value) => Self::debug_to(addr, value)?,
                    Access::Futex => Self::futex(addr)?,
                })
            })
            .collect()
    }

    fn debug_from(addr: u64) -> Result<Touched> {
        let mut word = [0; 8];
        match own_memory()?.read_exact_at(&mut word, addr) {
            Ok(()) => Ok(Touched::Value(u64::from_ne_bytes(word))),
            Err(error) => fault(error),
        }
    }

    fn debug_to(addr: u64, value: u64) -> Result<Touched> {
        // The region is reserved for attachments, which only probes access.
        match own_memory()?.write_all_at(&value.to_ne_bytes(), addr) {
            Ok(()) => Ok(Touched::Stored),
            Err(error) => fault(error),
        }
    }

    fn futex(addr: u64) -> Result<Touched> {
        let word = 0u32;
        // FUTEX_OP_ADD 0, compared with 0, of which nothing depends.
        let operation = 1 << 28;
        // SAFETY: The kernel wakes nobody at one word, and reads and writes the other, or fails.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_futex,
                &raw const word,
                libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
                1,
                1,
                addr,
                operation,
            )
        };
        match ret {
            0 => Ok(probe::load(addr)),
            _ => fault(std::io::Error::last_os_error()),
        }
    }

    fn scratch(&mut self) -> Result<BorrowedFd<'_>> {
        if self.scratch.is_none() {
            let file = memfd_create("scratch", MemfdFlags::CLOEXEC).context("memfd_create")?;
            self.scratch = Some(file);
        }
        Ok(self.scratch.as_ref().context("no file")?.as_fd())
    }

    fn copy_from(&mut self, addr: u64) -> Result<Touched> {
        let file = self.scratch()?;
        let from = std::ptr::with_exposed_provenance::<libc::c_void>(addr as usize);
        // SAFETY: The kernel reads eight bytes there, or fails.
        if let Err(error) = copied(unsafe { libc::pwrite(file.as_raw_fd(), from, 8, 0) }) {
            return fault(error);
        }
        let mut word = [0; 8];
        rustix::io::pread(file, &mut word, 0).context("pread")?;
        Ok(Touched::Value(u64::from_ne_bytes(word)))
    }

    fn copy_to(&mut self, addr: u64, value: u64) -> Result<Touched> {
        let file = self.scratch()?;
        rustix::io::pwrite(file, &value.to_ne_bytes(), 0).context("pwrite")?;
        let to = std::ptr::with_exposed_provenance_mut::<libc::c_void>(addr as usize);
        // SAFETY: The region is reserved for attachments, which only probes access.
        match copied(unsafe { libc::pread(file.as_raw_fd(), to, 8, 0) }) {
            Ok(()) => Ok(Touched::Stored),
            Err(error) => fault(error),
        }
    }
}

/// This process's memory; not that of the process from which it was forked.
fn own_memory() -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .context("/proc/self/mem")
}

/// Whether eight bytes were copied.
fn copied(length: isize) -> Result<(), std::io::Error> {
    match length {
        8 => Ok(()),
        0.. => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn fault(error: std::io::Error) -> Result<Touched> {
    match error.raw_os_error() {
        // EIO: from /proc/self/mem.
        Some(libc::EFAULT | libc::EIO) => Ok(Touched::Fault),
        _ => Err(error).context("copying from or to an attachment"),
    }
}

/// The result of a system call.
pub fn seen(result: Result<(), Errno>) -> Seen {
    match result {
        Ok(()) => Seen::Done,
        Err(errno) => Seen::Errno(errno.raw_os_error()),
    }
}
