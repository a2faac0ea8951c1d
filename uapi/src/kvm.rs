// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attachments that are memory slots of KVM virtual machines.

mod region;
mod unmap_error;

use std::ops::{Deref, Range};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::io::fcntl_dupfd_cloexec;

use crate::call::{call, is_of_space, size_field};
use crate::window::Memory;
use crate::{Errno, Error, Prot, Result, sys};
pub use unmap_error::KvmUnmapError;

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
        /// [`Holes::KERNEL`](crate::Holes::KERNEL), with `HOLES_WAIT`: for KVM's own
        /// accesses. EPERM without CAP_SYS_PTRACE.
        const HOLES_KERNEL = sys::ADDRESS_SPACE_HOLE_KERNEL;
        /// [`Holes::DENIED`](crate::Holes::DENIED).
        const HOLES_DENIED = sys::ADDRESS_SPACE_HOLE_DENIED;
    }
}

/// An attachment of an address space or view that is a memory slot of a virtual
/// machine.
///
/// It dereferences to [`Memory`]: what the guest has there, as this process sees it.
///
/// # Removing the slot
///
/// When it is dropped, the slot is removed and the memory is unmapped in this process. The
/// guest then has nothing at these addresses, and an access to them ends `KVM_RUN` with
/// `KVM_EXIT_MMIO`, as where there never was a slot: so keep it for as long as the guest is
/// to have the memory. It has file descriptors of its own, so it can be dropped before the
/// virtual machine is closed or after. A virtual machine whose windows have all been dropped
/// ends with its file descriptors.
///
/// [`unmap()`](KvmWindow::unmap) does the same, and says if it fails. After a drop that has
/// failed, all is as after [`leak()`](KvmWindow::leak).
///
/// As every change of memory slots, both wait for vCPUs that are in the middle of an
/// access, and so does [`set_flags()`](KvmWindow::set_flags). One that waits at a hole
/// ([`Holes::WAIT`](crate::Holes::WAIT)) is: have something mapped there,
/// [poison](crate::AddressSpace::poison) it, or drop the [`Events`](crate::Events) first.
///
/// # Keeping it for good
///
/// [`leak()`](KvmWindow::leak) is for a guest that lives as long as the process. The slot and
/// the attachment stay, until this process ends or executes another program, and hold the
/// virtual machine and the address space with its files: closing all file descriptors ends
/// neither.
///
/// # After a fork
///
/// The virtual machine is the parent's. In a child, a drop and [`unmap()`](KvmWindow::unmap)
/// remove nothing, and the copy of the attachment there holds no virtual machine.
#[derive(Debug)]
#[must_use = "the slot is removed when this is dropped"]
pub struct KvmWindow {
    memory: Memory,
    slot: u32,
    guest_phys_addr: u64,
    /// What the slot has. The lock keeps it what KVM has.
    flags: Mutex<KvmFlags>,
    /// None where there is nothing to remove any more.
    owned: Option<Owned>,
}

/// Duplicates, so that the right slot is found whatever the caller does with its own file
/// descriptors.
#[derive(Debug)]
struct Owned {
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
        let owned = Owned {
            fd: duplicate(fd)?,
            vm: duplicate(vm)?,
        };

        let mut argument = sys::address_space_kvm_map {
            size: size_field::<sys::address_space_kvm_map>(),
            flags: flags.bits(),
            vmfd: owned.vm.as_raw_fd(),
            slot,
            guest_phys_addr,
            memory_size: length,
            offset: range.start,
            window: 0,
        };
        // Whatever another file answers must not be taken for an attachment.
        match is_of_space(owned.fd.as_fd()) {
            Ok(true) => call(&owned.fd, &mut argument).map_err(error)?,
            Ok(false) => return Err(error(Errno::NOTTY)),
            Err(errno) => return Err(error(errno)),
        };

