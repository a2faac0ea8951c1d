// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Makes the ioctls.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode, ioctl};

use crate::sys;

/// The argument struct of an ioctl.
///
/// # Safety
///
/// `OPCODE` must be an ioctl that takes a pointer to `Self`, reads no more than
/// `size` bytes from it and writes only to its fields. It may read other memory
/// that the struct points to, and not write it.
pub(crate) unsafe trait Argument {
    const OPCODE: Opcode;
}

/// The argument struct of an ioctl that returns a new file descriptor.
///
/// # Safety
///
/// On success the ioctl must return a file descriptor that has no other owner.
pub(crate) unsafe trait MakesFd: Argument {}

macro_rules! arguments {
    ($($argument:ident => $opcode:ident),* $(,)?) => { $(
        // SAFETY: The struct and the number belong together in the header, with
        // which a test compares both, and the header promises what the trait
        // requires.
        unsafe impl Argument for sys::$argument {
            const OPCODE: Opcode = sys::$opcode;
        }
    )* };
}

arguments! {
    address_space_create => ADDRESS_SPACE_CREATE,
    address_space_lend => ADDRESS_SPACE_LEND,
    address_space_query => ADDRESS_SPACE_QUERY,
    address_space_mmap => ADDRESS_SPACE_MMAP,
    address_space_munmap => ADDRESS_SPACE_MUNMAP,
    address_space_view => ADDRESS_SPACE_VIEW,
    address_space_register => ADDRESS_SPACE_REGISTER,
    address_space_unregister => ADDRESS_SPACE_UNREGISTER,
    address_space_batch => ADDRESS_SPACE_BATCH,
    address_space_protect => ADDRESS_SPACE_PROTECT,
    address_space_move => ADDRESS_SPACE_MOVE,
    address_space_advise => ADDRESS_SPACE_ADVISE,
    address_space_layout => ADDRESS_SPACE_LAYOUT,
    address_space_events => ADDRESS_SPACE_EVENTS,
    address_space_poison => ADDRESS_SPACE_POISON,
    address_space_kvm_map => ADDRESS_SPACE_KVM_MAP,
    address_space_kvm_unmap => ADDRESS_SPACE_KVM_UNMAP,
}

// SAFETY: The header: "returns an asfd".
unsafe impl MakesFd for sys::address_space_create {}
// SAFETY: The header: "returns a lend file descriptor".
unsafe impl MakesFd for sys::address_space_lend {}
// SAFETY: The header: "Returns a view".
unsafe impl MakesFd for sys::address_space_view {}
// SAFETY: The header: "returns an events file descriptor".
unsafe impl MakesFd for sys::address_space_events {}

struct Call<'a, T>(&'a mut T);

// SAFETY: By `Argument`, the pointer is what the ioctl expects. The output is the
// return value; the pointer is not used for it.
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

/// Makes an ioctl. Its output is in `argument` afterwards.
pub(crate) fn call<T: Argument>(fd: impl AsFd, argument: &mut T) -> Result<c_int> {
    // SAFETY: The ioctls do no more to the caller's memory than to write to the
    // argument, to read the operations that a batch points to (EFAULT if there is no
    // memory), to write the array that a layout points to, which is the caller's, to create
    // an attachment where nothing is mapped, and to remove one that such an ioctl created:
    // `KvmWindow` ensures that it is not used afterwards.
    // On any other file the ioctl is ENOTTY: no other driver has this type.
    unsafe { ioctl(fd, Call(argument)) }
}

/// Makes an ioctl that returns a file descriptor.
pub(crate) fn call_for_fd<T: MakesFd>(fd: impl AsFd, mut argument: T) -> Result<OwnedFd> {
    let fd = call(fd, &mut argument)?;
    // SAFETY: By `MakesFd`, this is a new file descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name as the kernel reads it. EINVAL for one with a NUL in it.
pub(crate) fn name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

/// The address of a name that is borrowed until the call is made, or 0.
pub(crate) fn name_field(name: Option<&CString>) -> u64 {
    name.map_or(0, |name| name.as_ptr().addr() as u64)
}

/// Has memory that was lent taken back.
pub(crate) fn revoke(fd: impl AsFd) -> Result<()> {
    // SAFETY: The ioctl has no argument, and on any other file it is ENOTTY.
    unsafe { ioctl(fd, NoArg::<{ sys::ADDRESS_SPACE_LEND_REVOKE }>::new()) }
}

/// The `size` field of an argument.
pub(crate) const fn size_field<T: Argument>() -> u32 {
    // Tens of bytes: cannot truncate.
    size_of::<T>() as u32
}
