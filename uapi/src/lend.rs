// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that a process lends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::call::{call_for_fd, revoke, size_field};
use crate::{Device, Error, Prot, Result, space, sys};

/// A range of a process's own memory, the lender's, that can be
/// [mapped](crate::AddressSpace::map) in address spaces like a file.
///
/// What is lent is the range, and not what is in it at the time: address spaces show
/// what the lender has there at any moment, in both directions, and what it does with
/// `munmap()`, `mmap()`, `mprotect()` and the like has reached everybody when it
/// returns. The lender's exit and its `exec()` end it; so does
/// [`revoke()`](Lend::revoke), but not that a `Lend` is dropped. After a `fork()` the
/// lender is the parent.
///
/// It is given to another process as a file descriptor.
///
/// ```no_run
/// # use address_space::{AddressSpace, Lend, Prot};
/// # use std::ptr::NonNull;
/// # fn main() -> Result<(), address_space::Error> {
/// # let (ram, length) = (NonNull::<u8>::dangling(), 1 << 20);
/// // SAFETY: The memory is a guest's, which is only accessed by volatile copies.
/// let lend = unsafe { Lend::new(ram, length, Prot::READ_WRITE) }?;
/// let space = AddressSpace::new(1 << 30)?;
/// space.map(&lend).at(0).prot(Prot::READ_WRITE).commit()?;
/// // What a device process gets a view of, it has until it is taken back.
/// lend.revoke()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Lend {
    fd: OwnedFd,
}

impl Lend {
    /// Opens the device and lends `length` bytes of this process's memory from `addr`
    /// on, both multiples of the page size, for `prot` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Lend`]: EINVAL if address or length are not multiples of the page
    /// size, the length is 0, the range is beyond what a process can map, or `prot`
    /// has no [`Prot::READ`]; EOPNOTSUPP if it has [`Prot::EXEC`]; ENOMEM, EMFILE,
    /// ENFILE. [`Error::Open`]: see
    /// [`Device::open()`].
    ///
    /// # Safety
    ///
    /// Whoever gets the `Lend` can read whatever this process has in the range until it
    /// is revoked, and write it if `prot` has [`Prot::WRITE`]. So as long as anything
    /// else than raw memory may be there, that must bear it: no reference may lead
    /// there, or only such as allow the memory to change.
    pub unsafe fn new(addr: NonNull<u8>, length: usize, prot: Prot) -> Result<Lend> {
        // SAFETY: By the caller's promise.
        unsafe { Lend::with_device(&Device::open()?, addr, length, prot) }
    }

    /// The same with a device that is open.
    ///
    /// # Errors
    ///
    /// [`Error::Lend`]; see [`new()`](Lend::new).
    ///
    /// # Safety
    ///
    /// As for [`new()`](Lend::new).
    pub unsafe fn with_device(
        device: &Device,
        addr: NonNull<u8>,
        length: usize,
        prot: Prot,
    ) -> Result<Lend> {
        let addr = addr.as_ptr().expose_provenance() as u64;
        Lend::make(device, addr, length as u64, prot)
    }

    /// Opens the device and lends all of this process's memory, whatever it maps now or
    /// later, for `prot` at most. Offsets are then addresses.
    ///
    /// It takes no more than a small part of it does: what is not looked at costs
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Lend`]: EINVAL if `prot` has no [`Prot::READ`]; ENOMEM, EMFILE,
    /// ENFILE. [`Error::Open`]: see [`Device::open()`].
    ///
    /// # Safety
    ///
    /// As for [`new()`](Lend::new). Where `prot` has no [`Prot::WRITE`], others change
    /// nothing here; what they read is theirs to make sense of.
    pub unsafe fn all(prot: Prot) -> Result<Lend> {
        Lend::make(&Device::open()?, 0, 0, prot)
    }

    fn make(device: &Device, addr: u64, length: u64, prot: Prot) -> Result<Lend> {
        let argument = sys::address_space_lend {
            size: size_field::<sys::address_space_lend>(),
            flags: 0,
            prot: prot.bits(),
            __reserved: 0,
            addr,
            length,
        };
        match call_for_fd(device, argument) {
            Ok(fd) => Ok(Lend { fd }),
            Err(errno) => Err(Error::Lend {
                addr,
                length,
                errno,
            }),
        }
    }

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Length`], which does not happen to an open lend.
    pub fn length(&self) -> Result<u64> {
        space::length(self.as_fd())
    }

    /// Takes the memory back: when this returns, no process and no virtual machine can
    /// reach it through any address space, and nobody can map it again.
    ///
    /// # Errors
    ///
    /// [`Error::Revoke`]: EPERM if this process is not the lender.
    pub fn revoke(&self) -> Result<()> {
        revoke(&self.fd).map_err(|errno| Error::Revoke { errno })
    }
}

impl AsFd for Lend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For a lend that another process has sent.
impl From<OwnedFd> for Lend {
    fn from(fd: OwnedFd) -> Self {
        Lend { fd }
    }
}

impl From<Lend> for OwnedFd {
    fn from(lend: Lend) -> Self {
        lend.fd
    }
}
