// SPDX-License-Identifier: GPL-2.0

//! Page faults of attachments: from what is touched to what the kernel is answered.
//! How pages are entered is in `enter.rs`, for huge pages in `huge.rs`; nothing else
//! makes entries in an attached process's page tables.
//!
//! A fault comes with the attached process's mmap lock (or its VMA lock). It never
//! waits for anything slow with that held: where the arena must fault a page in, or
//! its lock is taken, the fault lets its own lock go, does the waiting, and has the
//! access tried again. So there is no lock order between mms, and a slow file holds
//! up only who touches it.
//!
//! Memory for page tables and for the frame table is made before the install lock
//! is taken. (A page table comes with the fault: `do_fault` has made one, if there is
//! none.)

use core::{
    cell::Cell,
    ops::Range, //
};

use kernel::{
    fs::File,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::ordering::*, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::{
    attachment::vma::{
        is_slot_window,
        space_of, //
    },
    layout::Prot,
    segment::{
        frames::{
            HUGE_ORDER,
            HUGE_PAGES, //
        },
        Segment, //
    },
    space::{
        failures::Waited,
        readahead::MOST,
        resolve::{
            Learned,
            Miss,
            TRIES, //
        },
        Space, //
    },
    sys::{
        bindings,
        trace, //
    },
};

/// What a fault returns.
pub(crate) type VmFault = bindings::vm_fault_t;

pub(crate) const NOPAGE: VmFault = bindings::vm_fault_reason_VM_FAULT_NOPAGE;
const RETRY: VmFault = bindings::vm_fault_reason_VM_FAULT_RETRY;
const SIGBUS: VmFault = bindings::vm_fault_reason_VM_FAULT_SIGBUS;
const SIGSEGV: VmFault = bindings::vm_fault_reason_VM_FAULT_SIGSEGV;
const OOM: VmFault = bindings::vm_fault_reason_VM_FAULT_OOM;
/// The file has no page there, or no room for one, or the space's creator may not have
/// the memory.
///
/// Not `OOM` for the latter: that has the access tried again until the memory cgroup of
/// the touching task has room, which is not the one that is full.
const NO_PAGE: VmFault = SIGBUS;
/// There is no huge page to enter.
pub(crate) const FALLBACK: VmFault = bindings::vm_fault_reason_VM_FAULT_FALLBACK;

/// Size of a huge page in bytes.
pub(crate) const HUGE_SIZE: usize = HUGE_PAGES * PAGE_SIZE;

/// One page fault of an attachment.
///
/// # Invariants
///
/// `vmf` is valid, its VMA has our operations, and the fault's lock is held.
pub(crate) struct Fault<'a> {
    pub(crate) vmf: *mut bindings::vm_fault,
    pub(crate) space: &'a Space,
    pub(crate) access: Prot,
}

