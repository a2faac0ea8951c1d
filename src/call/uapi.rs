// SPDX-License-Identifier: GPL-2.0

//! The calls as user space makes them: numbers, structs, and the contract by which
//! structs are read. `uapi/include/linux/address_space.h` is the reference.
//!
//! Takes no lock, and must be called with none: user memory may be anything,
//! a window of the very space included.

use core::ops::Range;

use kernel::{
    ioctl::_IO,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::UserSlice, //
};

use crate::layout::Prot;

const TYPE: u32 = 0xB9;

/// On the device.
pub(crate) const CREATE: u32 = _IO(TYPE, 0x00);
/// On an asfd.
pub(crate) const MMAP: u32 = _IO(TYPE, 0x01);
/// On an asfd.
pub(crate) const MUNMAP: u32 = _IO(TYPE, 0x02);
/// On an asfd.
pub(crate) const VIEW: u32 = _IO(TYPE, 0x03);
/// On an asfd.
pub(crate) const REGISTER: u32 = _IO(TYPE, 0x04);
/// On an asfd.
pub(crate) const UNREGISTER: u32 = _IO(TYPE, 0x05);
/// On an asfd.
pub(crate) const BATCH: u32 = _IO(TYPE, 0x06);
/// On an asfd.
pub(crate) const PROTECT: u32 = _IO(TYPE, 0x07);
/// On an asfd.
pub(crate) const MOVE: u32 = _IO(TYPE, 0x08);
/// On an asfd or a view.
pub(crate) const KVM_MAP: u32 = _IO(TYPE, 0x10);
/// On an asfd or a view.
pub(crate) const KVM_UNMAP: u32 = _IO(TYPE, 0x11);

/// Flags of [`Mmap`].
pub(crate) const MAP_REPLACE: u32 = 1 << 0;
pub(crate) const MAP_ANYWHERE: u32 = 1 << 1;
pub(crate) const MAP_POPULATE: u32 = 1 << 2;

/// Flag of [`Register`].
pub(crate) const REGISTER_POPULATE: u32 = 1 << 0;
/// Flag of [`Move`].
pub(crate) const MOVE_REPLACE: u32 = MAP_REPLACE;

/// Opcodes of a batch.
pub(crate) const OP_MMAP: u32 = 1;
pub(crate) const OP_MUNMAP: u32 = 2;
pub(crate) const OP_PROTECT: u32 = 3;
/// The most operations that a batch may have.
pub(crate) const MAX_OPS: u32 = 1 << 16;

/// A struct that a call takes.
///
/// # Safety
///
/// The type must be `repr(C)` without padding, and allow all bit patterns.
pub(crate) unsafe trait Arg: Copy {
    /// The size of the first published version.
    const FIRST: usize = size_of::<Self>();

    /// The struct with all bytes zero.
    const ZERO: Self;
}

macro_rules! args {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub(crate) struct $name {
            size: u32,
            pub(crate) flags: u32,
            $(pub(crate) $field: $type),*
        }

        // SAFETY: Integers only, without padding, as asserted below.
        unsafe impl Arg for $name {
            const ZERO: Self = Self { size: 0, flags: 0, $($field: 0),* };
        }

        // SAFETY: All bytes are initialised: the fields' sizes add up to the
        // struct's, as asserted below.
        unsafe impl AsBytes for $name {}
        // SAFETY: Integers allow all bit patterns.
        unsafe impl FromBytes for $name {}

        const _: () = assert!(size_of::<$name>() == 8 $(+ size_of::<$type>())*);
    )*};
}

args! {
    /// Argument of [`CREATE`].
    Create { length: u64 }
    /// Argument of [`MMAP`].
    Mmap { fd: i32, prot: u32, offset: u64, length: u64, addr: u64 }
    /// Argument of [`MUNMAP`].
    Munmap { addr: u64, length: u64 }
    /// Argument of [`VIEW`].
    View { prot: u32, reserved: u32, offset: u64, length: u64 }
    /// Argument of [`REGISTER`].
    Register { fd: i32, prot: u32, offset: u64, length: u64 }
    /// Argument of [`UNREGISTER`].
    Unregister { fd: i32, reserved: u32 }
    /// Argument of [`BATCH`].
    Batch { ops: u64, nr_ops: u32, op_size: u32, failed: u32, reserved: u32 }
    /// Argument of [`PROTECT`].
    Protect { addr: u64, length: u64, prot: u32, reserved: u32 }
    /// Argument of [`MOVE`].
    Move { addr: u64, length: u64, new_addr: u64 }
    /// Argument of [`KVM_MAP`].
    KvmMap {
        vmfd: i32, slot: u32, guest_phys_addr: u64, memory_size: u64, offset: u64, window: u64,
    }
    /// Argument of [`KVM_UNMAP`].
    KvmUnmap { vmfd: i32, slot: u32 }
}

/// One operation of a batch, of which the batch tells the size.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) opcode: u32,
    pub(crate) flags: u32,
    pub(crate) fd: i32,
    pub(crate) prot: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) addr: u64,
}

