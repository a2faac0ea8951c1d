// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A view: a range of an address space that can only be attached.

use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::range::bytes_of;
use crate::{KvmFlags, KvmWindow, Prot, Result, Window, space};

/// A range of an address space, with a protection: created by
/// [`AddressSpace::view()`](crate::AddressSpace::view).
///
/// It can only be attached, not changed, and does not give access to the rest of
/// the address space. It is live: it shows what is mapped in its range at any
/// moment. Offset 0 of the view is the start of its range.
///
/// Like an asfd, it can be sent to another process as a file descriptor. What a file
/// descriptor is of is not checked when a view is made of it: [`attach()`](View::attach)
/// then attaches whatever can be mapped, a memfd too, and only
/// [`attach_kvm()`](View::attach_kvm) fails.
#[derive(Debug)]
pub struct View {
    fd: OwnedFd,
}

impl View {
    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Length`](crate::Error::Length), which does not happen to an open
    /// view.
    pub fn length(&self) -> Result<u64> {
        space::length(self.as_fd())
    }

    /// By which [events](crate::Event) name accesses through the view.
    ///
    /// # Errors
    ///
    /// [`Error::Length`](crate::Error::Length), which does not happen to an open
    /// view.
    pub fn id(&self) -> Result<u64> {
        space::id(self.as_fd())
    }

    /// Attaches a range of the view (bytes; the start is a multiple of the page
    /// size) to this process.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`](crate::Error::Attach): EACCES if the view does not allow
    /// the protection; EINVAL if the range is empty, does
    /// not start at a page, or is not within the view; ENOMEM.
    pub fn attach(&self, range: impl RangeBounds<u64>, prot: Prot) -> Result<Window> {
        Window::attach(self.as_fd(), bytes_of(self.as_fd(), range)?, prot)
    }

    /// Makes a range of the view (bytes, multiples of the page size) a memory
    /// slot of a virtual machine that this process created: see
    /// [`AddressSpace::attach_kvm()`](crate::AddressSpace::attach_kvm).
    ///
    /// # Errors
    ///
    /// As there; and EACCES if the view does not allow writing and `flags` does not
    /// contain [`KvmFlags::READONLY`].
    pub fn attach_kvm(
        &self,
        vm: impl AsFd,
        slot: u32,
        guest_phys_addr: u64,
        range: impl RangeBounds<u64>,
        flags: KvmFlags,
    ) -> Result<KvmWindow> {
        KvmWindow::attach(
            self.as_fd(),
            vm.as_fd(),
            slot,
            guest_phys_addr,
            bytes_of(self.as_fd(), range)?,
            flags,
        )
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For a view that was received from another process.
impl From<OwnedFd> for View {
    fn from(fd: OwnedFd) -> Self {
        View { fd }
    }
}

impl From<View> for OwnedFd {
    fn from(view: View) -> Self {
        view.fd
    }
}