impl Fault<'_> {
    /// # Safety
    ///
    /// Called by a VM operation with the `vmf` it was given; the result must not be
    /// used once the fault's lock has been released.
    unsafe fn new(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: By our caller.
        let (space, flags) = unsafe { (space_of((*vmf).__bindgen_anon_1.vma), (*vmf).flags) };
        let access = if flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0 {
            Prot::WRITE
        } else if flags & bindings::fault_flag_FAULT_FLAG_INSTRUCTION != 0 {
            Prot::EXEC
        } else {
            Prot::READ
        };
        space.counts.faults.fetch_add(1, Relaxed);
        // INVARIANT: By our caller.
        Fault { vmf, space, access }
    }

    /// Enters what a window of a VM wants.
    ///
    /// Where KVM finds an entry for reading and the guest writes, it does not ask for
    /// more but takes the write for one to a device. So here there must be no entry for
    /// reading where there may be one for writing.
    fn enter_for_slot(&mut self, enter: impl Fn(&Self) -> VmFault) -> VmFault {
        if self.access == Prot::READ && self.flags() & bindings::VM_WRITE != 0 {
            // Where reading has failed, writing had before.
            let failed = self
                .space
                .shown_at(self.page())
                .and_then(|(segment, page)| {
                    self.failed(Waited {
                        segment,
                        page,
                        write: false,
                    })
                });
            if let Some(ret) = failed {
                return ret;
            }
            self.access = Prot::WRITE;
            let ret = enter(self);
            if ret & (SIGBUS | SIGSEGV) == 0 {
                return self.for_kvm(ret);
            }
            // The layout does not allow writing, or the file has no room for a page.
            self.access = Prot::READ;
        }
        let ret = enter(self);
        self.for_kvm(ret)
    }

    /// What to return to KVM for `ret`.
    ///
    /// KVM has a page faulted in, looks, and where it finds nothing takes that for a
    /// hole, though a revocation may only have been faster. It looks again only when
    /// the lock was let go of meanwhile; so it is, once.
    fn for_kvm(&self, ret: VmFault) -> VmFault {
        let tried = self.has(bindings::fault_flag_FAULT_FLAG_TRIED);
        if ret != NOPAGE || tried || !self.may_let_go() || !self.is_by_kvm() {
            return ret;
        }
        self.let_go();
        RETRY
    }

    fn has(&self, flag: bindings::fault_flag) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).flags & flag != 0 }
    }

    /// The VMA's flags.
    pub(crate) fn flags(&self) -> bindings::vm_flags_t {
        // SAFETY: The fault's lock is held.
        unsafe { (*self.vma()).__bindgen_anon_2.vm_flags }
    }

    pub(crate) fn vma(&self) -> *mut bindings::vm_area_struct {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.vma }
    }

    pub(crate) fn address(&self) -> usize {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.address & PAGE_MASK }
    }

    /// The page of the space that is touched.
    pub(crate) fn page(&self) -> u64 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.pgoff as u64 }
    }

    pub(crate) fn pmd_is_none(&self) -> bool {
        // SAFETY: The fault's lock is held, and faults come with their pmd.
        unsafe { bindings::address_space_helper_pmd_none(self.vmf) }
    }

    /// Takes out what is mapped of `size` bytes at `addr`, so that it can be mapped
    /// with more rights: an entry is never changed in place, since what it was
    /// checked against might be gone.
    pub(crate) fn take_out(&self, addr: usize, size: usize) {
        // SAFETY: The range lies in the VMA, and the fault's lock is held.
        unsafe { bindings::zap_special_vma_range(self.vma(), addr, size) };
    }

    /// Resolves the fault by entering what it wants, and perhaps what is around.
    fn enter(&self) -> VmFault {
        let page = self.page();
        let (window, streak) = self.window();
        let first = window.start..window.end.min(window.start + MOST as u64);
        let entered = Cell::new(0);
        let ret = self.resolve(&first, || {
            entered.set(self.enter_run::<MOST>(page, &first)?);
            Ok(NOPAGE)
        });
        let mut entered = entered.get();
        if ret == NOPAGE && entered > 0 {
            let next = page + entered as u64;
            // In a streak also where what comes next is not known yet.
            if next == first.end || streak > 1 {
                entered += self.enter_ahead(&(next..window.end));
            }
            let next = page + entered as u64;
            let whole = if next == window.end { streak } else { 0 };
            self.space.streaks.note(next, entered.max(whole));
        }
        if ret & RETRY == 0 {
            // Else the lock is gone, and with it perhaps the space.
            trace::fault(&self.space.mapping, page, self.access, ret);
        }
        ret
    }

    /// Has `attempt` try until it gets what it wants; the pages in `window` are of
    /// interest.
    fn resolve(&self, window: &Range<u64>, attempt: impl Fn() -> Result<VmFault, Miss>) -> VmFault {
        if !self.make_page_table() {
            // A huge page was entered meanwhile, or taken out.
            return NOPAGE;
        }
        let (before, after) = (self.page() - window.start, window.end - self.page());
        let mut asked = false;
        for _ in 0..TRIES {
            let miss = match attempt() {
                Ok(ret) => return ret,
                Err(miss) => miss,
            };
            let (segment, page) = match miss {
                Miss::Hole => return self.hole(),
                Miss::Denied => return SIGSEGV,
                Miss::Stale => return self.step_aside(),
                Miss::Unknown(segment, page) => (segment, page),
            };
            let write = self.access.contains(Prot::WRITE);
            let around = page.saturating_sub(before as usize)..page + after as usize;
            match self.space.learn(&segment, page, &around, write) {
                Err(_) => return OOM,
                Ok(Learned::Again) => (),
                Ok(Learned::Stale) => return self.step_aside(),
                // Once: where writing needs more than a page that is there.
                Ok(Learned::Missing)
                    if !asked && {
                        asked = true;
                        segment.bring_resident(&self.space.arena, page, &around)
                    } => {}
                Ok(missing) => {
                    let busy = matches!(missing, Learned::Busy);
                    if let Some(ret) = self.wait_for(&segment, page, write, busy) {
                        return ret;
                    }
                }
            }
        }
        NOPAGE
    }

    /// The page is being revoked: have the access tried again in a while.
    ///
    /// Not at once, if that can be helped: who revokes may have to share the CPU with
    /// this task, and may be less urgent.
    fn step_aside(&self) -> VmFault {
        if !self.may_let_go() {
            return NOPAGE;
        }
        trace::fault(&self.space.mapping, self.page(), self.access, RETRY);
        self.let_go();
        fsleep(Delta::from_micros(20));
        RETRY
    }

    pub(crate) fn may_let_go(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY)
            && !self.has(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT)
    }

    /// Releases the fault's lock: the fault must not be used any more, and `RETRY` be
    /// returned.
    fn let_go(&self) {
        // SAFETY: The lock is held by the type's invariant.
        unsafe { bindings::address_space_helper_release_fault_lock(self.vmf) };
    }

    fn hole(&self) -> VmFault {
        self.space.failures.note_hole(self.page());
        SIGBUS
    }

    /// How the wait of this fault's previous try ended, if in an error: that could not
    /// be told then, with the lock let go of.
    ///
    /// KVM does not hear of an error either when the lock was let go of in any try,
    /// but begins anew. So it is told at the beginning of the next fault.
    fn failed(&self, what: Waited) -> Option<VmFault> {
        let tried = self.has(bindings::fault_flag_FAULT_FLAG_TRIED);
        if !self.is_by_kvm() {
            tried.then(|| self.space.failures.take(what))??;
        } else if tried {
            self.space.failures.peek(what)?;
        } else {
            self.space.failures.take(what)?;
        }
        Some(NO_PAGE)
    }

    /// Whether KVM has the page faulted in for a guest: with the window of a slot,
    /// and not because user space itself touched it.
    fn is_by_kvm(&self) -> bool {
        // SAFETY: The fault's lock is held.
        let of_slot = unsafe { is_slot_window(self.vma()) };
        of_slot && !self.has(bindings::fault_flag_FAULT_FLAG_USER)
    }

    /// Has the arena fault the page in. [`None`]: look again.
    pub(crate) fn wait_for(
        &self,
        segment: &Segment,
        page: usize,
        write: bool,
        busy: bool,
    ) -> Option<VmFault> {
        let what = Waited {
            segment: segment.id(),
            page,
            write,
        };
        if let Some(ret) = self.failed(what) {
            return Some(ret);
        }
        let addr = segment.addr_of(page);
        if self.has(bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY) {
            if self.has(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT) {
                return Some(RETRY);
            }
            trace::fault(&self.space.mapping, self.page(), self.access, RETRY);
            // The file keeps the space, once the lock no longer keeps the VMA.
            //
            // SAFETY: An attachment has a file.
            let file: ARef<File> = unsafe { File::from_raw_file((*self.vma()).vm_file) }.into();
            let space = self.space;
            self.let_go();
            match space.arena.fault_in(addr, write) {
                // A failure from before is no longer true.
                Ok(()) => drop(space.failures.take(what)),
                // Interrupted by a fatal signal: whoever retries will see it.
                Err(error) if error == EINTR => (),
                Err(error) => space.failures.put(what, error),
            }
            drop(file);
            return Some(RETRY);
        }
        if busy {
            return Some(NOPAGE);
        }
        let held = self.space.arena.try_read()?;
        match self.space.arena.fault_in_locked(&held, addr, write) {
            Ok(()) => None,
            // What is no longer shown may have ended meanwhile.
            Err(_) if self.space.shown_at(self.page()) != Some((segment.id(), page)) => None,
            Err(_) => Some(NO_PAGE),
        }
    }
}

