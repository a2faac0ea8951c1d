// SPDX-License-Identifier: GPL-2.0

//! Address spaces as file descriptors.
//!
//! `space.rs` is where to begin: the object, and the lock order.

use kernel::{
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::atomic, // What `layout/entered.rs` takes from here.
};

mod arena;
mod asfd;
mod attach;
mod batch;
mod bindings;
mod birth;
mod change;
mod device;
mod enter;
mod failures;
mod fault;
mod fdinfo;
mod file;
mod frame;
mod frames;
mod huge;
mod install;
mod kvm;
#[forbid(unsafe_code)]
#[allow(dead_code)]
mod layout;
mod listed;
mod mapping;
mod notifier;
mod populate;
mod request;
mod resolve;
mod revoke;
mod segment;
mod segments;
mod space;
#[forbid(unsafe_code)]
mod stale;
mod streak;
mod trace;
mod uapi;
mod view;
mod workers;

module! {
    type: AddressSpaceModule,
    name: "address_space",
    authors: ["The address space developers"],
    description: "Address spaces as file descriptors",
    license: "GPL",
    imports_ns: ["EXPORTED_FOR_KUNIT_TESTING"],
}

/// What lives as long as the module is loaded; dropped in this order.
#[pin_data]
struct AddressSpaceModule {
    #[pin]
    _device: MiscDeviceRegistration<device::Device>,
    _births: birth::Births,
    _workers: workers::Workers,
}

impl kernel::InPlaceModule for AddressSpaceModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // The device last: once it is there it may be used.
        try_pin_init!(Self {
            _workers: workers::Workers::start()?,
            _births: birth::Births::prepare()?,
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"address_space",
            }),
        })
    }
}
