// SPDX-License-Identifier: GPL-2.0

//! The checks of what user space passes: values, ranges, files. Everything that is wrong by itself
//! is refused here, with the errno of the contract, before anything is changed.
//!
//! Takes no lock.

use core::ops::Range;

use kernel::{
    fs::File,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

use crate::{
    call::{
        file::SpaceFile,
        uapi, //
    },
    layout::{
        FilePage,
        Prot,
        SpacePage, //
    },
    space::{
        change::{
            Change,
            Kind, //
        },
        policy::{
            OnHole,
            Policy, //
        },
        Space, //
    },
    sys::{
        bindings,
        errno::EOPNOTSUPP,
        file,
        task, //
    },
};

/// `EOPNOTSUPP` for a flag, or for what must be zero, that is not in `known`.
pub(crate) fn reject_unknown_flags(flags: u32, known: u32) -> Result {
    if flags & !known != 0 {
        return Err(EOPNOTSUPP.into());
    }
    Ok(())
}

/// `EBADF` for a file that is not open for writing: it only shows the space.
pub(crate) fn may_change(file: &File) -> Result {
    match file.flags() & bindings::O_ACCMODE {
        bindings::O_RDONLY => Err(EBADF),
        _ => Ok(()),
    }
}

/// A number of bytes that must be whole pages: `EINVAL`.
pub(crate) fn pages(bytes: u64) -> Result<u64> {
    if bytes % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    Ok(bytes >> PAGE_SHIFT)
}

/// The pages of a space of so many bytes: `EINVAL`.
pub(crate) fn space_pages(bytes: u64) -> Result<u64> {
    if bytes == 0 || bytes > uapi::MAX_LENGTH {
        return Err(EINVAL);
    }
    pages(bytes)
}

/// First page and number of pages of a range that is not empty: `EINVAL`; `EOVERFLOW` where it
/// leaves the 64 bits.
fn first_and_count(start: u64, length: u64) -> Result<(u64, u64)> {
    start.checked_add(length).ok_or(EOVERFLOW)?;
    let (first, count) = (pages(start)?, pages(length)?);
    if count == 0 {
        return Err(EINVAL);
    }
    Ok((first, count))
}

/// The pages of a range of guest-physical memory, or the like, that is not empty: errors as for
/// [`first_and_count`].
pub(crate) fn check_range(start: u64, length: u64) -> Result {
    first_and_count(start, length).map(|_| ())
}

/// The pages of a range of a file that is not empty: `EINVAL`; `EOVERFLOW` where it leaves the 64
/// bits.
pub(crate) fn file_range(start: u64, length: u64) -> Result<Range<FilePage>> {
    let (first, count) = first_and_count(start, length)?;
    let first = FilePage::new(first);
    Ok(first..first + count)
}

/// That a file can have so many bytes from `offset` on: `EOVERFLOW`. None is longer than an
/// [`i64`] says, and with more an arena's addresses could not be counted.
pub(crate) fn check_end_in_file(offset: u64, length: u64) -> Result {
    match offset.checked_add(length) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(EOVERFLOW),
    }
}

/// The part of a space that a file shows, and of which its calls speak: their offsets begin with
/// it.
pub(crate) struct Part {
    first: SpacePage,
    pages: u64,
    prot: Prot,
}

impl Part {
    /// That of an inode's files, for no more than `file` is open for.
    pub(crate) fn of(inode: &impl SpaceFile, file: &File) -> Part {
        let open_for = match file.flags() & bindings::O_ACCMODE {
            bindings::O_RDWR => Prot::READ | Prot::WRITE | Prot::EXEC,
            bindings::O_RDONLY => Prot::READ | Prot::EXEC,
            // Nothing can be mapped of it.
            _ => Prot::NONE,
        };
        Part {
            first: inode.terms().first,
            pages: inode.pages(),
            prot: inode.prot() & open_for,
        }
    }

    /// Its first page.
    pub(crate) fn first(&self) -> SpacePage {
        self.first
    }

    /// The most that it allows.
    pub(crate) fn limit(&self) -> Prot {
        self.prot
    }

    /// Whether it is the whole space.
    pub(crate) fn is_all_of(&self, space: &Space) -> bool {
        self.pages == space.pages
    }

    /// The pages of a range that is not empty, within the part: `EINVAL`; `EOVERFLOW` where it
    /// leaves the 64 bits.
    pub(crate) fn range(&self, start: u64, length: u64) -> Result<Range<SpacePage>> {
        let (first, count) = first_and_count(start, length)?;
        if first + count > self.pages {
            return Err(EINVAL);
        }
        let first = self.first + first;
        Ok(first..first + count)
    }

