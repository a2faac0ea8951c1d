// SPDX-License-Identifier: GPL-2.0

//! The calls as user space makes them: numbers, structs, and how structs are read. What the
//! values mean is checked in `request.rs`. `uapi/include/linux/address_space.h` is the reference.

use kernel::{
    ioctl::_IO,
    page::PAGE_SIZE,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::UserSlice, //
};

use crate::sys::{
    plain::plain_structs,
    user, //
};

const TYPE: u32 = 0xB9;

/// On the device, as is [`QUERY`].
pub(crate) const CREATE: u32 = _IO(TYPE, 0x00);
/// On the device, too.
pub(crate) const LEND: u32 = _IO(TYPE, 0x0A);
/// On a lend file.
pub(crate) const LEND_REVOKE: u32 = _IO(TYPE, 0x0B);
/// On an asfd, like all up to [`POISON`]; and, up to [`ADVISE`], on a view that manages its range.
pub(crate) const MMAP: u32 = _IO(TYPE, 0x01);
pub(crate) const MUNMAP: u32 = _IO(TYPE, 0x02);
pub(crate) const VIEW: u32 = _IO(TYPE, 0x03);
pub(crate) const REGISTER: u32 = _IO(TYPE, 0x04);
pub(crate) const UNREGISTER: u32 = _IO(TYPE, 0x05);
pub(crate) const BATCH: u32 = _IO(TYPE, 0x06);
pub(crate) const PROTECT: u32 = _IO(TYPE, 0x07);
pub(crate) const MOVE: u32 = _IO(TYPE, 0x08);
pub(crate) const LAYOUT: u32 = _IO(TYPE, 0x09);
pub(crate) const ADVISE: u32 = _IO(TYPE, 0x0C);
pub(crate) const EVENTS: u32 = _IO(TYPE, 0x0D);
pub(crate) const POISON: u32 = _IO(TYPE, 0x0E);
pub(crate) const QUERY: u32 = _IO(TYPE, 0x0F);
/// On an asfd or a view, as is the next.
pub(crate) const KVM_MAP: u32 = _IO(TYPE, 0x10);
pub(crate) const KVM_UNMAP: u32 = _IO(TYPE, 0x11);

/// Flags of [`Mmap`].
pub(crate) const MAP_REPLACE: u32 = 1 << 0;
pub(crate) const MAP_ANYWHERE: u32 = 1 << 1;
pub(crate) const MAP_POPULATE: u32 = 1 << 2;
pub(crate) const MAP_PRIVATE: u32 = 1 << 3;

/// Flag of [`View`].
pub(crate) const VIEW_MANAGE: u32 = 1 << 0;

/// Flags of [`Range`].
pub(crate) const RANGE_PRIVATE: u32 = 1 << 0;
pub(crate) const RANGE_LENT: u32 = 1 << 1;

/// Flags of [`Register`].
pub(crate) const REGISTER_POPULATE: u32 = 1 << 0;
pub(crate) const REGISTER_PRIVATE: u32 = 1 << 1;
/// Flag of [`Unregister`].
pub(crate) const UNREGISTER_ALL: u32 = 1 << 0;
/// The fd where a call is about no file.
pub(crate) const NO_FD: i32 = -1;
/// Flag of [`Move`].
pub(crate) const MOVE_REPLACE: u32 = MAP_REPLACE;

/// Flags of [`Create`], [`View`] and [`KvmMap`]: what becomes of accesses that meet a hole.
pub(crate) const HOLE_SIGNAL: u32 = 1 << 16;
pub(crate) const HOLE_ABSORB: u32 = 1 << 17;
pub(crate) const HOLE_WAIT: u32 = 1 << 18;
pub(crate) const HOLE_DENIED: u32 = 1 << 19;
pub(crate) const HOLE_KERNEL: u32 = 1 << 20;
/// All of them.
pub(crate) const HOLE_FLAGS: u32 =
    HOLE_SIGNAL | HOLE_ABSORB | HOLE_WAIT | HOLE_DENIED | HOLE_KERNEL;

/// What [`QUERY`] answers: the version of the interface, and what there is of it.
pub(crate) const VERSION: u32 = 1;
pub(crate) const FEATURE_NAMES: u64 = 1 << 0;
pub(crate) const FEATURE_REOPEN: u64 = 1 << 1;
pub(crate) const FEATURE_EXEC: u64 = 1 << 2;
pub(crate) const FEATURE_MANAGE: u64 = 1 << 3;
pub(crate) const FEATURE_HOLES: u64 = 1 << 4;
pub(crate) const FEATURE_RELEASE: u64 = 1 << 5;
pub(crate) const FEATURE_UNREGISTER_ALL: u64 = 1 << 6;
pub(crate) const FEATURE_KVM: u64 = 1 << 7;
pub(crate) const FEATURE_HUGE_PAGES: u64 = 1 << 8;
pub(crate) const FEATURE_LEND: u64 = 1 << 9;
pub(crate) const FEATURE_PRIVATE: u64 = 1 << 10;
pub(crate) const FEATURE_ADVISE: u64 = 1 << 11;
pub(crate) const FEATURE_LAYOUT: u64 = 1 << 12;
pub(crate) const FEATURE_MOUNT: u64 = 1 << 13;
// A new one takes the next bit, here, in the header and in `query.rs`.

