// SPDX-License-Identifier: GPL-2.0

//! Address spaces with a name: files of a mounted file system, which stand for an asfd.
//!
//! Such a file has no address space until it is given a length, and keeps that for as long as it
//! exists or is used. Who may open it decides its mode, and what it is opened for decides what may
//! be done with it: with a file that is open for reading only nothing can be changed.
//!
//! Locks: the inode's is held by the kernel while a space is made for it; nothing of a space
//! waits for that. Who opens or closes the same file waits meanwhile.

use core::ops::Range;

use kernel::{
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        ArcBorrow,
        SetOnce, //
    },
};

use crate::{
    call::{
        asfd::Asfd,
        request,
        uapi, //
    },
    space::{
        policy::Policy,
        terms::Terms,
        Handle, //
    },
    sys::{
        errno::ENODATA,
        file_operations::{
            Control,
            FileOperations,
            NewVma, //
        },
        mapping::Mapping,
        mount_options::Holes,
        named_files::NamedFile, //
    },
};

/// The state of such a file.
pub(crate) struct Named {
    /// That of the address space, which other files have a part in, too, and so outlives this one.
    mapping: Mapping,
    policy: Policy,
    asfd: SetOnce<Asfd>,
}

impl Named {
    /// `ENODATA` where it has no length yet.
    fn asfd(&self) -> Result<&Asfd> {
        self.asfd.as_ref().ok_or(ENODATA.into())
    }
}

impl NamedFile for Named {
    fn new(mapping: Mapping, holes: Holes) -> Result<Self> {
        let denied = match holes.denied {
            true => uapi::HOLE_DENIED,
            false => 0,
        };
        Ok(Named {
            mapping,
            policy: request::policy(holes.policy | denied)?.unwrap_or(Policy::SIGNAL),
            asfd: SetOnce::new(),
        })
    }

    /// `EPERM` once it has a length; else errors as for [`ADDRESS_SPACE_CREATE`](uapi::CREATE).
    fn resize(&self, bytes: u64) -> Result {
        if bytes == self.size() {
            return Ok(());
        }
        if self.asfd.as_ref().is_some() {
            return Err(EPERM);
        }
        let pages = request::space_pages(bytes)?;
        let id = self.mapping.ino() as u64;
        let handle = Handle::create(pages, self.mapping.share()?)?;
        // The inode is locked, so nobody else does.
        self.asfd.populate(Asfd::new(handle, self.policy, id)?);
        Ok(())
    }
}

impl Control for Named {
    fn size(&self) -> u64 {
        self.asfd.as_ref().map_or(0, Control::size)
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        Control::ioctl(self.asfd()?, file, cmd, arg)
    }

    fn show_fdinfo(&self, out: &SeqFile) {
        if let Some(asfd) = self.asfd.as_ref() {
            asfd.show_fdinfo(out);
        }
    }
}

impl FileOperations for Named {
    type Shown = Terms;

    fn is_writable(&self) -> bool {
        true
    }

    fn shown(&self) -> Result<ArcBorrow<'_, Terms>> {
        // As beyond the end of any other.
        self.asfd().map_err(|_| EINVAL)?.shown()
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn allocated(&self) -> u64 {
        self.asfd.as_ref().map_or(0, FileOperations::allocated)
    }

    fn mmap(&self, new: &NewVma<'_, Terms>, first: u64) -> Result {
        self.asfd()?.mmap(new, first)
    }

    /// That of the space, which the file shows from its start on.
    fn huge_page_offset(&self, first: usize) -> usize {
        first
    }

    fn seek(&self, from: u64, hole: bool) -> Result<u64> {
        self.asfd()?.seek(from, hole)
    }

    fn fsync(&self, bytes: Range<u64>, datasync: bool) -> Result {
        match self.asfd.as_ref() {
            Some(asfd) => asfd.fsync(bytes, datasync),
            None => Ok(()),
        }
    }
}
