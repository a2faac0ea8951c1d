// SPDX-License-Identifier: GPL-2.0

//! Mapping in the current mm, faulting in another one, and finding VMAs.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use kernel::{
    error::to_result,
    fs::File,
    mm::{
        virt::VmaRef,
        MmWithUser,
        MmapReadGuard, //
    },
    prelude::*, //
};

use crate::sys::{
    bindings,
    safe_fns, //
};

/// The result of a function that returns an address or, in the sense of IS_ERR_VALUE(), an error.
fn from_err_value(value: usize) -> Result<usize> {
    let error = value as isize;
    if (-(bindings::MAX_ERRNO as isize)..0).contains(&error) {
        return Err(Error::from_errno(error as c_int));
    }
    Ok(value)
}

/// What there is of a range in the current mm, unmapped when it is dropped.
pub(crate) struct CurrentMapping {
    addr: usize,
    length: usize,
}

impl CurrentMapping {
    /// Maps `length` bytes of a file from byte `offset`, or anonymous memory, where there is
    /// room; `prot` and `flags` are those of mmap(), and so are the errors. Takes the mmap lock.
    pub(crate) fn new(
        file: Option<&File>,
        offset: usize,
        length: usize,
        prot: u32,
        flags: u32,
    ) -> Result<Self> {
        let (prot, flags) = (prot as usize, flags as usize);
        let addr = from_err_value(safe_fns::vm_mmap(file, 0, length, prot, flags, offset))?;
        Ok(Self { addr, length })
    }

    /// What was mapped before, from now on to be unmapped.
    pub(crate) fn adopt(addr: usize, length: usize) -> Self {
        Self { addr, length }
    }

    /// Where it is.
    pub(crate) fn addr(&self) -> usize {
        self.addr
    }

    /// How many bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Leaves it mapped.
    pub(crate) fn keep(self) -> usize {
        let addr = self.addr;
        core::mem::forget(self);
        addr
    }

    /// Unmaps it. Takes the mmap lock.
    pub(crate) fn unmap(self) -> Result {
        let result = self.try_unmap();
        core::mem::forget(self);
        result
    }

    fn try_unmap(&self) -> Result {
        to_result(safe_fns::vm_munmap(self.addr, self.length))
    }
}

impl Drop for CurrentMapping {
    fn drop(&mut self) {
        // Fails where the mm may have no more VMAs and one would be cut, or is sealed: then it
        // stays mapped, which a caller that minds learns from `unmap`.
        let _ = self.try_unmap();
    }
}

/// Has the page at `addr` made present, writable if `write`. Acquires the mmap lock for reading,
/// and releases it while it waits; a fatal signal ends the wait. `EFAULT`, `EINTR`.
pub(crate) fn fault_in(mm: &MmWithUser, addr: usize, write: bool) -> Result {
    let mut unlocked = false;
    // SAFETY: The mm has users. fixup_user_fault() is called with the lock held for reading, as it
    // wants, and returns with it held.
    to_result(unsafe {
        match bindings::address_space_helper_mmap_read_lock_killable(mm.as_raw()) {
            0 => {
                let (mm, flags) = (mm.as_raw(), flags(write));
                let ret = bindings::fixup_user_fault(mm, addr, flags, &mut unlocked);
                bindings::mmap_read_unlock(mm);
                ret
            }
            interrupted => interrupted,
        }
    })
}

/// As [`fault_in`], with the lock held throughout: a fatal signal does not end the wait.
pub(crate) fn fault_in_locked(
    mm: &MmWithUser,
    _held: &MmapReadGuard<'_>,
    addr: usize,
    write: bool,
) -> Result {
    // SAFETY: The caller holds the mmap lock; without `unlocked` it is not released.
    to_result(unsafe {
        bindings::fixup_user_fault(mm.as_raw(), addr, flags(write), core::ptr::null_mut())
    })
}

fn flags(write: bool) -> u32 {
    let write = if write {
        bindings::fault_flag_FAULT_FLAG_WRITE
    } else {
        0
    };
    bindings::fault_flag_FAULT_FLAG_REMOTE | write
}

/// The first VMA that ends after `addr`.
pub(crate) fn find_vma<'a>(
    mm: &MmWithUser,
    _held: &'a MmapReadGuard<'_>,
    addr: usize,
) -> Option<&'a VmaRef> {
    // SAFETY: The caller holds the mmap lock. If there is a VMA, it stays as long as the lock is
    // held, which the guard is for.
    unsafe {
        let vma = bindings::find_vma(mm.as_raw(), addr);
        (!vma.is_null()).then(|| VmaRef::from_raw(vma))
    }
}

/// Has a page fault made at `addr` of a VMA, as if it were touched for reading. A fault that
/// would have to wait is given up.
pub(crate) fn fault_nowait(vma: &VmaRef, addr: usize) {
    use bindings::{
        fault_flag_FAULT_FLAG_ALLOW_RETRY as ALLOW_RETRY,
        fault_flag_FAULT_FLAG_REMOTE as REMOTE,
        fault_flag_FAULT_FLAG_RETRY_NOWAIT as RETRY_NOWAIT, //
    };
    if !(vma.start()..vma.end()).contains(&addr) {
        return;
    }
    // SAFETY: The mmap lock is held, as `VmaRef` has it, the address lies in the VMA, and with
    // these flags the lock is not released.
    unsafe {
        bindings::handle_mm_fault(
            vma.as_ptr(),
            addr,
            ALLOW_RETRY | RETRY_NOWAIT | REMOTE,
            core::ptr::null_mut(),
        )
    };
}