/// Flag of [`Poison`].
pub(crate) const POISON_CLEAR: u32 = 1 << 0;

/// Values of [`Advise`], those of madvise().
pub(crate) const WILLNEED: u32 = 3;
pub(crate) const DONTNEED: u32 = 4;
pub(crate) const REMOVE: u32 = 9;
pub(crate) const POPULATE_READ: u32 = 22;
pub(crate) const POPULATE_WRITE: u32 = 23;

/// Types of an [`Event`].
pub(crate) const EVENT_WAIT: u32 = 1;
pub(crate) const EVENT_HOLE: u32 = 2;
pub(crate) const EVENT_DENIED: u32 = 3;
pub(crate) const EVENT_PAST_END: u32 = 4;
pub(crate) const EVENT_MEMORY_ERROR: u32 = 5;
pub(crate) const EVENT_IO_ERROR: u32 = 6;
pub(crate) const EVENT_NO_MEMORY: u32 = 7;
pub(crate) const EVENT_POISONED: u32 = 8;
pub(crate) const EVENT_TIMED_OUT: u32 = 9;
pub(crate) const EVENT_INTERRUPTED: u32 = 10;
pub(crate) const EVENT_OVERFLOW: u32 = 11;

/// The longest name of an asfd or view, in bytes without the end.
pub(crate) const NAME_MAX: usize = 200;

/// Opcodes of a batch.
pub(crate) const OP_MMAP: u32 = 1;
pub(crate) const MUNMAP_RELEASE: u32 = 1 << 0;
pub(crate) const OP_MUNMAP: u32 = 2;
pub(crate) const OP_PROTECT: u32 = 3;
/// The most operations that a batch may have.
pub(crate) const MAX_OPS: u32 = 1 << 16;
/// The most bytes that a space may have: as much as a process can map without asking for more.
pub(crate) const MAX_LENGTH: u64 = 1 << 47;

plain_structs! {
    /// Argument of [`CREATE`].
    Create { size: u32, flags: u32, length: u64, name: u64 }
    /// Argument of [`LEND`].
    Lend { size: u32, flags: u32, prot: u32, reserved: u32, addr: u64, length: u64 }
    /// Argument of [`MMAP`].
    Mmap {
        size: u32, flags: u32,
        fd: i32, prot: u32, offset: u64, length: u64, addr: u64,
    }
    /// Argument of [`MUNMAP`].
    Munmap { size: u32, flags: u32, addr: u64, length: u64 }
    /// Argument of [`VIEW`].
    View {
        size: u32, flags: u32,
        prot: u32, reserved: u32, offset: u64, length: u64, name: u64,
    }
    /// Argument of [`REGISTER`].
    Register { size: u32, flags: u32, fd: i32, prot: u32, offset: u64, length: u64 }
    /// Argument of [`UNREGISTER`].
    Unregister { size: u32, flags: u32, fd: i32, reserved: u32 }
    /// Argument of [`BATCH`].
    Batch {
        size: u32, flags: u32,
        ops: u64, nr_ops: u32, op_size: u32, failed: u32, reserved: u32,
    }
    /// One operation of a batch. It begins with no size: the batch has that of all.
    Op {
        opcode: u32, flags: u32,
        fd: i32, prot: u32, offset: u64, length: u64, addr: u64,
    }
    /// Argument of [`PROTECT`].
    Protect { size: u32, flags: u32, addr: u64, length: u64, prot: u32, reserved: u32 }
    /// Argument of [`MOVE`].
    Move { size: u32, flags: u32, addr: u64, length: u64, new_addr: u64 }
    /// Argument of [`LAYOUT`].
    Layout {
        size: u32, flags: u32,
        addr: u64, length: u64, ranges: u64, nr_ranges: u32, range_size: u32, next: u64,
    }
    /// What it writes for each range.
    Range {
        addr: u64, length: u64, offset: u64, ino: u64,
        dev_major: u32, dev_minor: u32, prot: u32, flags: u32,
    }
    /// Argument of [`ADVISE`].
    Advise { size: u32, flags: u32, addr: u64, length: u64, advice: u32, reserved: u32 }
    /// Argument of [`EVENTS`].
    Events {
        size: u32, flags: u32,
        timeout_ms: u32, reserved: u32, addr: u64, length: u64,
    }
    /// What is read from the file that it returns.
    Event { size: u32, kind: u32, offset: u64, access: u32, tid: u32, view: u64 }
    /// Argument of [`POISON`].
    Poison { size: u32, flags: u32, addr: u64, length: u64 }
    /// Argument of [`QUERY`].
    Query {
        size: u32, flags: u32,
        version: u32, reserved: u32, features: u64, max_length: u64,
        max_name: u32, max_ops: u32, max_poisoned: u32, max_events: u32,
    }
    /// Argument of [`KVM_MAP`].
    KvmMap {
        size: u32, flags: u32,
        vmfd: i32, slot: u32, guest_phys_addr: u64, memory_size: u64, offset: u64, window: u64,
    }
    /// Argument of [`KVM_UNMAP`].
    KvmUnmap { size: u32, flags: u32, vmfd: i32, slot: u32 }
}

