// SPDX-License-Identifier: GPL-2.0

//! Mapping in the current mm, faulting in another one, and finding VMAs.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    mm::{
        virt::VmaRef,
        Mm,
        MmWithUser,
        MmapReadGuard, //
    },
    prelude::*, //
};

use crate::sys::{
    bindings::{
        self,
        vm_fault_t, //
    },
    errno::EHWPOISON,
    safe_fns,
    wait::is_killed, //
};

/// The result of a function that returns an address or, in the sense of IS_ERR_VALUE(), an error.
fn from_err_value(value: usize) -> Result<usize> {
    let error = value as isize;
    if (-(bindings::MAX_ERRNO as isize)..0).contains(&error) {
        return Err(Error::from_errno(error as c_int));
    }
    Ok(value)
}

/// Where there is room for `length` bytes in the current mm, now. `ENOMEM`.
pub(crate) fn find_room(length: usize) -> Result<usize> {
    from_err_value(safe_fns::address_space_helper_find_room(length))
}

/// What there is of a range in the current mm, unmapped when it is dropped.
pub(crate) struct CurrentMapping {
    addr: usize,
    length: usize,
}

impl CurrentMapping {
    /// Maps `length` bytes of a file from byte `offset`, or anonymous memory; `addr`, `prot` and
    /// `flags` are those of mmap(), and so are the errors. Takes the mmap lock.
    pub(crate) fn new(
        file: Option<&File>,
        addr: usize,
        offset: usize,
        length: usize,
        prot: u32,
        flags: u32,
    ) -> Result<Self> {
        let (prot, flags) = (prot as usize, flags as usize);
        let addr = from_err_value(safe_fns::vm_mmap(file, addr, length, prot, flags, offset))?;
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

/// Why there is no page.
#[derive(Clone, Copy)]
pub(crate) enum NoPage {
    /// A lock is not available now, and must not be waited for.
    Busy,
    /// A fatal signal ended the wait.
    Interrupted,
    /// What a fault on the page comes to: `VM_FAULT_SIGBUS`, or that the memory is bad.
    Fault(vm_fault_t),
    /// Of memory that was lent: its owner has none there that can be shown, or does not lend it any
    /// more.
    Gone,
    /// Of memory that was lent: its owner may not access it so, either.
    Denied,
}

impl From<NoPage> for Error {
    fn from(no_page: NoPage) -> Error {
        match no_page {
            NoPage::Busy => EAGAIN,
            NoPage::Interrupted => EINTR,
            NoPage::Fault(fault) if fault & BAD_MEMORY != 0 => EHWPOISON.into(),
            NoPage::Fault(_) | NoPage::Gone => EFAULT,
            NoPage::Denied => EACCES,
        }
    }
}

/// Whether locks of the mm may be waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locks {
    /// No other mm's lock is held.
    Wait,
    /// Another mm's lock is held.
    Try,
}

/// How often a fault is made under the VMA's lock. The second try already holds it while it waits.
const VMA_LOCKED: usize = 3;

/// Has the page at `addr` made present, writable if `write`, which may take as long as the file
/// does. A fatal signal ends the wait, as far as the file lets it.
///
/// Meanwhile the VMA's lock is held at most, not the mmap lock, so that whoever wants anything else
/// of the mm goes on; unless the file's faults work under that alone (those without `map_pages`).
/// The VMA must not be unmapped or merged meanwhile: who does so waits with the mmap lock held.
pub(crate) fn fault_in(
    mm: &MmWithUser,
    addr: usize,
    write: bool,
    locks: Locks,
) -> Result<(), NoPage> {
    use bindings::{
        fault_flag_FAULT_FLAG_ALLOW_RETRY as ALLOW_RETRY,
        fault_flag_FAULT_FLAG_KILLABLE as KILLABLE,
        fault_flag_FAULT_FLAG_REMOTE as REMOTE,
        fault_flag_FAULT_FLAG_TRIED as TRIED,
        fault_flag_FAULT_FLAG_WRITE as WRITE, //
    };
    let mut flags = REMOTE | ALLOW_RETRY | KILLABLE | if write { WRITE } else { 0 };
    for _ in 0..VMA_LOCKED {
        match fault_once(mm, addr, flags, locks) {
            Ok(0) => return Ok(()),
            Ok(ret) if ret & ERROR != 0 => return Err(NoPage::Fault(bad_memory_or_sigbus(ret))),
            Ok(ret) if ret & RETRY != 0 => {
                if is_killed() {
                    return Err(NoPage::Interrupted);
                }
                flags |= TRIED;
            }
            Ok(_) => return Ok(()),
            Err(error) if error == EAGAIN => return Err(NoPage::Busy),
            Err(error) if error == EINTR => return Err(NoPage::Interrupted),
            Err(_) => return Err(NoPage::Fault(SIGBUS)),
        }
    }
    if locks == Locks::Try {
        return Err(NoPage::Busy);
    }
    let mut unlocked = false;
    // SAFETY: The mm has users. fixup_user_fault() is called with the lock held for reading, as it
    // wants, and returns with it held.
    let ret = to_result(unsafe {
        match bindings::address_space_helper_mmap_read_lock_killable(mm.as_raw()) {
            0 => {
                let (mm, flags) = (mm.as_raw(), flags & (REMOTE | WRITE));
                let ret = bindings::fixup_user_fault(mm, addr, flags, &mut unlocked);
                bindings::mmap_read_unlock(mm);
                ret
            }
            interrupted => interrupted,
        }
    });
    match ret {
        Ok(()) => Ok(()),
        Err(error) if error == EINTR => Err(NoPage::Interrupted),
        Err(_) => Err(NoPage::Fault(SIGBUS)),
    }
}

const SIGBUS: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_SIGBUS;
const RETRY: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_RETRY;
/// The fault came to nothing; `VM_FAULT_ERROR`.
const ERROR: vm_fault_t = BAD_MEMORY
    | SIGBUS
    | bindings::vm_fault_reason_VM_FAULT_OOM
    | bindings::vm_fault_reason_VM_FAULT_SIGSEGV
    | bindings::vm_fault_reason_VM_FAULT_FALLBACK;
/// The memory is bad (hwpoison), and how much of it, where it is huge.
const BAD_MEMORY: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_HWPOISON
    | bindings::vm_fault_reason_VM_FAULT_HWPOISON_LARGE
    | bindings::vm_fault_reason_VM_FAULT_HINDEX_MASK;

/// What is to be told of an error of a fault to whoever is not the mm's own task. Not that there is
/// no memory: that has the access tried again until the memory cgroup of the touching task has
/// room, which is not the one that is full.
fn bad_memory_or_sigbus(ret: vm_fault_t) -> vm_fault_t {
    match ret & BAD_MEMORY {
        0 => SIGBUS,
        bad => bad,
    }
}

/// Makes one fault at `addr` under the VMA's lock, which it may release to wait. `EFAULT` where the
/// VMA does not allow it, `EINTR`; `EAGAIN` where locks may only be tried.
fn fault_once(mm: &MmWithUser, addr: usize, flags: u32, locks: Locks) -> Result<vm_fault_t> {
    let need = match flags & bindings::fault_flag_FAULT_FLAG_WRITE {
        0 => bindings::VM_READ,
        _ => bindings::VM_WRITE,
    };
    let released = RETRY | bindings::vm_fault_reason_VM_FAULT_COMPLETED;
    // SAFETY: The mm has users. What the helper returns is a VMA that has `addr`, with its lock
    // held for reading; handle_mm_fault() is called with the flag that says so, and has released it
    // if it says that.
    unsafe {
        let wait = locks == Locks::Wait;
        let vma = from_err_ptr(bindings::address_space_helper_lock_vma(
            mm.as_raw(),
            addr,
            need,
            wait,
        ))?;
        let flags = flags | bindings::fault_flag_FAULT_FLAG_VMA_LOCK;
        let ret = bindings::handle_mm_fault(vma, addr, flags, core::ptr::null_mut());
        if ret & released == 0 {
            bindings::vma_end_read(vma);
        }
        Ok(ret)
    }
}

/// The address after the last that a process can map.
pub(crate) fn task_size() -> usize {
    safe_fns::address_space_helper_task_size()
}

/// Has nothing present in `length` bytes at `addr`, which lie in one VMA; says whether the lock of
/// that was available, which is only tried. (Of hugetlb all stays.)
pub(crate) fn zap(mm: &MmWithUser, addr: usize, length: usize) -> bool {
    safe_fns::address_space_helper_zap(mm, addr, length)
}

/// How many pages of anonymous memory there are in an mm.
pub(crate) fn anonymous_pages(mm: &MmWithUser) -> usize {
    safe_fns::address_space_helper_anonymous_pages(mm)
}

/// How many pages an mm has in memory: its RSS, in which hugetlb is not.
pub(crate) fn pages_in_memory(mm: &MmWithUser) -> usize {
    safe_fns::address_space_helper_pages_in_memory(mm)
}

/// Prepares an mm for notifiers, which are then registered without its locks. Takes the mmap lock.
/// `ENOMEM`; `ERESTARTSYS` for any signal that is pending, where the mm has a VMA.
pub(crate) fn prepare_notifiers(mm: &MmWithUser) -> Result {
    match to_result(safe_fns::address_space_helper_prepare_notifiers(mm)) {
        Err(EINTR) => Err(ERESTARTSYS),
        done => done,
    }
}

/// Has the page at `addr` of memory that was lent made present, writable if `write`, as if its
/// owner had touched it. `Busy` where the page has to be waited for, or a lock, if it may only be
/// tried. Holds a user of the mm no longer than that takes; none where there is none.
pub(crate) fn fault_in_lent(mm: &Mm, addr: usize, write: bool, locks: Locks) -> Result<(), NoPage> {
    const SIGSEGV: vm_fault_t = bindings::vm_fault_reason_VM_FAULT_SIGSEGV;
    let wait = locks == Locks::Wait;
    let ret = safe_fns::address_space_helper_fault_in_lent(mm, addr, write, wait);
    match vm_fault_t::try_from(ret) {
        Ok(0) => Ok(()),
        Ok(fault) if fault & SIGSEGV != 0 => Err(NoPage::Denied),
        Ok(fault) => Err(NoPage::Fault(bad_memory_or_sigbus(fault))),
        Err(_) => Err(match Error::from_errno(ret) {
            error if error == EAGAIN || error == EBUSY => NoPage::Busy,
            error if error == EINTR => NoPage::Interrupted,
            error if error == EACCES => NoPage::Denied,
            _ => NoPage::Gone,
        }),
    }
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
