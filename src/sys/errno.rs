// SPDX-License-Identifier: GPL-2.0

//! Errors that [`kernel::error::code`] does not have in each kernel that the module supports.
//!
//! An [`Error`] of the kernel crate cannot be made in a constant outside of it, so these are
//! numbers that become one where they are returned.
//!
//! C headers: [`include/uapi/asm-generic/errno.h`](srctree/include/uapi/asm-generic/errno.h),
//! [`include/uapi/asm-generic/errno-base.h`](srctree/include/uapi/asm-generic/errno-base.h)

use crate::sys::bindings;
use kernel::{error::Error, ffi::c_int};

#[derive(Clone, Copy)]
pub(crate) struct Errno(u32);

impl Errno {
    /// As operations in C return it: negative.
    pub(crate) const fn to_errno(self) -> c_int {
        -(self.0 as c_int)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::from_errno(errno.to_errno())
    }
}

/// A memory page has a hardware error.
pub(crate) const EHWPOISON: Errno = Errno(bindings::EHWPOISON);
/// Too many symbolic links encountered.
pub(crate) const ELOOP: Errno = Errno(bindings::ELOOP);
/// No data available.
pub(crate) const ENODATA: Errno = Errno(bindings::ENODATA);
/// Operation not supported on transport endpoint.
pub(crate) const EOPNOTSUPP: Errno = Errno(bindings::EOPNOTSUPP);
