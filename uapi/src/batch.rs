// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A batch: changes of an address space of which all are made or none.

use std::marker::PhantomData;
use std::ops::{Range, RangeBounds};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::call::{call, size_field};
use crate::{AddressSpace, Errno, Error, Prot, Result, sys};

/// Changes of an address space of which all are made, in order, or none: created
/// by [`AddressSpace::batch()`].
///
/// Every reader sees the layout before the batch or the layout after it. Once
/// [`commit()`](Batch::commit) returns, no process and no virtual machine can
/// reach what was unmapped or replaced.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before commit()"]
pub struct Batch<'a> {
    pub(crate) space: &'a AddressSpace,
    pub(crate) operations: Vec<Operation<'a>>,
}

/// An operation, and the lifetime of its file.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Operation<'a> {
    op: sys::address_space_op,
    file: PhantomData<BorrowedFd<'a>>,
}

impl<'a> Batch<'a> {
    /// Maps a range of a file, from `offset` on, at `range` of the address
    /// space, where nothing may be mapped. All are bytes, multiples of the page
    /// size.
    pub fn map(
        self,
        file: &'a (impl AsFd + ?Sized),
        offset: u64,
        range: Range<u64>,
        prot: Prot,
    ) -> Self {
        self.map_with(file, offset, range, prot, 0)
    }

    /// As [`map()`](Batch::map), but replaces whatever is mapped in the range.
    pub fn replace(
        self,
        file: &'a (impl AsFd + ?Sized),
        offset: u64,
        range: Range<u64>,
        prot: Prot,
    ) -> Self {
        self.map_with(file, offset, range, prot, sys::ADDRESS_SPACE_MAP_REPLACE)
    }

    /// Populates what the last operation maps, as
    /// [`Map::populate()`](crate::Map::populate) does, once the whole batch is
    /// done. Only after [`map()`](Batch::map) or [`replace()`](Batch::replace):
    /// the kernel refuses it for other operations (EOPNOTSUPP). In an empty batch it
    /// does nothing.
    pub fn populate(mut self) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.op.flags |= sys::ADDRESS_SPACE_MAP_POPULATE;
        }
        self
    }

    /// Has what the last operation maps be private, as
    /// [`Map::private()`](crate::Map::private) does. Only after [`map()`](Batch::map) or
    /// [`replace()`](Batch::replace): the kernel refuses it for other operations.
    pub fn private(mut self) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.op.flags |= sys::ADDRESS_SPACE_MAP_PRIVATE;
        }
        self
    }

    /// Makes room for so many operations more, for callers that add many.
    pub(crate) fn reserve(&mut self, operations: usize) {
        self.operations.reserve_exact(operations);
    }

    /// Adds a map in place, for callers that add many.
    pub(crate) fn push_map(
        &mut self,
        file: &'a (impl AsFd + ?Sized),
        offset: u64,
        range: Range<u64>,
        prot: Prot,
        populate: bool,
    ) {
        let flags = if populate {
            sys::ADDRESS_SPACE_MAP_POPULATE
        } else {
            0
        };
        self.push(map_of(file.as_fd(), offset, &range, prot, flags));
    }

    fn map_with(
        self,
        file: &'a (impl AsFd + ?Sized),
        offset: u64,
        range: Range<u64>,
        prot: Prot,
        flags: u32,
    ) -> Self {
        self.add(map_of(file.as_fd(), offset, &range, prot, flags))
    }

    /// Unmaps a range, as [`AddressSpace::unmap()`] does.
    pub fn unmap(mut self, range: impl RangeBounds<u64>) -> Self {
        let range = self.bytes_of(range);
        self.push_unmap(&range);
        self
    }

    /// Adds an unmap in place, for callers that add many.
    pub(crate) fn push_unmap(&mut self, range: &Range<u64>) {
        self.push(sys::address_space_op {
            opcode: sys::ADDRESS_SPACE_OP_MUNMAP,
            fd: -1,
            length: length_of(range),
            addr: range.start,
            ..Default::default()
        });
    }

    /// Changes the protection of a range, as [`AddressSpace::protect()`] does.
    pub fn protect(self, range: impl RangeBounds<u64>, prot: Prot) -> Self {
        let range = self.bytes_of(range);
        self.add(sys::address_space_op {
            opcode: sys::ADDRESS_SPACE_OP_PROTECT,
            fd: -1,
            prot: prot.bits(),
            length: length_of(&range),
            addr: range.start,
            ..Default::default()
        })
    }

    /// The bytes that a range means.
    fn bytes_of(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        // The length of an open asfd can be had. Without it, the kernel refuses the operation.
        self.space.bytes_of(range).unwrap_or(0..u64::MAX)
    }

    fn add(mut self, op: sys::address_space_op) -> Self {
        self.push(op);
        self
    }

    fn push(&mut self, op: sys::address_space_op) {
        self.operations.push(Operation {
            op,
            file: PhantomData,
        });
    }

    /// The number of operations. The kernel takes at most 65536.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it has no operations.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Makes all of the changes. A batch without operations succeeds without a
    /// call.
    ///
    /// # Errors
    ///
    /// [`Error::Batch`], and nothing has changed. It says which operation failed,
    /// and contains the error of that operation. EINVAL for more than 65536
    /// operations.
    pub fn commit(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // The kernel leaves this value if the error is not that of an operation.
        const NONE: u32 = u32::MAX;
        // More than fit are too many for the kernel in any case.
        let nr_ops = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let mut argument = sys::address_space_batch {
            size: size_field::<sys::address_space_batch>(),
            flags: 0,
            ops: self.operations.as_ptr() as u64,
            nr_ops,
            op_size: size_of::<sys::address_space_op>() as u32,
            failed: NONE,
            __reserved: 0,
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(self.error(argument.failed as usize, errno)),
        }
    }

    /// As [`commit()`](Batch::commit), but makes a single map with
    /// `ADDRESS_SPACE_MMAP`, which is cheaper and has the error of a map.
    pub(crate) fn commit_maps(&self) -> Result<()> {
        let [Operation { op, .. }] = self.operations[..] else {
            return self.commit();
        };
        let mut argument = sys::address_space_mmap {
            size: size_field::<sys::address_space_mmap>(),
            flags: op.flags,
            fd: op.fd,
            prot: op.prot,
            offset: op.offset,
            length: op.length,
            addr: op.addr,
        };
        match call(self.space, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Batch::error_of(&op, errno)),
        }
    }

    fn error_of(op: &sys::address_space_op, errno: Errno) -> Error {
        // The numbers may be invalid, so this must not overflow.
        let range = op.addr..op.addr.saturating_add(op.length);
        match op.opcode {
            sys::ADDRESS_SPACE_OP_MUNMAP => Error::Unmap { range, errno },
            sys::ADDRESS_SPACE_OP_PROTECT => Error::Protect {
                range,
                prot: Prot::from_bits_retain(op.prot),
                errno,
            },
            _ => Error::Map {
                addr: Some(op.addr),
                offset: op.offset,
                length: op.length,
                errno,
            },
        }
    }

    fn error(&self, failed: usize, errno: Errno) -> Error {
        let operation = self.operations.get(failed);
        let error = match operation {
            None => Error::WholeBatch { errno },
            Some(operation) => Batch::error_of(&operation.op, errno),
        };
        Error::Batch {
            operations: self.operations.len(),
            failed: operation.map(|_| failed),
            error: Box::new(error),
        }
    }
}

