// SPDX-License-Identifier: GPL-2.0

//! FUSE_SETUPMAPPING and FUSE_REMOVEMAPPING: from requests to changes of the window.

use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use fuse_backend_rs::abi::virtio_fs::{RemovemappingOne, SetupmappingFlags};
use fuse_backend_rs::api::filesystem::{Context, FileSystem as _};
use fuse_backend_rs::passthrough::PassthroughFs;
use fuse_backend_rs::transport::FsCacheReqHandler;

use super::Share;

/// A FUSE_SETUPMAPPING.
pub(super) struct Setup {
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) flags: u64,
    pub(super) place: u64,
}

impl Share {
    /// Maps a range of a file into the window. ENOSYS without a window.
    pub(super) fn map(&self, context: &Context, setup: &Setup) -> io::Result<()> {
        let write = setup.flags & SetupmappingFlags::WRITE.bits() != 0;
        let place = range(setup.place, setup.length);
        let mut window = self.window().ok_or_else(enosys)?;
        let open = || open(&self.inner, context, setup);
        window.map(setup.inode, setup.offset, place, write, &open)
    }

    /// Unmaps parts of the window, in one step. ENOSYS without a window.
    pub(super) fn unmap(&self, requests: &[RemovemappingOne]) -> io::Result<()> {
        let place = |request: &RemovemappingOne| range(request.moffset, request.len);
        let places: Vec<_> = requests.iter().map(place).collect();
        let mut window = self.window().ok_or_else(enosys)?;
        window.unmap(&places)
    }
}

/// Opens the file that is to be mapped, as the inner file system does it: for this inode, if
/// the guest has looked it up, and for reading or for both.
fn open(inner: &PassthroughFs, context: &Context, setup: &Setup) -> io::Result<OwnedFd> {
    let mut taken = Taken(None);
    let &Setup {
        inode,
        offset,
        length,
        flags,
        place,
    } = setup;
    inner.setupmapping(context, inode, 0, offset, length, flags, place, &mut taken)?;
    taken
        .0
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
}

/// Takes a duplicate of the file that it is told to map.
struct Taken(Option<OwnedFd>);

impl FsCacheReqHandler for Taken {
    fn map(&mut self, _: u64, _: u64, _: u64, _: u64, fd: RawFd) -> io::Result<()> {
        // SAFETY: The caller has the file open while it calls this.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        self.0 = Some(file.try_clone_to_owned()?);
        Ok(())
    }

    fn unmap(&mut self, _: Vec<RemovemappingOne>) -> io::Result<()> {
        Err(enosys())
    }
}

/// The handler that the framework asks for, and which `Share` does without: it knows the
/// inode, and so whether the file is open already.
pub struct NoHandler;

impl FsCacheReqHandler for NoHandler {
    fn map(&mut self, _: u64, _: u64, _: u64, _: u64, _: RawFd) -> io::Result<()> {
        Err(enosys())
    }

    fn unmap(&mut self, _: Vec<RemovemappingOne>) -> io::Result<()> {
        Err(enosys())
    }
}

/// A range that the guest gave, which may be nonsense: then it is empty, and refused.
fn range(start: u64, length: u64) -> Range<u64> {
    start..start.checked_add(length).unwrap_or(start)
}

fn enosys() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_that_overflows_is_empty() {
        assert_eq!(range(0x1000, 0x2000), 0x1000..0x3000);
        assert!(range(u64::MAX, 2).is_empty());
    }

    #[test]
    fn file_to_map_is_duplicated() {
        use std::fs::File;
        use std::os::fd::AsRawFd as _;
        let file = File::open("/dev/null").unwrap();
        let mut taken = Taken(None);
        taken.map(0, 0, 0, 0, file.as_raw_fd()).unwrap();
        drop(file);
        assert!(File::from(taken.0.unwrap()).metadata().is_ok());
    }
}
