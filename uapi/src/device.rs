// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device, which creates address spaces.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

use crate::call::{call_for_fd, name, name_field, size_field};
use crate::{AddressSpace, Errno, Error, Holes, Result, sys};

/// An open `/dev/address_space`, which creates address spaces.
///
/// For programs that drop the right to open the device before they create their
/// last address space. Other programs use [`AddressSpace::new()`].
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens `/dev/address_space`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: ENOENT if the module is not loaded, EACCES if the user may
    /// not open the device.
    pub fn open() -> Result<Device> {
        // To read is all that the calls of the device need.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match open("/dev/address_space", flags, Mode::empty()) {
            Ok(fd) => Ok(Device { fd }),
            Err(errno) => Err(Error::Open { errno }),
        }
    }

    /// Creates an address space of `length` bytes in which nothing is mapped.
    ///
    /// # Errors
    ///
    /// [`Error::Create`]: EINVAL if the length is not a multiple of the page size,
    /// 0, or more than 2^47; ENOMEM, EMFILE, ENFILE; EBUSY if the system is being
    /// suspended; ENODEV if the kernel cannot start a usermode helper.
    pub fn create(&self, length: u64) -> Result<AddressSpace> {
        self.create_with(length, Holes::empty())
    }

    /// The same, with what becomes of accesses to holes through the asfd.
    ///
    /// # Errors
    ///
    /// As [`create()`](Device::create); and EINVAL for flags that do not go together,
    /// EPERM for [`Holes::KERNEL`] without CAP_SYS_PTRACE.
    pub fn create_with(&self, length: u64, holes: Holes) -> Result<AddressSpace> {
        self.make(length, holes, Ok(None))
    }

    /// The same, with a name that shows in `/proc/PID/fd` and `/proc/PID/maps`, as
    /// `/address_space:NAME (deleted)`, and serves for nothing else.
    ///
    /// # Errors
    ///
    /// As [`create_with()`](Device::create_with); and EINVAL for a name of more than
    /// [`sys::ADDRESS_SPACE_NAME_MAX`] bytes, or with a NUL in it.
    pub fn create_named(&self, called: &str, length: u64, holes: Holes) -> Result<AddressSpace> {
        self.make(length, holes, name(called).map(Some))
    }

    fn make(
        &self,
        length: u64,
        holes: Holes,
        name: std::result::Result<Option<CString>, Errno>,
    ) -> Result<AddressSpace> {
        name.and_then(|name| {
            let argument = sys::address_space_create {
                size: size_field::<sys::address_space_create>(),
                flags: holes.bits(),
                length,
                name: name_field(name.as_ref()),
            };
            call_for_fd(&self.fd, argument)
        })
        .map(AddressSpace::from)
        .map_err(|errno| Error::Create { length, errno })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For a device that another process has opened.
impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Device { fd }
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}
