// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A view: a part of an address space, to be attached and nothing else.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{KvmFlags, KvmWindow, Prot, Result, Window, space};

/// A part of an address space, for no more than some protection: made by
/// [`AddressSpace::view()`](crate::AddressSpace::view).
///
/// It can only be attached, not changed, and gives no way to the rest of the
/// address space. What is mapped in the address space and unmapped from it
/// shows through. Offset 0 of the view is where its range begins.
///
/// As with an asfd, give it to another process by sending it as a file
/// descriptor. One that is no view is found out when it is used.
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

    /// Attaches a range of the view (bytes, from a multiple of the page size)
    /// to this process.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`](crate::Error::Attach): EACCES where the view does not
    /// allow the protection; EPERM for [`Prot::EXEC`]; EINVAL where the range is
    /// empty, does not begin at a page, or leaves the view; ENOMEM.
    pub fn attach(&self, range: Range<u64>, prot: Prot) -> Result<Window> {
        Window::attach(self.as_fd(), range, prot)
    }

    /// Makes a range of the view (bytes, multiples of the page size) a memory
    /// slot of a virtual machine that this process made: see
    /// [`AddressSpace::attach_kvm()`](crate::AddressSpace::attach_kvm).
    ///
    /// # Errors
    ///
    /// As there; and EACCES where the view does not allow writing and `flags`
    /// has no [`KvmFlags::READONLY`].
    pub fn attach_kvm(
        &self,
        vm: impl AsFd,
        slot: u32,
        guest_phys_addr: u64,
        range: Range<u64>,
        flags: KvmFlags,
    ) -> Result<KvmWindow> {
        KvmWindow::attach(
            self.as_fd(),
            vm.as_fd(),
            slot,
            guest_phys_addr,
            range,
            flags,
        )
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A view that another process sent.
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
