// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A map of a file into an address space: what is asked for, and the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::fstat;

use crate::call::{call, size_field};
use crate::{AddressSpace, Error, Prot, Result, page_size, sys};

/// A file about to be mapped into an address space: made by
/// [`AddressSpace::map()`].
///
/// Unless told otherwise it maps the whole file, to be read, at an address that
/// the kernel chooses.
#[derive(Clone, Debug)]
#[must_use = "nothing is mapped before commit()"]
pub struct Map<'a> {
    space: &'a AddressSpace,
    file: BorrowedFd<'a>,
    offset: u64,
    length: Option<u64>,
    addr: Option<u64>,
    prot: Prot,
    flags: u32,
}

impl<'a> Map<'a> {
    pub(crate) fn new(space: &'a AddressSpace, file: BorrowedFd<'a>) -> Map<'a> {
        Map {
            space,
            file,
            offset: 0,
            length: None,
            addr: None,
            prot: Prot::READ,
            flags: 0,
        }
    }
}

impl Map<'_> {
    /// From where in the file, in bytes, a multiple of the page size. Else 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// How much, in bytes, a multiple of the page size. It may reach past the
    /// end of the file: accesses to what the file does not have are SIGBUS.
    ///
    /// Else, all of the file from the offset on, its last page whole.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Where in the address space, in bytes, a multiple of the page size.
    pub fn at(mut self, addr: u64) -> Self {
        self.addr = Some(addr);
        self
    }

    /// Wherever the kernel likes, aligned so that huge pages can be used where
    /// the file has them. So it is without [`at()`](Map::at).
    pub fn anywhere(mut self) -> Self {
        self.addr = None;
        self
    }

    /// What may be done to the range, at the most, through this address space.
    /// Else [`Prot::READ`].
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Puts the file in the place of whatever is mapped in the range, all at
    /// once: who looks sees the old or the new, never a hole. Only with
    /// [`at()`](Map::at).
    pub fn replace(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_REPLACE;
        self
    }

    /// Brings the file's pages into memory before it returns, and enters them in
    /// the windows that there are: who touches them next has no page fault. As
    /// far as that is possible; the map stands whatever becomes of it.
    pub fn populate(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_POPULATE;
        self
    }

    /// Maps the file, and returns where in the address space, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], and nothing has changed: EEXIST where something is mapped
    /// in the range; EBADF for a file that is not open; EACCES where its mode
    /// does not allow the protection; EPERM where a seal or a noexec mount does
    /// not; ENODEV for a file that cannot be mapped or whose memory cannot be
    /// shown; ELOOP for an asfd or a view; EINVAL where a number is not of whole
    /// pages, the length 0, or the range leaves the address space; ENOSPC where
    /// no hole is large enough; ENOMEM.
    ///
    /// [`Error::FileLength`] where no length was given and the file does not
    /// tell its own.
    pub fn commit(self) -> Result<u64> {
        let length = match self.length {
            Some(length) => length,
            None => rest_of_file(self.file, self.offset)?,
        };
        let anywhere = match self.addr {
            Some(_) => 0,
            None => sys::ADDRESS_SPACE_MAP_ANYWHERE,
        };
        let mut argument = sys::address_space_mmap {
            size: size_field::<sys::address_space_mmap>(),
            flags: self.flags | anywhere,
            fd: self.file.as_raw_fd(),
            prot: self.prot.bits(),
            offset: self.offset,
            length,
            addr: self.addr.unwrap_or(0),
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(argument.addr),
            Err(errno) => Err(Error::Map {
                addr: self.addr,
                offset: self.offset,
                length,
                errno,
            }),
        }
    }
}

/// From `offset` to the end of a file, its last page whole. 0 where there is
/// nothing: the kernel's to refuse.
fn rest_of_file(file: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    let stat = fstat(file).map_err(|errno| Error::FileLength { errno })?;
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    // A file is at most 2^63 - 1 bytes long, so this cannot overflow.
    Ok(length.saturating_sub(offset).next_multiple_of(page_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::{AsFd, OwnedFd};

    fn file(length: u64) -> OwnedFd {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length).unwrap();
        file
    }

    #[test]
    fn rest_of_a_file_is_whole_pages() {
        let page = page_size();
        let rest = |length, offset| rest_of_file(file(length).as_fd(), offset).unwrap();
        assert_eq!(rest(0, 0), 0);
        assert_eq!(rest(1, 0), page);
        assert_eq!(rest(page, 0), page);
        assert_eq!(rest(page + 1, 0), 2 * page);
        assert_eq!(rest(page + 1, page), page);
        assert_eq!(rest(page, 2 * page), 0);
    }
}
