// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Makes the ioctls.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FileType, fstat, fstatfs, major};
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
/// On success the ioctl must return a file descriptor that has no other owner, on every file
/// for which `is_ours` is true.
pub(crate) unsafe trait MakesFd: Argument {
    /// Whether a file is one of those that take the ioctl. Any other file's driver may have
    /// an ioctl of the same number, and one may be a FUSE server's, which answers what it
    /// likes: a file descriptor of the caller's that has an owner already.
    fn is_ours(fd: BorrowedFd<'_>) -> Result<bool>;
}

/// Whether it is a device of the kind that `/dev/address_space` is: its ioctls are those of a
/// driver in the kernel, and none of these drivers has another one of the same type.
fn is_device(fd: BorrowedFd<'_>) -> Result<bool> {
    const MISC: u32 = 10;
    let stat = fstat(fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(kind == FileType::CharacterDevice && major(stat.st_rdev) == MISC)
}

/// Whether it is an asfd or a view: a file of the module's own file system.
pub(crate) fn is_of_space(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = fstatfs(fd)?;
    Ok(stat.f_type as u64 == u64::from(sys::ADDRESS_SPACE_MAGIC))
}

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

macro_rules! makers {
    ($($argument:ident on $is_ours:ident),* $(,)?) => { $(
        // SAFETY: The header: "returns an asfd", "a lend file descriptor", "a view", "an events
        // file descriptor"; of the file itself see `is_ours`.
        unsafe impl MakesFd for sys::$argument {
            fn is_ours(fd: BorrowedFd<'_>) -> Result<bool> {
                $is_ours(fd)
            }
        }
    )* };
}

makers! {
    address_space_create on is_device,
    address_space_lend on is_device,
    address_space_view on is_of_space,
    address_space_events on is_of_space,
}

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
    // On any other file the ioctl is ENOTTY, or does what the file's own driver or server
    // makes of a number with that argument; which writes nothing but the argument, since the
    // number has no size, and gives no file descriptor that is taken for one.
    unsafe { ioctl(fd, Call(argument)) }
}

/// Makes an ioctl that returns a file descriptor. ENOTTY on other files.
pub(crate) fn call_for_fd<T: MakesFd>(fd: impl AsFd, mut argument: T) -> Result<OwnedFd> {
    if !T::is_ours(fd.as_fd())? {
        return Err(Errno::NOTTY);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;

    #[test]
    fn files_of_others_are_not_asked_for_file_descriptors() {
        let memfd = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        let null = File::open("/dev/null").unwrap();
        for file in [memfd.as_fd(), null.as_fd()] {
            assert_eq!(is_device(file), Ok(false));
            assert_eq!(is_of_space(file), Ok(false));
        }
        // Any other device of the kind that the module's is: both are made by misc_register().
        if let Ok(fuse) = File::open("/dev/fuse") {
            assert_eq!(is_device(fuse.as_fd()), Ok(true));
        }
    }
}
