// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A registration of a file with an address space: its parameters, and the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::{call, size_field};
use crate::{AddressSpace, Errno, Error, Prot, Result, sys};

/// The parameters of a registration of a file: created by
/// [`AddressSpace::register()`].
///
/// The defaults register the whole file, for reading.
#[derive(Clone, Debug)]
#[must_use = "nothing is registered before commit()"]
pub struct Registration<'a> {
    space: &'a AddressSpace,
    file: BorrowedFd<'a>,
    offset: u64,
    length: Option<u64>,
    prot: Prot,
    flags: u32,
}

impl<'a> Registration<'a> {
    pub(crate) fn new(space: &'a AddressSpace, file: BorrowedFd<'a>) -> Registration<'a> {
        Registration {
            space,
            file,
            offset: 0,
            length: None,
            prot: Prot::READ,
            flags: 0,
        }
    }
}

impl Registration<'_> {
    /// Start of the range of the file, in bytes, a multiple of the page size. The
    /// default is 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Length of the range in bytes, a multiple of the page size. The default is
    /// the range from the offset to the present end of the file.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// The most that later maps of the range will ask for. The default is
    /// [`Prot::READ`].
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Brings the pages into memory before [`commit()`](Registration::commit)
    /// returns. Best effort.
    pub fn populate(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_REGISTER_POPULATE;
        self
    }

    /// The range has one set of private copies, which belong to the registration: all
    /// later [private](crate::Map::private) maps within it share them, and they stay when
    /// what is mapped is unmapped. Those of pages that are not mapped are given back when
    /// the registration ends.
    pub fn private(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_REGISTER_PRIVATE;
        self
    }

    /// Registers the file.
    ///
    /// # Errors
    ///
    /// [`Error::Register`]: as for a map of the file (EBADF, EACCES, EPERM,
    /// ENODEV, ELOOP, EINVAL, EOPNOTSUPP, ENOMEM), and EINVAL if no length was given and the
    /// file ends at or before the offset.
    pub fn commit(self) -> Result<()> {
        let error = |errno| Error::Register {
            offset: self.offset,
            length: self.length,
            errno,
        };
        if self.length == Some(0) {
            // For the kernel, 0 means "to the end of the file".
            return Err(error(Errno::INVAL));
        }
        let mut argument = sys::address_space_register {
            size: size_field::<sys::address_space_register>(),
            flags: self.flags,
            fd: self.file.as_raw_fd(),
            prot: self.prot.bits(),
            offset: self.offset,
            length: self.length.unwrap_or(0),
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(error(errno)),
        }
    }
}