// SAFETY: Integers only, without padding, as asserted below. (It begins with no size;
// `read_sized` is told one.)
unsafe impl Arg for Op {
    const ZERO: Self = Self {
        opcode: 0,
        flags: 0,
        fd: 0,
        prot: 0,
        offset: 0,
        length: 0,
        addr: 0,
    };
}

// SAFETY: All bytes are initialised: there is no padding.
unsafe impl AsBytes for Op {}
// SAFETY: Integers allow all bit patterns.
unsafe impl FromBytes for Op {}

const _: () = assert!(size_of::<Op>() == 40);

impl Batch {
    /// Reads one operation; errors as for [`read`].
    pub(crate) fn read_op(&self, index: usize) -> Result<Op> {
        let size = self.op_size as usize;
        let start = size.checked_mul(index).ok_or(EOVERFLOW)?;
        let addr = (self.ops as usize).checked_add(start).ok_or(EFAULT)?;
        read_sized(UserPtr::from_addr(addr), size)
    }

    /// Reads operations from `first` on; says how many can be read.
    pub(crate) fn read_ops(&self, first: usize, ops: &mut [Op]) -> usize {
        if self.op_size as usize == size_of::<Op>() {
            // Side by side as ours are.
            let start = (self.ops as usize).checked_add(first * size_of::<Op>());
            let bytes = ops.as_bytes_mut();
            let read = start.ok_or(EFAULT).and_then(|start| {
                UserSlice::new(UserPtr::from_addr(start), bytes.len())
                    .reader()
                    .read_slice(bytes)
            });
            if read.is_ok() {
                return ops.len();
            }
        }
        for (index, op) in ops.iter_mut().enumerate() {
            match self.read_op(first + index) {
                Ok(read) => *op = read,
                Err(_) => return index,
            }
        }
        ops.len()
    }
}

/// Reads the argument of a call.
///
/// `EINVAL` where it is shorter than the first version, `E2BIG` where it has bytes
/// that we do not know and that are not zero, `EFAULT`.
pub(crate) fn read<T: Arg + AsBytes + FromBytes>(ptr: UserPtr) -> Result<T> {
    // As a rule it is as long as ours, and read at once.
    let whole = UserSlice::new(ptr, size_of::<T>()).reader().read::<T>();
    if let Ok(arg) = whole {
        let size = arg.as_bytes().first_chunk().copied();
        if size.map(u32::from_ne_bytes) == Some(size_of::<T>() as u32) {
            return Ok(arg);
        }
    }
    let size = UserSlice::new(ptr, size_of::<u32>())
        .reader()
        .read::<u32>()? as usize;
    read_sized(ptr, size)
}

/// Reads a struct of which the caller says how large it is; errors as for [`read`].
pub(crate) fn read_sized<T: Arg + AsBytes + FromBytes>(ptr: UserPtr, size: usize) -> Result<T> {
    if size < T::FIRST {
        return Err(EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(E2BIG);
    }
    let known = size.min(size_of::<T>());
    let mut arg = T::ZERO;
    let mut reader = UserSlice::new(ptr, size).reader();
    reader.read_slice(&mut T::as_bytes_mut(&mut arg)[..known])?;
    while !reader.is_empty() {
        let mut rest = [0u8; 64];
        let part = reader.len().min(rest.len());
        let rest = &mut rest[..part];
        reader.read_slice(rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(E2BIG);
        }
    }
    Ok(arg)
}

/// Writes one value of the argument back, at `offset` bytes of it.
pub(crate) fn write_back<T: AsBytes>(ptr: UserPtr, offset: usize, value: T) -> Result {
    UserSlice::new(ptr.wrapping_byte_add(offset), size_of::<T>())
        .writer()
        .write(&value)
}

/// `EOPNOTSUPP` for a flag, or for what must be zero, that we do not know.
pub(crate) fn only(flags: u32, known: u32) -> Result {
    if flags & !known != 0 {
        return Err(EOPNOTSUPP);
    }
    Ok(())
}

/// A number of bytes that must be whole pages: `EINVAL`.
pub(crate) fn pages(bytes: u64) -> Result<u64> {
    if bytes % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    Ok(bytes >> PAGE_SHIFT)
}

/// The pages of a range that is not empty: `EINVAL`; `EOVERFLOW` where it leaves the
/// 64 bits.
pub(crate) fn range(start: u64, length: u64) -> Result<Range<u64>> {
    start.checked_add(length).ok_or(EOVERFLOW)?;
    let (start, length) = (pages(start)?, pages(length)?);
    if length == 0 {
        return Err(EINVAL);
    }
    Ok(start..start + length)
}

/// The same within something of `limit` pages: `EINVAL`.
pub(crate) fn range_within(start: u64, length: u64, limit: u64) -> Result<Range<u64>> {
    let range = range(start, length)?;
    if range.end > limit {
        return Err(EINVAL);
    }
    Ok(range)
}

/// Protection bits: `EINVAL` for unknown ones, and for writing or executing without
/// reading, which no page table entry can say.
pub(crate) fn prot(bits: u32) -> Result<Prot> {
    let prot = Prot::from_bits(bits).ok_or(EINVAL)?;
    if prot != Prot::NONE && !prot.contains(Prot::READ) {
        return Err(EINVAL);
    }
    Ok(prot)
}
