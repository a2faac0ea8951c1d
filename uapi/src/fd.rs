// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What all types that own a file descriptor have: raw file descriptors, and duplicates.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;

use crate::{AddressSpace, Device, Error, Events, Lend, Result, View};

macro_rules! file_descriptors {
    ($($name:ident: $what:literal),* $(,)?) => { $(
        impl $name {
            #[doc = concat!("Another file descriptor of the same open ", $what, ", close-on-exec.")]
            ///
            /// # Errors
            ///
            /// [`Error::Duplicate`]: EMFILE.
            pub fn try_clone(&self) -> Result<$name> {
                match fcntl_dupfd_cloexec(self, 0) {
                    Ok(fd) => Ok($name::from(fd)),
                    Err(errno) => Err(Error::Duplicate { errno }),
                }
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                std::os::fd::AsFd::as_fd(self).as_raw_fd()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl FromRawFd for $name {
            unsafe fn from_raw_fd(fd: RawFd) -> Self {
                // SAFETY: The caller hands over an open file descriptor.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }
    )* };
}

file_descriptors! {
    AddressSpace: "address space",
    Device: "device",
    Events: "events file",
    Lend: "lend",
    View: "view",
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::{FdFlags, fcntl_getfd};

    #[test]
    fn raw_file_descriptors_go_in_and_out() {
        let file = memfd_create("file", MemfdFlags::empty()).unwrap();
        ftruncate(&file, 0x3000).unwrap();
        let raw = file.into_raw_fd();
        // SAFETY: It has just been let go of.
        let view = unsafe { View::from_raw_fd(raw) };
        assert_eq!(view.as_raw_fd(), raw);
        let other = view.try_clone().unwrap();
        assert_ne!(other.as_raw_fd(), raw);
        assert!(fcntl_getfd(&other).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(view.into_raw_fd(), raw);
        // SAFETY: As above.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
        assert_eq!(other.length().unwrap(), 0x3000);
    }
}
