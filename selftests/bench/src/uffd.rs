// SPDX-License-Identifier: GPL-2.0

//! userfaultfd on a mapping of a memfd: what programs have today for memory that comes as it
//! is touched.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail, ensure};
use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_MINOR_SHMEM, UFFD_FEATURE_MISSING_SHMEM,
    UFFDIO_REGISTER_MODE_MINOR, UFFDIO_REGISTER_MODE_MISSING, uffd_msg, uffdio_api,
    uffdio_continue, uffdio_copy, uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_CONTINUE, UFFDIO_COPY, UFFDIO_REGISTER};
use rig::plain::Plain;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

/// What the file lacks, and so how a page comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pages: UFFDIO_COPY makes them.
    Copy,
    /// Entries in the page table: UFFDIO_CONTINUE installs them.
    Continue,
}

/// A mapping whose first touches are told.
pub struct Uffd<'a> {
    fd: OwnedFd,
    memory: &'a Plain,
}

impl<'a> Uffd<'a> {
    /// Registers all of a mapping of a memfd, which is not populated. Accesses by the kernel,
    /// as KVM's, are told too.
    pub fn new(memory: &'a Plain, mode: Mode) -> Result<Uffd<'a>> {
        // SAFETY: Whoever touches the memory waits for this program, which serves it.
        let fd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.context("userfaultfd")?;
        let uffd = Uffd { fd, memory };
        let (features, mode) = match mode {
            Mode::Copy => (UFFD_FEATURE_MISSING_SHMEM, UFFDIO_REGISTER_MODE_MISSING),
            // Pages that the file lacks are told too: the manager writes them to the file.
            Mode::Continue => (
                UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM,
                UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
            ),
        };
        uffd.call::<{ UFFDIO_API }, _>(uffdio_api {
            api: UFFD_API.into(),
            features: features.into(),
            ioctls: 0,
        })?
        .context("UFFDIO_API")?;
        uffd.call::<{ UFFDIO_REGISTER }, _>(uffdio_register {
            range: range(memory, 0, memory.length()),
            mode: mode.into(),
            ioctls: 0,
        })?
        .context("UFFDIO_REGISTER")?;
        Ok(uffd)
    }

    /// Waits for a touch of a page, and returns its offset.
    pub fn next(&self) -> Result<usize> {
        let mut bytes = [0; size_of::<uffd_msg>()];
        let length = rustix::io::read(&self.fd, &mut bytes).context("read of a userfaultfd")?;
        ensure!(length == bytes.len(), "half a message");
        ensure!(
            u32::from(bytes[0]) == UFFD_EVENT_PAGEFAULT,
            "event {}",
            bytes[0]
        );
        // After the event: flags, and then the address.
        let address = u64::from_ne_bytes(std::array::from_fn(|index| bytes[16 + index]));
        Ok(address as usize - self.memory.as_ptr() as usize)
    }

    /// Makes pages of `bytes`, and wakes who waits for them. Those that are there stay.
    pub fn copy(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let done = self.call::<{ UFFDIO_COPY }, _>(uffdio_copy {
            dst: range(self.memory, at, bytes.len()).start,
            src: bytes.as_ptr() as u64,
            len: bytes.len() as u64,
            mode: 0,
            copy: 0,
        })?;
        unless_there(done).context("UFFDIO_COPY")
    }

    /// Installs pages of the file, and wakes who waits for them. Those that are there stay.
    pub fn proceed(&self, at: usize, length: usize) -> Result<()> {
        let done = self.call::<{ UFFDIO_CONTINUE }, _>(uffdio_continue {
            range: range(self.memory, at, length),
            mode: 0,
            mapped: 0,
        })?;
        unless_there(done).context("UFFDIO_CONTINUE")
    }

    fn call<const OPCODE: Opcode, T>(&self, mut argument: T) -> Result<rustix::io::Result<()>> {
        // SAFETY: The structs are those of these opcodes. What the kernel writes outside of
        // them is pages of a mapping into which no references exist.
        Ok(unsafe {
            let update = Updater::<OPCODE, T>::new(&mut argument);
            ioctl(&self.fd, update)
        })
    }
}

fn unless_there(done: rustix::io::Result<()>) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => bail!(error),
    }
}

fn range(memory: &Plain, at: usize, length: usize) -> uffdio_range {
    uffdio_range {
        start: (memory.as_ptr() as usize + at) as u64,
        len: length as u64,
    }
}
