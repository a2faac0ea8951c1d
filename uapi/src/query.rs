// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel and the loaded module can do.

use bitflags::bitflags;
use rustix::fs::{Mode, OFlags, open};

use crate::call::{call, size_field};
use crate::{Device, Error, Result, sys};

bitflags! {
    /// What the loaded module can do. One that is newer may have bits without a name here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// Asfds and views can have names.
        const NAMES = sys::ADDRESS_SPACE_FEATURE_NAMES;
        /// An asfd or view can be opened through `/proc/PID/fd`.
        const REOPEN = sys::ADDRESS_SPACE_FEATURE_REOPEN;
        /// What is mapped for execution can be executed in an attachment.
        const EXEC = sys::ADDRESS_SPACE_FEATURE_EXEC;
        /// A view can manage its range.
        const MANAGE = sys::ADDRESS_SPACE_FEATURE_MANAGE;
        /// Holes can be absorbed and waited for, watched and poisoned.
        const HOLES = sys::ADDRESS_SPACE_FEATURE_HOLES;
        /// An unmap can let go of files at once.
        const RELEASE = sys::ADDRESS_SPACE_FEATURE_RELEASE;
        /// All registrations can be ended at once.
        const UNREGISTER_ALL = sys::ADDRESS_SPACE_FEATURE_UNREGISTER_ALL;
        /// The kernel was built with KVM.
        const KVM = sys::ADDRESS_SPACE_FEATURE_KVM;
        /// Attachments have huge pages.
        const HUGE_PAGES = sys::ADDRESS_SPACE_FEATURE_HUGE_PAGES;
        /// A process can lend its memory.
        const LEND = sys::ADDRESS_SPACE_FEATURE_LEND;
        /// Files can be mapped and registered private.
        const PRIVATE = sys::ADDRESS_SPACE_FEATURE_PRIVATE;
        /// It can be said what is wanted of the memory of a range.
        const ADVISE = sys::ADDRESS_SPACE_FEATURE_ADVISE;
        /// A program can ask what is mapped: [`AddressSpace::layout()`](crate::AddressSpace::layout).
        const LAYOUT = sys::ADDRESS_SPACE_FEATURE_LAYOUT;
        /// Address spaces can have names in a mounted file system.
        const MOUNT = sys::ADDRESS_SPACE_FEATURE_MOUNT;
        const _ = !0;
    }
}

/// What the kernel and the loaded module can do: see [`query()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The version of the interface: [`sys::ADDRESS_SPACE_VERSION`] is the one of this
    /// crate.
    pub version: u32,
    /// What there is of it.
    pub features: Features,
    /// The longest address space in bytes.
    pub max_length: u64,
    /// The longest name in bytes.
    pub max_name: usize,
    /// The most operations of a batch.
    pub max_operations: usize,
    /// The most separate ranges that are poisoned.
    pub max_poisoned: usize,
    /// How many events are kept until they are read.
    pub max_events: usize,
}

/// Asks the kernel what it and the loaded module can do. To read the device is enough.
///
/// ```no_run
/// # use address_space::Features;
/// # fn main() -> Result<(), address_space::Error> {
/// let can = address_space::query()?;
/// if !can.features.contains(Features::KVM) {
///     println!("this kernel has no KVM");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Open`]: ENOENT if the module is not loaded, EACCES if the user may not open
/// the device. [`Error::Query`]: ENOTTY if the module is older than this call.
pub fn query() -> Result<Capabilities> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match open("/dev/address_space", flags, Mode::empty()) {
        Ok(fd) => Device::from(fd).query(),
        Err(errno) => Err(Error::Open { errno }),
    }
}

impl Device {
    /// As [`query()`], by a device that is open.
    ///
    /// # Errors
    ///
    /// [`Error::Query`]: ENOTTY if the module is older than this call.
    pub fn query(&self) -> Result<Capabilities> {
        let mut answer = sys::address_space_query {
            size: size_field::<sys::address_space_query>(),
            ..Default::default()
        };
        call(self, &mut answer).map_err(|errno| Error::Query { errno })?;
        Ok(Capabilities {
            version: answer.version,
            features: Features::from_bits_retain(answer.features),
            max_length: answer.max_length,
            max_name: answer.max_name as usize,
            max_operations: answer.max_ops as usize,
            max_poisoned: answer.max_poisoned as usize,
            max_events: answer.max_events as usize,
        })
    }
}