fn map_of(
    file: BorrowedFd<'_>,
    offset: u64,
    range: &Range<u64>,
    prot: Prot,
    flags: u32,
) -> sys::address_space_op {
    sys::address_space_op {
        opcode: sys::ADDRESS_SPACE_OP_MMAP,
        flags,
        fd: file.as_raw_fd(),
        prot: prot.bits(),
        offset,
        length: length_of(range),
        addr: range.start,
    }
}

/// The length of a range; 0, which the kernel refuses, if it ends before it
/// starts.
pub(crate) fn length_of(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    /// Not an address space: every call on it fails.
    fn no_space() -> AddressSpace {
        AddressSpace::from(OwnedFd::from(File::open("/dev/null").unwrap()))
    }

    #[test]
    fn empty_batch_makes_no_call() {
        assert!(no_space().batch().is_empty());
        assert_eq!(no_space().batch().commit(), Ok(()));
    }

    #[test]
    fn batch_has_the_error_of_the_operation() {
        let space = no_space();
        let file = File::open("/dev/null").unwrap();
        let batch = space
            .batch()
            .unmap(0..0x1000)
            .map(&file, 0x3000, 0x1000..0x2000, Prot::READ)
            .protect(0x2000..0x3000, Prot::READ);
        assert_eq!(batch.len(), 3);
        let inner = |failed| match batch.error(failed, Errno::NOMEM) {
            Error::Batch {
                operations: 3,
                failed: index,
                error,
            } => (index, *error),
            error => panic!("{error}"),
        };
        let errno = Errno::NOMEM;
        let range = 0..0x1000;
        assert_eq!(inner(0), (Some(0), Error::Unmap { range, errno }));
        let map = Error::Map {
            addr: Some(0x1000),
            offset: 0x3000,
            length: 0x1000,
            errno,
        };
        assert_eq!(inner(1), (Some(1), map));
        let (range, prot) = (0x2000..0x3000, Prot::READ);
        assert_eq!(inner(2), (Some(2), Error::Protect { range, prot, errno }));
        assert_eq!(
            inner(u32::MAX as usize),
            (None, Error::WholeBatch { errno })
        );
    }

    #[test]
    fn populate_applies_to_the_last_operation() {
        let space = no_space();
        let file = File::open("/dev/null").unwrap();
        let batch = space
            .batch()
            .map(&file, 0, 0..0x1000, Prot::READ)
            .replace(&file, 0, 0x1000..0x2000, Prot::READ)
            .populate();
        let flags: Vec<_> = batch.operations.iter().map(|one| one.op.flags).collect();
        let both = sys::ADDRESS_SPACE_MAP_REPLACE | sys::ADDRESS_SPACE_MAP_POPULATE;
        assert_eq!(flags, [0, both]);
        assert!(space.batch().populate().is_empty());
    }

    #[test]
    fn error_of_the_call_names_no_operation() {
        let error = no_space().batch().unmap(0..0x1000).commit().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NOTTY));
        assert_eq!(error.failed_operation(), None);
    }
}
