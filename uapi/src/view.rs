// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A view: a range of an address space that can only be attached, and how it is made.

use std::ffi::CString;
use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::batch::length_of;
use crate::call::{call_for_fd, name, name_field, size_field};
use crate::range::bytes_of;
use crate::{
    AddressSpace, Errno, Error, Holes, KvmFlags, KvmWindow, Prot, Result, Window, space, sys,
};

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

impl AddressSpace {
    /// Creates a view of a range (bytes, multiples of the page size), with the
    /// protection `prot`.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), address_space::Error> {
    /// let space = AddressSpace::new(1 << 30)?;
    /// let view = space.view(0..1 << 20, Prot::READ)?;
    /// assert_eq!(view.length()?, 1 << 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::View`]: EINVAL if the range is empty, not aligned to pages, or not
    /// within the address space, or if `prot` has no [`Prot::READ`]; ENOMEM,
    /// EMFILE, ENFILE.
    pub fn view(&self, range: impl RangeBounds<u64>, prot: Prot) -> Result<View> {
        self.view_with(range, prot, Holes::empty())
    }

    /// The same, with what becomes of accesses to holes through the view.
    ///
    /// # Errors
    ///
    /// As for [`view()`](AddressSpace::view); and EINVAL for flags that do not go
    /// together, EPERM for [`Holes::KERNEL`] without CAP_SYS_PTRACE.
    pub fn view_with(
        &self,
        range: impl RangeBounds<u64>,
        prot: Prot,
        holes: Holes,
    ) -> Result<View> {
        self.make_view(range, prot, holes.bits(), Ok(None))
            .map(View::from)
    }

    /// The same, with a name that shows in `/proc/PID/fd` and `/proc/PID/maps`, as
    /// `/address_space_view:NAME (deleted)`, and serves for nothing else: that of the
    /// device that gets the view, say.
    ///
    /// # Errors
    ///
    /// As for [`view_with()`](AddressSpace::view_with); and EINVAL for a name of more
    /// than [`sys::ADDRESS_SPACE_NAME_MAX`] bytes, or with a NUL in it.
    pub fn view_named(
        &self,
        called: &str,
        range: impl RangeBounds<u64>,
        prot: Prot,
        holes: Holes,
    ) -> Result<View> {
        self.make_view(range, prot, holes.bits(), name(called).map(Some))
            .map(View::from)
    }

    /// Makes a file descriptor with all rights to a range (bytes, multiples of the page
    /// size), and to no more: what is mapped there can be changed, for no more than
    /// `prot`. Its offset 0 is the start of the range. Each map needs a place in it
    /// ([`Map::at()`](crate::Map::at)); to watch and to poison stays with the whole.
    ///
    /// For a process that composes a part of what others see, such as a file server
    /// with its DAX window in the memory of a virtual machine. It is sent to the process
    /// as a file descriptor, and `AddressSpace::from()` makes an address space of that
    /// again.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), address_space::Error> {
    /// let memory = AddressSpace::new(1 << 40)?;
    /// let window = memory.part(1 << 32..2 << 32, Prot::READ_WRITE)?;
    /// assert_eq!(window.length()?, 1 << 32);
    /// window.unmap(0..1 << 32)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`view()`](AddressSpace::view).
    pub fn part(&self, range: impl RangeBounds<u64>, prot: Prot) -> Result<AddressSpace> {
        self.part_with(range, prot, Holes::empty())
    }

    /// The same, with what becomes of accesses to holes through the file descriptor.
    ///
    /// # Errors
    ///
    /// As for [`view_with()`](AddressSpace::view_with).
    pub fn part_with(
        &self,
        range: impl RangeBounds<u64>,
        prot: Prot,
        holes: Holes,
    ) -> Result<AddressSpace> {
        let flags = sys::ADDRESS_SPACE_VIEW_MANAGE | holes.bits();
        self.make_view(range, prot, flags, Ok(None))
            .map(AddressSpace::from)
    }

    /// The same, with a name, as [`view_named()`](AddressSpace::view_named) has it.
    ///
    /// # Errors
    ///
    /// As for [`view_named()`](AddressSpace::view_named).
    pub fn part_named(
        &self,
        called: &str,
        range: impl RangeBounds<u64>,
        prot: Prot,
        holes: Holes,
    ) -> Result<AddressSpace> {
        let flags = sys::ADDRESS_SPACE_VIEW_MANAGE | holes.bits();
        self.make_view(range, prot, flags, name(called).map(Some))
            .map(AddressSpace::from)
    }

    fn make_view(
        &self,
        range: impl RangeBounds<u64>,
        prot: Prot,
        flags: u32,
        name: std::result::Result<Option<CString>, Errno>,
    ) -> Result<OwnedFd> {
        let range = self.bytes_of(range)?;
        name.and_then(|name| {
            let argument = sys::address_space_view {
                size: size_field::<sys::address_space_view>(),
                flags,
                prot: prot.bits(),
                __reserved: 0,
                offset: range.start,
                length: length_of(&range),
                name: name_field(name.as_ref()),
            };
            call_for_fd(&self.fd, argument)
        })
        .map_err(|errno| Error::View { range, prot, errno })
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
