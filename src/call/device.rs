// SPDX-License-Identifier: GPL-2.0

//! /dev/address_space: makes address spaces, lends memory, and says what can be made of either.

use kernel::{
    bindings::{
        O_CLOEXEC,
        O_RDWR, //
    },
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    prelude::*, //
};

use crate::{
    call::{
        asfd::Asfd,
        lend,
        query,
        request,
        uapi, //
    },
    space::{
        policy::Policy,
        Handle, //
    },
    sys::{
        file_operations,
        mapping::Mapping,
        module, //
    },
};

/// The device. It has no state: what it makes lives in the file descriptors it returns.
pub(crate) struct Device;

#[vtable]
impl MiscDevice for Device {
    type Ptr = KBox<Device>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        module::keep_while_open(file)?;
        Ok(KBox::new(Device, GFP_KERNEL)?)
    }

    fn ioctl(_device: &Device, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            uapi::CREATE => create(UserPtr::from_addr(arg)),
            uapi::LEND => lend::lend(UserPtr::from_addr(arg)),
            uapi::QUERY => query::query(UserPtr::from_addr(arg)),
            _ => Err(ENOTTY),
        }
    }
}

fn create(arg: UserPtr) -> Result<isize> {
    let arg: uapi::Create = uapi::read(arg)?;
    request::reject_unknown_flags(arg.flags, uapi::HOLE_FLAGS)?;
    let policy = request::policy(arg.flags)?.unwrap_or(Policy::SIGNAL);
    let pages = request::space_pages(arg.length)?;
    let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
    let name = uapi::Name::read(c"address_space", arg.name)?;
    let file = file_operations::create(name.as_cstr(), O_RDWR | O_CLOEXEC, |file| {
        let mapping = Mapping::of(file)?;
        let id = mapping.ino() as u64;
        Asfd::new(Handle::create(pages, mapping)?, policy, id)
    })?;
    let number = fd.reserved_fd();
    fd.fd_install(file);
    Ok(number as isize)
}
