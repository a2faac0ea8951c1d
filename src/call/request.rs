// SPDX-License-Identifier: GPL-2.0

//! What is asked of an asfd, alone or in a batch: checked as far as it can be without the
//! file, and the file itself.
//!
//! Takes no lock. How structs are read is in `uapi.rs`.

use core::ops::Range;

use kernel::{
    fs::{
        file::LocalFile,
        File, //
    },
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    call::{
        file,
        uapi, //
    },
    layout::Prot,
    space::change::{
        Change,
        Kind, //
    },
};

/// What a map asks for, checked as far as it can be without the file.
pub(crate) struct MapRequest {
    pub(crate) fd: i32,
    /// Pages of the file.
    pub(crate) part: Range<u64>,
    /// Pages of the space; without meaning where the kernel is to choose.
    pub(crate) target: Range<u64>,
    pub(crate) prot: Prot,
    pub(crate) replace: bool,
    pub(crate) populate: bool,
}

impl MapRequest {
    /// Checks the values of a map in a space of `limit` pages. `EOPNOTSUPP` for flags that
    /// are not in `known`.
    pub(crate) fn check(op: &uapi::Op, known: u32, limit: u64) -> Result<MapRequest> {
        uapi::only(op.flags, known)?;
        let prot = uapi::prot(op.prot)?;
        let part = uapi::range(op.offset, op.length)?;
        let target = uapi::range_within(op.addr, op.length, limit)?;
        // No file is longer.
        if op.offset + op.length > i64::MAX as u64 {
            return Err(EOVERFLOW);
        }
        Ok(MapRequest {
            fd: op.fd,
            part,
            target,
            prot,
            replace: op.flags & uapi::MAP_REPLACE != 0,
            populate: op.flags & uapi::MAP_POPULATE != 0,
        })
    }

    /// The change, for the first of the pinned segments.
    pub(crate) fn change(&self) -> Change {
        Change {
            pages: self.target.clone(),
            kind: Kind::Map {
                first: self.part.start,
                segment: 0,
                prot: self.prot,
                replace: self.replace,
                populate: self.populate,
            },
        }
    }
}

/// The file that an fd of the caller stands for; `EBADF`, and `ELOOP` for an address
/// space, which cannot be mapped in one.
pub(crate) fn regular_file(fd: i32) -> Result<ARef<File>> {
    let file = any_file(fd)?;
    if file::is_space_file(&file) {
        return Err(ELOOP);
    }
    Ok(file)
}

/// The file that an fd of the caller stands for; `EBADF`.
pub(crate) fn any_file(fd: i32) -> Result<ARef<File>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    let file = LocalFile::fget(fd)?;
    // SAFETY: An ioctl does not hold a file position.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
}
