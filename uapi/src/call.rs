// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one place where a call is made.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

use crate::sys;

/// The argument struct of a call.
///
/// # Safety
///
/// `OPCODE` must be a call that takes a pointer to `Self`, reads no more than
/// `size` bytes from it and writes nothing to it but its own fields. Other memory
/// that it points to may only be read.
pub(crate) unsafe trait Argument {
    const OPCODE: Opcode;
}

/// The argument struct of a call that returns a new file descriptor.
///
/// # Safety
///
/// What the call returns when it succeeds must be a file descriptor that nobody
/// else owns.
pub(crate) unsafe trait MakesFd: Argument {}

macro_rules! arguments {
    ($($argument:ident => $opcode:ident),* $(,)?) => { $(
        // SAFETY: The struct and the number are a pair of the header (a test
        // compares both with it), whose contract is the trait's.
        unsafe impl Argument for sys::$argument {
            const OPCODE: Opcode = sys::$opcode;
        }
    )* };
}

arguments! {
    address_space_create => ADDRESS_SPACE_CREATE,
    address_space_mmap => ADDRESS_SPACE_MMAP,
    address_space_munmap => ADDRESS_SPACE_MUNMAP,
    address_space_view => ADDRESS_SPACE_VIEW,
    address_space_register => ADDRESS_SPACE_REGISTER,
    address_space_unregister => ADDRESS_SPACE_UNREGISTER,
    address_space_batch => ADDRESS_SPACE_BATCH,
    address_space_protect => ADDRESS_SPACE_PROTECT,
    address_space_move => ADDRESS_SPACE_MOVE,
    address_space_kvm_map => ADDRESS_SPACE_KVM_MAP,
    address_space_kvm_unmap => ADDRESS_SPACE_KVM_UNMAP,
}

// SAFETY: The header: "returns an asfd".
unsafe impl MakesFd for sys::address_space_create {}
// SAFETY: The header: "Returns a view".
unsafe impl MakesFd for sys::address_space_view {}

struct Call<'a, T>(&'a mut T);

// SAFETY: By `Argument`, the pointer is what the call expects. The output is
// the return value, which needs nothing from the pointer.
unsafe impl<T: Argument> Ioctl for Call<'_, T> {
    type Output = c_int;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        T::OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<c_int> {
        Ok(out)
    }
}

/// Makes a call. What the call writes back is then in `argument`.
pub(crate) fn call<T: Argument>(fd: impl AsFd, argument: &mut T) -> Result<c_int> {
    // SAFETY: All that the calls do to the caller's memory is to write back to
    // the argument, to read the operations that a batch points to (EFAULT where
    // there is nothing), to make a window where nothing is mapped, and to remove one
    // that such a call made: `KvmWindow` sees to it that nobody uses it then.
    // On a file that is none of ours the call is ENOTTY: the type is no other
    // driver's.
    unsafe { ioctl(fd, Call(argument)) }
}

/// Makes a call that returns a file descriptor.
pub(crate) fn call_for_fd<T: MakesFd>(fd: impl AsFd, mut argument: T) -> Result<OwnedFd> {
    let fd = call(fd, &mut argument)?;
    // SAFETY: By `MakesFd`, this is a new file descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The `size` field of an argument.
pub(crate) const fn size_field<T: Argument>() -> u32 {
    // Tens of bytes: cannot truncate.
    size_of::<T>() as u32
}