    /// Protection bits, errors as for [`prot`]; `EACCES` for more than the file allows.
    pub(crate) fn prot(&self, bits: u32) -> Result<Prot> {
        let prot = prot(bits)?;
        if !self.prot.contains(prot) {
            return Err(EACCES);
        }
        Ok(prot)
    }
}

/// Protection bits: `EINVAL` for unknown ones, and for writing or executing without reading,
/// which no page table entry can say.
pub(super) fn prot(bits: u32) -> Result<Prot> {
    let prot = Prot::from_bits(bits).ok_or(EINVAL)?;
    if prot != Prot::NONE && !prot.contains(Prot::READ) {
        return Err(EINVAL);
    }
    Ok(prot)
}

/// The policy that flags name, of which all but [`uapi::HOLE_FLAGS`] are ignored; [`None`] where
/// there are none. `EINVAL` for those that contradict each other, `EPERM` for what the caller may
/// not choose.
pub(crate) fn policy(flags: u32) -> Result<Option<Policy>> {
    let denied = flags & uapi::HOLE_DENIED != 0;
    let kernel = flags & uapi::HOLE_KERNEL != 0;
    let one = uapi::HOLE_FLAGS & !uapi::HOLE_DENIED & !uapi::HOLE_KERNEL;
    let on_hole = match flags & one {
        0 if !denied && !kernel => return Ok(None),
        uapi::HOLE_SIGNAL if !denied && !kernel => OnHole::Signal,
        uapi::HOLE_ABSORB if !kernel => OnHole::Absorb,
        uapi::HOLE_WAIT => OnHole::Wait { kernel },
        _ => return Err(EINVAL),
    };
    // A task that waits in the kernel may hold locks of other tasks' files.
    if kernel && !task::may_trace_any() {
        return Err(EPERM);
    }
    Ok(Some(Policy { on_hole, denied }))
}

/// How many bytes, in whole pages, a file has from `offset` on. `EINVAL` for none.
pub(crate) fn rest_of_file(file: &File, offset: u64) -> Result<u64> {
    let size = file::size(file);
    let end = size
        .checked_next_multiple_of(PAGE_SIZE as u64)
        .ok_or(EOVERFLOW)?;
    match end.checked_sub(offset) {
        Some(length) if length > 0 => Ok(length),
        _ => Err(EINVAL),
    }
}

/// What a map asks for, checked as far as it can be without the file.
pub(crate) struct MapRequest {
    pub(crate) fd: i32,
    /// Pages of the file.
    pub(crate) part: Range<FilePage>,
    /// Pages of the space; without meaning where the kernel is to choose.
    pub(crate) target: Range<SpacePage>,
    pub(crate) prot: Prot,
    pub(crate) private: bool,
    replace: bool,
    populate: bool,
}

impl MapRequest {
    /// Checks the values of a map in a part of a space. `EOPNOTSUPP` for flags that are not in
    /// `known`; `EOVERFLOW` for what no file can have.
    pub(crate) fn check(op: &uapi::Op, known: u32, within: &Part) -> Result<MapRequest> {
        reject_unknown_flags(op.flags, known)?;
        let prot = within.prot(op.prot)?;
        let part = file_range(op.offset, op.length)?;
        let target = within.range(op.addr, op.length)?;
        check_end_in_file(op.offset, op.length)?;
        Ok(MapRequest {
            fd: op.fd,
            part,
            target,
            prot,
            private: op.flags & uapi::MAP_PRIVATE != 0,
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
                private: self.private,
                segment: 0,
                prot: self.prot,
                replace: self.replace,
                populate: self.populate,
            },
        }
    }
}

/// Checks one operation of a batch for a part of a space, as far as it can be without its file.
/// `EOPNOTSUPP` for an unknown opcode.
pub(crate) fn operation(op: &uapi::Op, within: &Part) -> Result<Change> {
    let pages = || within.range(op.addr, op.length);
    match op.opcode {
        uapi::OP_MMAP => {
            let known = uapi::MAP_REPLACE | uapi::MAP_POPULATE | uapi::MAP_PRIVATE;
            Ok(MapRequest::check(op, known, within)?.change())
        }
        uapi::OP_MUNMAP => {
            reject_unknown_flags(op.flags, 0)?;
            Ok(Change {
                pages: pages()?,
                kind: Kind::Unmap,
            })
        }
        uapi::OP_PROTECT => {
            reject_unknown_flags(op.flags, 0)?;
            let prot = within.prot(op.prot)?;
            Ok(Change {
                pages: pages()?,
                kind: Kind::Protect { prot },
            })
        }
        _ => Err(EOPNOTSUPP.into()),
    }
}
