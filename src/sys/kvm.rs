// SPDX-License-Identifier: GPL-2.0

//! A KVM virtual machine of the calling process, by its file.
//!
//! KVM exports no functions for memory slots, so its own ioctl is called, with the region in a
//! page of the caller's. kvm.ko may not be loaded, so nothing of it is linked to.
//!
//! C header: [`include/uapi/linux/kvm.h`](srctree/include/uapi/linux/kvm.h), which is stable.

use kernel::{
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
    uaccess::UserSlice, //
};

use crate::sys::{
    bindings,
    file,
    mm::CurrentMapping,
    plain::plain_structs, //
};

const KVM_CHECK_EXTENSION: u32 = kernel::ioctl::_IO(0xAE, 0x03);
const KVM_SET_USER_MEMORY_REGION: u32 = kernel::ioctl::_IOW::<Region>(0xAE, 0x46);
const KVM_CAP_USER_MEMORY: usize = 3;

/// Flag of a region: the guest's writes are logged.
pub(crate) const KVM_MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// Flag of a region: the guest's writes exit to user space.
pub(crate) const KVM_MEM_READONLY: u32 = 1 << 1;

plain_structs! {
    /// `struct kvm_userspace_memory_region`; sizes and addresses in bytes.
    Region {
        slot: u32,
        flags: u32,
        guest_phys_addr: u64,
        memory_size: u64,
        userspace_addr: u64,
    }
}

/// A virtual machine, whose file is held.
///
/// # Invariants
///
/// The file is one that KVM made for a VM.
#[derive(Clone)]
pub(crate) struct Machine(ARef<File>);

impl Machine {
    /// The machine that a file descriptor of the caller stands for. `EBADF`; `EINVAL` where it
    /// is no VM; `EIO` where it is another process's.
    pub(crate) fn from_fd(fd: i32) -> Result<Machine> {
        let file = file::from_fd(fd)?;
        if !file::is_kvm_vm(&file) {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        let machine = Machine(file);
        // KVM answers EIO to any call by a process that did not make the VM.
        machine.call(KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY)?;
        Ok(machine)
    }

    /// Distinguishes it from other VMs for as long as its file is held: compared, never followed.
    pub(crate) fn id(&self) -> usize {
        self.0.as_ptr() as usize
    }

    fn call(&self, cmd: u32, arg: usize) -> Result<isize> {
        // SAFETY: This is what the ioctl system call does: an open file's operations stay as
        // they are, and by the type's invariant it is KVM that is asked, which reads `arg` as
        // user memory where it is a pointer.
        let ret = unsafe {
            let file = self.0.as_ptr();
            (*(*file).f_op)
                .unlocked_ioctl
                .map(|call| call(file, cmd, arg))
        }
        .ok_or(EINVAL)?;
        if ret < 0 {
            return Err(Error::from_errno(ret as c_int));
        }
        Ok(ret)
    }

    /// Sets a memory slot of the machine. Takes the caller's mmap lock; the errors are those of
    /// KVM_SET_USER_MEMORY_REGION.
    pub(crate) fn set_region(&self, region: &Region) -> Result {
        // KVM reads the region from user memory.
        let page = CurrentMapping::new(
            None,
            0,
            0,
            PAGE_SIZE,
            bindings::PROT_READ | bindings::PROT_WRITE,
            bindings::MAP_PRIVATE | bindings::MAP_ANONYMOUS,
        )?;
        UserSlice::new(UserPtr::from_addr(page.addr()), PAGE_SIZE)
            .writer()
            .write(region)?;
        self.call(KVM_SET_USER_MEMORY_REGION, page.addr())
            .map(|_| ())
    }

    /// Removes a memory slot; errors as for [`Machine::set_region`], `EINVAL` where there is no
    /// such slot.
    pub(crate) fn remove_region(&self, slot: u32) -> Result {
        self.set_region(&Region {
            slot,
            ..Region::ZERO
        })
    }
}