        // The kernel attached the range with the protection that the slot needs.
        let prot = match flags.contains(KvmFlags::READONLY) {
            true => Prot::READ,
            false => Prot::READ_WRITE,
        };
        let start = std::ptr::with_exposed_provenance_mut(argument.window as usize);
        let start = NonNull::new(start).ok_or_else(|| error(Errno::FAULT))?;
        // SAFETY: The kernel has just created this attachment. Only remove() removes it,
        // after which nothing borrows from the memory.
        let memory = unsafe { Memory::new(start, window_length, prot) };
        Ok(KvmWindow {
            memory,
            slot,
            guest_phys_addr,
            flags: Mutex::new(flags),
            owned: Some(owned),
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

    /// The flags of the slot: those it was made with, and what
    /// [`set_flags()`](KvmWindow::set_flags) has changed.
    pub fn flags(&self) -> KvmFlags {
        *self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the flags of the slot, of which only [`KvmFlags::LOG_DIRTY_PAGES`] can be
    /// changed: to log what the guest writes while it is migrated, or saved.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, KvmFlags};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "kvm-ioctls")] {
    /// # let vm = kvm_ioctls::Kvm::new()?.create_vm()?;
    /// # let ram = AddressSpace::new(1 << 20)?;
    /// # let window = ram.attach_kvm(address_space::vm_fd(&vm), 0, 0, .., KvmFlags::empty())?;
    /// window.set_flags(window.flags() | KvmFlags::LOG_DIRTY_PAGES)?;
    /// let written = vm.get_dirty_log(window.slot(), window.len())?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// KVM logs what the guest writes. Writes to the same pages through this window, other
    /// attachments and files are not in its log.
    ///
    /// # Errors
    ///
    /// [`Error::KvmSetFlags`], and the flags are what they were: EINVAL for a change of
    /// others, or if the caller has used the slot for other memory; EIO if another process
    /// created the virtual machine; ENOMEM. A slot that the caller has removed with
    /// `KVM_SET_USER_MEMORY_REGION` is there again.
    pub fn set_flags(&self, flags: KvmFlags) -> Result<()> {
        let error = |errno| Error::KvmSetFlags {
            slot: self.slot,
            flags,
            errno,
        };
        let mut is = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owned) = &self.owned else {
            return Err(error(Errno::NOENT));
        };
        if !KvmFlags::LOG_DIRTY_PAGES.contains(*is ^ flags) {
            return Err(error(Errno::INVAL));
        }
        let of_kvm = flags & (KvmFlags::LOG_DIRTY_PAGES | KvmFlags::READONLY);
        region::set_flags(
            &owned.vm,
            self.slot,
            of_kvm.bits(),
            self.guest_phys_addr,
            &self.memory,
        )
        .map_err(error)?;
        *is = flags;
        Ok(())
    }

    /// Removes the memory slot from the virtual machine, and the attachment from
    /// this process: see [above](KvmWindow#removing-the-slot).
    ///
    /// # Errors
    ///
    /// A [`KvmUnmapError`], which has the window, with [`Error::KvmUnmap`]: EIO if another
    /// process created the virtual machine (in a forked child); EPERM if the memory is
    /// sealed (`mseal()`); ENOENT if the attachment has been unmapped by other means. It is
    /// not an error if the slot has been removed with `KVM_SET_USER_MEMORY_REGION`: the
    /// attachment is removed.
    pub fn unmap(mut self) -> std::result::Result<(), KvmUnmapError> {
        match self.remove() {
            Ok(()) => Ok(()),
            Err(error) => Err(KvmUnmapError {
                window: self,
                error,
            }),
        }
    }

    /// Keeps the slot for good: see [above](KvmWindow#keeping-it-for-good). The guest has it
    /// until this process ends.
    ///
    /// The number of the slot with a file descriptor of the virtual machine, and one of the
    /// address space, remain enough to remove it: [`sys::ADDRESS_SPACE_KVM_UNMAP`]. Who does
    /// that must not use the memory any more.
    pub fn leak(mut self) -> &'static Memory {
        self.owned = None;
        // SAFETY: The attachment stays from now on.
        let memory = unsafe { self.memory.duplicate() };
        Box::leak(Box::new(memory))
    }

    /// Removes slot and attachment, if they have not been.
    fn remove(&mut self) -> Result<()> {
        let Some(Owned { fd, vm }) = &self.owned else {
            return Ok(());
        };
        let mut argument = sys::address_space_kvm_unmap {
            size: size_field::<sys::address_space_kvm_unmap>(),
            flags: 0,
            vmfd: vm.as_raw_fd(),
            slot: self.slot,
        };
        call(fd, &mut argument).map_err(|errno| Error::KvmUnmap {
            slot: self.slot,
            errno,
        })?;
        self.owned = None;
        Ok(())
    }
}

impl Deref for KvmWindow {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for KvmWindow {
    fn drop(&mut self) {
        // If it fails the slot stays with its memory, which does the guest no harm.
        let _ = self.remove();
    }
}

/// Borrows the file descriptor of a `kvm-ioctls` virtual machine, which is not
/// [`AsFd`](std::os::fd::AsFd).
#[cfg(feature = "kvm-ioctls")]
pub fn vm_fd(vm: &kvm_ioctls::VmFd) -> BorrowedFd<'_> {
    // SAFETY: The file descriptor is open for as long as `vm`, which is borrowed.
    unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) }
}