/// A struct that a call takes.
pub(crate) trait Arg: Copy + AsBytes + FromBytes {
    /// The size of the first published version.
    const FIRST: usize = size_of::<Self>();

    /// The struct with all bytes zero.
    const ZERO: Self;
}

macro_rules! args {
    ($($name:ident $(($first:literal))?)*) => {$(
        impl Arg for $name {
            $(const FIRST: usize = $first;)?
            const ZERO: Self = Self::ZERO;
        }
    )*};
}

args! {
    Create(16) Lend Query Mmap Munmap View(40) Register Unregister Batch Op Protect Move Advise Layout
    Events Poison KvmMap KvmUnmap
}

impl Batch {
    /// Reads one operation, in its place; errors as for [`read`].
    #[inline(always)]
    pub(crate) fn read_op(&self, index: usize, op: &mut Op) -> Result {
        let size = self.op_size as usize;
        let start = size.checked_mul(index).ok_or(EOVERFLOW)?;
        let addr = (self.ops as usize).checked_add(start).ok_or(EFAULT)?;
        if size == size_of::<Op>() {
            // As long as the kernel's, and all of it is looked at.
            let words = FromBytes::from_bytes_mut(Op::as_bytes_mut(op)).ok_or(EINVAL)?;
            return user::read_five(addr, words);
        }
        *op = read_sized(UserPtr::from_addr(addr), size)?;
        Ok(())
    }
}

/// Reads the argument of a call.
///
/// `EINVAL` where it is shorter than the first version, `E2BIG` where it has bytes that this
/// version does not know and that are not zero, `EFAULT`.
pub(crate) fn read<T: Arg>(ptr: UserPtr) -> Result<T> {
    // As a rule it is as long as the kernel's, and read at once.
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

/// Reads a struct of a size that the caller gives apart; errors as for [`read`].
fn read_sized<T: Arg>(ptr: UserPtr, size: usize) -> Result<T> {
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

/// What a file is called in /proc.
pub(crate) struct Name([u8; NAME_SPACE]);

/// Room for the longest name, what comes before it, and the end.
const NAME_SPACE: usize = 256;

impl Name {
    /// `prefix:name`, or only the prefix where the caller gives no name, whose address is `name`
    /// then. `EINVAL` for a name longer than [`NAME_MAX`], `EFAULT`.
    pub(crate) fn read(prefix: &CStr, name: u64) -> Result<Name> {
        let mut buffer = [0; NAME_SPACE];
        let prefix = prefix.to_bytes();
        buffer[..prefix.len()].copy_from_slice(prefix);
        if name != 0 {
            buffer[prefix.len()] = b':';
            // One more than there may be, and the end.
            let rest = &mut buffer[prefix.len() + 1..][..NAME_MAX + 2];
            let name = UserSlice::new(UserPtr::from_addr(name as usize), rest.len());
            if name.reader().strcpy_into_buf(rest)?.to_bytes().len() > NAME_MAX {
                return Err(EINVAL);
            }
        }
        Ok(Name(buffer))
    }

    /// As C has it.
    pub(crate) fn as_cstr(&self) -> &CStr {
        // There is always an end.
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Writes the whole argument back, as much of it as the caller knows. `EFAULT`.
pub(crate) fn write_whole<T: Arg>(ptr: UserPtr, arg: &T, size: u32) -> Result {
    let bytes = arg.as_bytes();
    let bytes = &bytes[..bytes.len().min(size as usize)];
    UserSlice::new(ptr, bytes.len()).writer().write_slice(bytes)
}

/// Writes one value of the argument back, at `offset` bytes of it. `EFAULT`.
pub(crate) fn write_back<T: AsBytes>(ptr: UserPtr, offset: usize, value: T) -> Result {
    UserSlice::new(ptr.wrapping_byte_add(offset), size_of::<T>())
        .writer()
        .write(&value)
}
