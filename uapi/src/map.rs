// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A map of a file into an address space: its parameters, and the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::fstat;

use crate::call::{call, size_field};
use crate::{AddressSpace, Error, Prot, Result, page_size, sys};

/// The parameters of a map of a file into an address space: created by
/// [`AddressSpace::map()`].
///
/// The defaults map the whole file, for reading, at an address that the kernel
/// chooses.
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
    /// Start of the range of the file, in bytes, a multiple of the page size. The
    /// default is 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Length of the range in bytes, a multiple of the page size. The range may
    /// extend beyond the end of the file: an access to a page that the file does not
    /// have raises SIGBUS.
    ///
    /// The default is the rest of the file from the offset, rounded up to a page.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Start of the range of the address space, in bytes, a multiple of the page
    /// size.
    pub fn at(mut self, addr: u64) -> Self {
        self.addr = Some(addr);
        self
    }

    /// The kernel chooses the address, aligned for huge pages if possible. This is
    /// the default.
    pub fn anywhere(mut self) -> Self {
        self.addr = None;
        self
    }

    /// The most that any access to the range through this address space may do. The
    /// default is [`Prot::READ`].
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Replaces whatever is mapped in the range, atomically: a reader sees the old
    /// page or the new one, never a hole. Only with [`at()`](Map::at).
    pub fn replace(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_REPLACE;
        self
    }

    /// Brings the file's pages into memory, and installs them in the existing
    /// attachments, so that the next access to them causes no page fault. Best
    /// effort: it does not affect the result of the map.
    pub fn populate(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_POPULATE;
        self
    }

    /// What is written is not written to the file but to copies that belong to this map,
    /// as with `MAP_PRIVATE` of mmap(): so the file need only be open for reading, and may
    /// be sealed. All who use the address space see the one copy; it is given back when
    /// its page is unmapped or replaced. EOPNOTSUPP for hugetlbfs, and for memory that was
    /// lent.
    ///
    /// A virtual machine that may write a page makes a copy of it when it reads: to
    /// share what guests only read, [protect](AddressSpace::protect) the range with
    /// [`Prot::READ`], and allow what a guest writes page by page.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = AddressSpace::new(1 << 30)?;
    /// let snapshot = std::fs::File::open("/var/lib/vm/snapshot")?;
    /// let addr = space.map(&snapshot).private().prot(Prot::READ_WRITE).commit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn private(mut self) -> Self {
        self.flags |= sys::ADDRESS_SPACE_MAP_PRIVATE;
        self
    }

    /// Maps the file, and returns its address in the address space, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], and nothing has changed: EEXIST if something is mapped in
    /// the range; EBADF for a file that is not open; EACCES if its mode does not
    /// allow the protection; EPERM if a seal or a noexec mount does not; ENODEV for
    /// a file that cannot be mapped or whose pages cannot be shown; ELOOP for an
    /// asfd or a view; EINVAL if a number is not a multiple of the page size, the
    /// length is 0, or the range is not within the address space; ENOSPC if no hole
    /// is large enough; EOPNOTSUPP without a place ([`at()`](Map::at)) in a
    /// [`part()`](AddressSpace::part), or for private maps of hugetlbfs and lent memory;
    /// ENOMEM.
    ///
    /// [`Error::FileLength`] if no length was given and the length of the file is
    /// not available.
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

/// The length of a file from `offset`, rounded up to a page. 0 if there is nothing,
/// which the kernel refuses.
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
    fn rest_of_a_file_is_rounded_up_to_pages() {
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