/// Something is touched that has no entry.
///
/// # Safety
///
/// Called by the fault code for a VMA with our operations.
pub(crate) unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: By our caller; `resolve` ends the use of the fault when it releases
    // the lock.
    let fault = unsafe { Fault::new(vmf) };
    fault.enter()
}

/// Something is touched that has no entry, in a window that a VM uses.
///
/// # Safety
///
/// As for [`fault`].
pub(crate) unsafe extern "C" fn slot_fault(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: As in `fault`.
    let mut fault = unsafe { Fault::new(vmf) };
    fault.enter_for_slot(Fault::enter)
}

/// Something is touched where a huge page could be, in a window that a VM uses.
///
/// # Safety
///
/// As for [`fault`].
pub(crate) unsafe extern "C" fn slot_huge_fault(
    vmf: *mut bindings::vm_fault,
    order: c_uint,
) -> VmFault {
    if order != HUGE_ORDER {
        return FALLBACK;
    }
    // SAFETY: As in `fault`.
    let mut fault = unsafe { Fault::new(vmf) };
    fault.enter_for_slot(Fault::enter_huge)
}

/// Something is written that has an entry for reading.
///
/// Not to have this would let the kernel make the entry writable in place, and
/// read-only ranges would protect nothing.
///
/// # Safety
///
/// As for [`fault`].
pub(crate) unsafe extern "C" fn pfn_mkwrite(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: As in `fault`.
    let fault = unsafe { Fault::new(vmf) };
    let ret = fault.resolve(&(fault.page()..fault.page() + 1), || {
        fault.space.with_frame(fault.page(), fault.access, |_| 0)
    });
    if ret != 0 {
        return done(ret);
    }
    // It may be written. Returning 0 would have the kernel upgrade the entry it saw,
    // which may since have been zapped and made anew for reading, the arena's entry
    // being clean again.
    fault.take_out(fault.address(), PAGE_SIZE);
    done(fault.enter())
}

/// What pfn_mkwrite returns for `ret`: its caller knows nothing of `RETRY`, and
/// would go on with the lock that was let go of.
fn done(ret: VmFault) -> VmFault {
    if ret & RETRY != 0 {
        ret | NOPAGE
    } else {
        ret
    }
}

/// Something is touched where a huge page could be.
///
/// # Safety
///
/// As for [`fault`].
pub(crate) unsafe extern "C" fn huge_fault(vmf: *mut bindings::vm_fault, order: c_uint) -> VmFault {
    if order != HUGE_ORDER {
        return FALLBACK;
    }
    // SAFETY: As in `fault`.
    unsafe { Fault::new(vmf) }.enter_huge()
}
