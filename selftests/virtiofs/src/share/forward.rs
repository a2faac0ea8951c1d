// SPDX-License-Identifier: GPL-2.0

//! Which request comes to what: most are those of the inner file system, without a handle.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, stat64, statvfs64};
use fuse_backend_rs::abi::virtio_fs::RemovemappingOne;
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, OpenOptions, SetattrValid, ZeroCopyReader,
    ZeroCopyWriter,
};
use fuse_backend_rs::transport::FsCacheReqHandler;

use super::Share;
use super::mapping::Setup;

/// What a guest gets for a handle, and what the inner file system gets.
const NO_HANDLE: u64 = 0;

/// A guest's flags of an open file, as far as they concern the host. The guest's O_DIRECT is
/// about the guest's cache, and the host's would not work with every memory of a guest.
fn flags(of_guest: u32) -> u32 {
    of_guest & !(libc::O_DIRECT as u32)
}

/// A new file, which is open, comes with these.
type Created = (Entry, Option<u64>, OpenOptions, Option<u32>);

impl FileSystem for Share {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.begin(capable)
    }

    fn destroy(&self) {
        self.end();
    }

    fn lookup(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.looked_up(parent, name, || self.inner.lookup(context, parent, name))
    }

    fn forget(&self, context: &Context, inode: u64, count: u64) {
        self.forgotten(context, &[(inode, count)]);
    }

    fn batch_forget(&self, context: &Context, requests: Vec<(u64, u64)>) {
        self.forgotten(context, &requests);
    }

    fn getattr(
        &self,
        context: &Context,
        inode: u64,
        _: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        self.inner.getattr(context, inode, None)
    }

    fn setattr(
        &self,
        context: &Context,
        inode: u64,
        attributes: stat64,
        _: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.inner.setattr(context, inode, attributes, None, valid)
    }

    fn readlink(&self, context: &Context, inode: u64) -> io::Result<Vec<u8>> {
        self.inner.readlink(context, inode)
    }

    fn symlink(
        &self,
        context: &Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.made(context, parent, name, || {
            self.inner.symlink(context, target, parent, name)
        })
    }

    fn mknod(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        device: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.made(context, parent, name, || {
            self.inner.mknod(context, parent, name, mode, device, umask)
        })
    }

    fn mkdir(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.made(context, parent, name, || {
            self.inner.mkdir(context, parent, name, mode, umask)
        })
    }

    fn unlink(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.removed(parent, name, || self.inner.unlink(context, parent, name))
    }

    fn rmdir(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.removed(parent, name, || self.inner.rmdir(context, parent, name))
    }

    fn rename(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        new_parent: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        let from = (parent, name);
        self.renamed(from, (new_parent, new_name), flags, || {
            self.inner
                .rename(context, parent, name, new_parent, new_name, flags)
        })
    }

    fn link(&self, context: &Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.linked(context, parent, name, || {
            self.inner.link(context, inode, parent, name)
        })
    }

    fn open(
        &self,
        _: &Context,
        _: u64,
        flags: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let access = flags as i32 & libc::O_ACCMODE;
        if self.readonly && access != libc::O_RDONLY {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        // What the guest has of the file is checked by size and time (AUTO_INVAL_DATA), and
        // in the window there is nothing to check.
        Ok((Some(NO_HANDLE), OpenOptions::KEEP_CACHE, None))
    }

    fn release(
        &self,
        _: &Context,
        _: u64,
        _: u32,
        _: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        arguments: CreateIn,
    ) -> io::Result<Created> {
        let arguments = CreateIn {
            flags: flags(arguments.flags),
            ..arguments
        };
        let entry = self.made(context, parent, name, || {
            let (entry, ..) = self.inner.create(context, parent, name, arguments)?;
            Ok(entry)
        })?;
        Ok((entry, Some(NO_HANDLE), OpenOptions::KEEP_CACHE, None))
    }

    fn read(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        into: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        of_guest: u32,
    ) -> io::Result<usize> {
        let flags = flags(of_guest);
        self.inner
            .read(context, inode, NO_HANDLE, into, size, offset, owner, flags)
    }

    fn write(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        delayed: bool,
        of_guest: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        let flags = flags(of_guest);
        self.inner.write(
            context, inode, NO_HANDLE, from, size, offset, owner, delayed, flags, fuse_flags,
        )
    }

    fn fsync(&self, context: &Context, inode: u64, data_only: bool, _: u64) -> io::Result<()> {
        self.inner.fsync(context, inode, data_only, NO_HANDLE)
    }

    fn fallocate(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.inner
            .fallocate(context, inode, NO_HANDLE, mode, offset, length)
    }

    fn lseek(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.inner.lseek(context, inode, NO_HANDLE, offset, whence)
    }

    fn statfs(&self, context: &Context, inode: u64) -> io::Result<statvfs64> {
        self.inner.statfs(context, inode)
    }

    fn access(&self, context: &Context, inode: u64, mask: u32) -> io::Result<()> {
        self.inner.access(context, inode, mask)
    }

    fn opendir(&self, _: &Context, _: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(NO_HANDLE), OpenOptions::empty()))
    }

    fn releasedir(&self, _: &Context, _: u64, _: u32, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn readdir(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.inner
            .readdir(context, inode, NO_HANDLE, size, offset, add)
    }

    fn readdirplus(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.listed(context, inode, size, offset, add)
    }

    fn fsyncdir(&self, context: &Context, inode: u64, data_only: bool, _: u64) -> io::Result<()> {
        self.inner.fsyncdir(context, inode, data_only, NO_HANDLE)
    }

    fn setupmapping(
        &self,
        context: &Context,
        inode: u64,
        _: u64,
        offset: u64,
        length: u64,
        flags: u64,
        place: u64,
        _: &mut dyn FsCacheReqHandler,
    ) -> io::Result<()> {
        let setup = Setup {
            inode,
            offset,
            length,
            flags,
            place,
        };
        self.map(context, &setup)
    }

    fn removemapping(
        &self,
        _: &Context,
        _: u64,
        requests: Vec<RemovemappingOne>,
        _: &mut dyn FsCacheReqHandler,
    ) -> io::Result<()> {
        self.unmap(&requests)
    }
}
