// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attachments that are memory slots of KVM virtual machines.

use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::fcntl_dupfd_cloexec;

use crate::call::{call, size_field};
use crate::window::Memory;
use crate::{Errno, Error, Prot, Result, sys};

bitflags::bitflags! {
    /// Flags of a memory slot, as of `KVM_SET_USER_MEMORY_REGION`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct KvmFlags: u32 {
        /// KVM keeps a log of the pages the guest writes to, for
        /// `KVM_GET_DIRTY_LOG`.
        const LOG_DIRTY_PAGES = sys::KVM_MEM_LOG_DIRTY_PAGES;
        /// The guest can only read. A write ends `KVM_RUN` with `KVM_EXIT_MMIO`.
        const READONLY = sys::KVM_MEM_READONLY;
        /// [`Holes::SIGNAL`](crate::Holes::SIGNAL) for the slot. Without one of these
        /// flags it has the policy of the asfd or view; of a view, another is EPERM.
        const HOLES_SIGNAL = sys::ADDRESS_SPACE_HOLE_SIGNAL;
        /// [`Holes::ABSORB`](crate::Holes::ABSORB).
        const HOLES_ABSORB = sys::ADDRESS_SPACE_HOLE_ABSORB;
        /// [`Holes::WAIT`](crate::Holes::WAIT).
        const HOLES_WAIT = sys::ADDRESS_SPACE_HOLE_WAIT;
        /// [`Holes::DENIED`](crate::Holes::DENIED).
        const HOLES_DENIED = sys::ADDRESS_SPACE_HOLE_DENIED;
    }
}

/// An attachment of an address space or view that is a memory slot of a virtual
/// machine.
///
/// # Removing the slot
///
/// [`unmap()`](KvmWindow::unmap) removes the slot and the attachment. If a virtual
/// machine ends before the process does, call it before the virtual machine ends.
///
/// **Dropping a `KvmWindow` does not remove anything**, since a guest must not
/// lose its memory by accident: a drop closes only the two file descriptors that
/// the `KvmWindow` owns. The slot remains, and so does the attachment in this
/// process, which
///
/// - holds the virtual machine: closing all file descriptors of it and its vCPUs
///   does not end it;
/// - holds the address space, with the files that are mapped in it;
/// - keeps the slot in use: attaching the address space there again is EEXIST.
///
/// This lasts for as long as the attachment exists: until this process ends or
/// executes another program. A forked child's copy of the attachment does not
/// hold the virtual machine.
///
/// After a drop, two ways to remove the slot are left:
/// [`sys::ADDRESS_SPACE_KVM_UNMAP`] with the number of the slot, on any asfd or
/// view of the address space, with a file descriptor of the virtual machine, which
/// does the same as [`unmap()`](KvmWindow::unmap); or, if those are closed,
/// `munmap(2)` of the attachment, for which the caller must have kept
/// [`as_ptr()`](Memory::as_ptr) and [`length()`](Memory::length).
#[derive(Debug)]
pub struct KvmWindow {
    memory: Memory,
    slot: u32,
    guest_phys_addr: u64,
    // Duplicates, so that unmap() finds the right slot whatever the caller does with
    // its own file descriptors.
    fd: OwnedFd,
    vm: OwnedFd,
}

impl KvmWindow {
    pub(crate) fn attach(
        fd: BorrowedFd<'_>,
        vm: BorrowedFd<'_>,
        slot: u32,
        guest_phys_addr: u64,
        range: Range<u64>,
        flags: KvmFlags,
    ) -> Result<KvmWindow> {
        let length = range.end.saturating_sub(range.start);
        let error = |errno| Error::KvmMap {
            slot,
            guest_phys_addr,
            range: range.clone(),
            errno,
        };
        let window_length = usize::try_from(length).map_err(|_| error(Errno::OVERFLOW))?;

        // Before the call, so that nothing can fail after it.
        let duplicate = |fd| fcntl_dupfd_cloexec(fd, 0).map_err(|errno| Error::Duplicate { errno });
        let (fd, vm) = (duplicate(fd)?, duplicate(vm)?);

        let mut argument = sys::address_space_kvm_map {
            size: size_field::<sys::address_space_kvm_map>(),
            flags: flags.bits(),
            vmfd: vm.as_raw_fd(),
            slot,
            guest_phys_addr,
            memory_size: length,
            offset: range.start,
            window: 0,
        };
        call(&fd, &mut argument).map_err(error)?;

        // The kernel attached the range with the protection that the slot needs.
        let prot = match flags.contains(KvmFlags::READONLY) {
            true => Prot::READ,
            false => Prot::READ_WRITE,
        };
        let start = std::ptr::with_exposed_provenance_mut(argument.window as usize);
        let start = NonNull::new(start).ok_or_else(|| error(Errno::FAULT))?;
        // SAFETY: The kernel has just created this attachment. Only unmap() removes it,
        // and it consumes the only access to the memory.
        let memory = unsafe { Memory::new(start, window_length, prot) };
        Ok(KvmWindow {
            memory,
            slot,
            guest_phys_addr,
            fd,
            vm,
        })
    }

    /// The memory slot, with KVM's address space id in the upper 16 bits.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The guest physical address of the slot, in bytes.
    pub fn guest_phys_addr(&self) -> u64 {
        self.guest_phys_addr
    }

    /// Removes the memory slot from the virtual machine, and the attachment from
    /// this process.
    ///
    /// # Errors
    ///
    /// [`Error::KvmUnmap`]: EIO if another process created the virtual machine (in
    /// a forked child); ENOENT if the attachment has been unmapped by other means.
    /// Whatever exists of the two remains, as after a
    /// [drop](KvmWindow#removing-the-slot). It is not an error if the slot has been
    /// removed with `KVM_SET_USER_MEMORY_REGION`: the attachment is removed.
    pub fn unmap(self) -> Result<()> {
        let mut argument = sys::address_space_kvm_unmap {
            size: size_field::<sys::address_space_kvm_unmap>(),
            flags: 0,
            vmfd: self.vm.as_raw_fd(),
            slot: self.slot,
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::KvmUnmap {
                slot: self.slot,
                errno,
            }),
        }
    }
}

impl Deref for KvmWindow {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

/// Borrows the file descriptor of a `kvm-ioctls` virtual machine, which is not
/// [`AsFd`](std::os::fd::AsFd).
#[cfg(feature = "kvm-ioctls")]
pub fn vm_fd(vm: &kvm_ioctls::VmFd) -> BorrowedFd<'_> {
    // SAFETY: The file descriptor is open for as long as `vm`, which is borrowed.
    unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) }
}
