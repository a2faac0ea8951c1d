// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A window as a memory slot of a KVM virtual machine.

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
        /// The guest may only read. Its writes end `KVM_RUN` with
        /// `KVM_EXIT_MMIO`.
        const READONLY = sys::KVM_MEM_READONLY;
    }
}

/// A window of an address space or view that is a memory slot of a virtual
/// machine, and the same memory in this process.
///
/// # Letting go
///
/// [`unmap()`](KvmWindow::unmap) is how: it removes the slot and the window.
/// Wherever a virtual machine comes and goes within the life of a process, call
/// it before the virtual machine goes.
///
/// **Dropping this takes nothing away**, as a guest's memory should not go by
/// accident: only the two file descriptors that it has of its own are closed.
/// The slot is still there, and so is the window in this process, which
///
/// - keeps the virtual machine: closing all file descriptors of it and its vCPUs
///   does not end it;
/// - keeps the address space, with the files that are mapped in it;
/// - keeps the slot taken: attaching the address space there again is EEXIST.
///
/// All of that is for as long as the window is there: until this process ends or
/// executes another program. A forked child's copy of the window does not keep
/// the virtual machine.
///
/// After a drop nothing here finds the window any more. What is left then is
/// [`sys::ADDRESS_SPACE_KVM_UNMAP`] with the number of the slot, on any asfd or
/// view of the address space and a file descriptor of the virtual machine, which
/// does the same as [`unmap()`](KvmWindow::unmap); or, where those are closed,
/// `munmap(2)` of the window, of which [`as_ptr()`](Memory::as_ptr) and
/// [`length()`](Memory::length) must have been kept.
#[derive(Debug)]
pub struct KvmWindow {
    memory: Memory,
    slot: u32,
    guest_phys_addr: u64,
    // Of our own, so that unmap() finds the slot it means, whatever the caller
    // has done with his.
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

        // Before the call, so that nothing is left to fail after it.
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

        // The kernel attached the window with what the slot needs.
        let prot = match flags.contains(KvmFlags::READONLY) {
            true => Prot::READ,
            false => Prot::READ | Prot::WRITE,
        };
        let start = std::ptr::with_exposed_provenance_mut(argument.window as usize);
        let start = NonNull::new(start).ok_or_else(|| error(Errno::FAULT))?;
        // SAFETY: The kernel has just mapped this window; only unmap() unmaps
        // it, and consumes the only way to the memory.
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

    /// Where the guest finds it, in bytes.
    pub fn guest_phys_addr(&self) -> u64 {
        self.guest_phys_addr
    }

    /// Removes the memory slot from the virtual machine, and the window from
    /// this process.
    ///
    /// # Errors
    ///
    /// [`Error::KvmUnmap`]: EIO where this process is not the one that made the
    /// virtual machine (a forked child); ENOENT where the window has been unmapped
    /// by other means. What there is of the two stays, as if this had been
    /// [dropped](KvmWindow#letting-go). A slot that was removed with
    /// `KVM_SET_USER_MEMORY_REGION` is no error: the window goes.
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

/// Borrows the file descriptor of a `kvm-ioctls` virtual machine, which does
/// not lend it itself.
#[cfg(feature = "kvm-ioctls")]
pub fn vm_fd(vm: &kvm_ioctls::VmFd) -> BorrowedFd<'_> {
    // SAFETY: It stays open as long as `vm`, which is borrowed for as long.
    unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) }
}
