// SPDX-License-Identifier: GPL-2.0

//! Address spaces as file descriptors.
//!
//! `space/mod.rs` is where to begin: the object, and the lock order. Imports run one way:
//! `call` > `attachment` > `space` > `segment` > `layout`, `sys`.

use kernel::{
    miscdevice::{
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*, //
};

mod attachment;
mod call;
#[forbid(unsafe_code)]
mod layout;
mod segment;
mod space;
mod sys;

module! {
    type: AddressSpaceModule,
    name: "address_space",
    authors: ["The address space developers"],
    description: "Address spaces as file descriptors",
    license: "GPL",
    alias: ["fs-address_space"],
    imports_ns: ["EXPORTED_FOR_KUNIT_TESTING"],
}

/// What lives as long as the module is loaded; dropped in this order.
#[pin_data]
struct AddressSpaceModule {
    #[pin]
    _named_files: sys::named_files::FileSystem<call::named::Named>,
    #[pin]
    _device: MiscDeviceRegistration<call::device::Device>,
    _mm_source: segment::mm_source::MmSource,
    _workers: sys::workers::Workers,
}

impl kernel::InPlaceModule for AddressSpaceModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pr_info!(
            "version {}, an mm comes from {}\n",
            env!("ADDRESS_SPACE_VERSION"),
            segment::mm_source::NAME
        );
        // Last what may be used as soon as it is registered.
        try_pin_init!(Self {
            _workers: sys::workers::Workers::start()?,
            _mm_source: segment::mm_source::MmSource::prepare()?,
            _named_files <- sys::named_files::FileSystem::register(c"address_space"),
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"address_space",
            }),
        })
    }
}
