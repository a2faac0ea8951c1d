// SPDX-License-Identifier: GPL-2.0

//! Attachments: the VMAs that map an asfd or a view, and their page faults.
//!
//! Only this file makes entries in an attached process's page tables. An
//! attachment is a PFN map: it gets frames, never references, so nothing can pin
//! what a revocation must take away.
//!
//! A fault comes with the attached process's mmap lock (or its VMA lock). It never
//! waits for anything slow with that held: where the arena must fault a page in, or
//! its lock is taken, the fault lets its own lock go, does the waiting, and has the
//! access tried again. So there is no lock order between mms, and a slow file holds
//! up only who touches it.
//!
//! Memory for page tables and for the frame table is made before the install lock
//! is taken.

use kernel::{
    fs::File,
    mm::{virt::VmaNew, MmWithUser},
    page::{PAGE_MASK, PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{aref::ARef, atomic::ordering::*, new_spinlock, SpinLock},
    task::Task,
    time::{Delta, Instant, Monotonic},
};

use crate::{
    bindings,
    frames::{HUGE_ORDER, HUGE_PAGES},
    layout::Prot,
    resolve::{Learned, Miss, Resolved, TRIES},
    segment::Segment,
    space::Space,
    trace,
};

type VmFault = bindings::vm_fault_t;

const NOPAGE: VmFault = bindings::vm_fault_reason_VM_FAULT_NOPAGE;
const RETRY: VmFault = bindings::vm_fault_reason_VM_FAULT_RETRY;
const SIGBUS: VmFault = bindings::vm_fault_reason_VM_FAULT_SIGBUS;
const SIGSEGV: VmFault = bindings::vm_fault_reason_VM_FAULT_SIGSEGV;
const OOM: VmFault = bindings::vm_fault_reason_VM_FAULT_OOM;
const FALLBACK: VmFault = bindings::vm_fault_reason_VM_FAULT_FALLBACK;

/// Size of a huge page in bytes.
const HUGE_SIZE: usize = HUGE_PAGES * PAGE_SIZE;

/// A table of operations, which the kernel only reads.
struct VmOps(bindings::vm_operations_struct);

// SAFETY: Nobody writes it, and the pointers in it that are not functions are null.
unsafe impl Sync for VmOps {}

impl VmOps {
    const fn new(
        fault: unsafe extern "C" fn(*mut bindings::vm_fault) -> VmFault,
        huge_fault: unsafe extern "C" fn(*mut bindings::vm_fault, c_uint) -> VmFault,
    ) -> Self {
        VmOps(bindings::vm_operations_struct {
            open: Some(open),
            close: Some(close),
            fault: Some(fault),
            huge_fault: Some(huge_fault),
            pfn_mkwrite: Some(pfn_mkwrite),
            access: Some(access),
            ..pin_init::zeroed()
        })
    }
}

static VM_OPS: VmOps = VmOps::new(fault, huge_fault);
/// Of windows that are memory slots of a VM.
static SLOT_VM_OPS: VmOps = VmOps::new(slot_fault, slot_huge_fault);

/// Makes a new VMA an attachment that shows the space from page `first` on, for no
/// more than `prot`.
///
/// `EINVAL` for a private mapping, `EACCES` for more than `prot`. The caller has
/// checked that the VMA lies within what the file shows.
///
/// # Safety
///
/// `vma` must be of a file that keeps `space` from being closed.
pub(crate) unsafe fn attach(vma: &VmaNew, space: &Space, first: u64, prot: Prot) -> Result {
    use bindings::{
        VM_DONTDUMP, VM_DONTEXPAND, VM_EXEC, VM_IO, VM_MAYEXEC, VM_MAYSHARE, VM_MAYWRITE,
        VM_PFNMAP, VM_WRITE,
    };
    // Not VM_SHARED: the kernel drops it from a shared mapping of a file that is
    // open for reading only.
    if vma.flags() & VM_MAYSHARE as usize == 0 {
        return Err(EINVAL);
    }
    let mut refused = 0;
    if !prot.contains(Prot::WRITE) {
        refused |= VM_WRITE | VM_MAYWRITE;
    }
    if !prot.contains(Prot::EXEC) {
        refused |= VM_EXEC | VM_MAYEXEC;
    }
    if vma.flags() & (refused & (VM_WRITE | VM_EXEC)) as usize != 0 {
        return Err(EACCES);
    }
    let set = VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP;
    // SAFETY: The VMA is being set up, so nobody else uses it; the flags are those
    // of a PFN map, of which nothing is mapped yet.
    unsafe {
        let raw = vma.as_ptr();
        bindings::address_space_helper_vma_init(
            raw,
            first as usize,
            set as usize,
            refused as usize,
        );
        (*raw).vm_private_data = core::ptr::from_ref(space).cast_mut().cast();
        (*raw).vm_ops = &VM_OPS.0;
    }
    space.counts.attachments.fetch_add(1, Relaxed);
    Ok(())
}

/// Whether `vma` is an attachment of `space`.
pub(crate) fn is_attachment_of(vma: &kernel::mm::virt::VmaRef, space: &Space) -> bool {
    // SAFETY: The VMA is valid and held still, as `VmaRef` promises.
    unsafe {
        let raw = vma.as_ptr();
        (core::ptr::eq((*raw).vm_ops, &VM_OPS.0) || core::ptr::eq((*raw).vm_ops, &SLOT_VM_OPS.0))
            && core::ptr::eq((*raw).vm_private_data.cast(), space)
    }
}

/// Makes the window at `addr` of the caller one that a VM can use; see
/// [`slot_fault`].
pub(crate) fn make_slot_window(mm: &MmWithUser, addr: usize) {
    // SAFETY: The operations differ in nothing but how a read fault is met, so
    // that whoever sees the old ones a moment longer does nothing wrong.
    unsafe {
        bindings::address_space_helper_swap_vm_ops(
            mm.as_raw(),
            addr,
            &raw const VM_OPS.0,
            &raw const SLOT_VM_OPS.0,
        )
    };
}

/// The space of an attachment.
///
/// # Safety
///
/// `vma` must have [`VM_OPS`], and must not go away before the reference.
unsafe fn space_of<'a>(vma: *mut bindings::vm_area_struct) -> &'a Space {
    // SAFETY: `attach` has put the space there, and the VMA's file keeps it.
    unsafe { &*(*vma).vm_private_data.cast() }
}

/// # Safety
///
/// Called for a VMA with [`VM_OPS`] that has been copied or split.
unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By our caller.
    let space = unsafe { space_of(vma) };
    space.counts.attachments.fetch_add(1, Relaxed);
}

/// # Safety
///
/// Called for a VMA with [`VM_OPS`] that goes away.
unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By our caller; the file is put after this.
    let (space, mm, start) = unsafe {
        (
            space_of(vma),
            (*vma).vm_mm,
            (*vma).__bindgen_anon_1.__bindgen_anon_1.vm_start,
        )
    };
    space.counts.attachments.fetch_sub(1, Relaxed);
    space.slots.forget_window(mm, start);
}

/// One page fault of an attachment.
///
/// # Invariants
///
/// `vmf` is valid, its VMA has [`VM_OPS`], and the fault's lock is held.
struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    space: &'a Space,
    access: Prot,
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

    /// The same fault, looked at once more.
    ///
    /// # Safety
    ///
    /// As for [`Fault::new`].
    unsafe fn again(vmf: *mut bindings::vm_fault) -> Self {
        Fault {
            vmf,
            // SAFETY: By our caller.
            space: unsafe { space_of((*vmf).__bindgen_anon_1.vma) },
            access: Prot::READ,
        }
    }

    /// What to return to KVM for `ret`.
    ///
    /// KVM has a page faulted in, looks, and where it finds nothing takes that for a
    /// hole, though a revocation may only have been faster. It looks again only when
    /// the lock was let go of meanwhile; so it is, once.
    fn for_kvm(&self, ret: VmFault) -> VmFault {
        use bindings::{
            fault_flag_FAULT_FLAG_ALLOW_RETRY as ALLOW_RETRY,
            fault_flag_FAULT_FLAG_RETRY_NOWAIT as RETRY_NOWAIT,
            fault_flag_FAULT_FLAG_TRIED as TRIED,
        };
        if ret != NOPAGE
            || !self.has(ALLOW_RETRY)
            || self.has(TRIED)
            || self.has(RETRY_NOWAIT)
            || !self.is_by_kvm()
        {
            return ret;
        }
        // SAFETY: The fault's lock is held; the fault is not used any more.
        unsafe { bindings::address_space_helper_release_fault_lock(self.vmf) };
        RETRY
    }

    fn has(&self, flag: bindings::fault_flag) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).flags & flag != 0 }
    }

    fn vma(&self) -> *mut bindings::vm_area_struct {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.vma }
    }

    fn address(&self) -> usize {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.address & PAGE_MASK }
    }

    /// The page of the space that is touched.
    fn page(&self) -> u64 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.pgoff as u64 }
    }

    fn pmd_is_none(&self) -> bool {
        // SAFETY: The fault's lock is held, and faults come with their pmd.
        unsafe { bindings::address_space_helper_pmd_none(self.vmf) }
    }

    /// Makes the page table that the entry will be in. Allocates.
    fn make_page_table(&self) -> Result {
        if !self.pmd_is_none() {
            return Ok(());
        }
        // SAFETY: The fault's lock keeps the VMA; the callback does nothing.
        kernel::error::to_result(unsafe {
            bindings::address_space_helper_make_page_table((*self.vma()).vm_mm, self.address())
        })
    }

    /// Enters a frame. To be called under the install lock, with the page table made.
    fn insert(&self, frame: Resolved) -> VmFault {
        use bindings::{VM_EXEC, VM_WRITE};
        let vma = self.vma();
        // SAFETY: The fault's lock is held.
        let mut flags = unsafe { (*vma).__bindgen_anon_2.vm_flags };
        // Not vm_page_prot: because of pfn_mkwrite it is read-only, and every first
        // write would fault twice.
        if !frame.writable {
            flags &= !(VM_WRITE as usize);
        }
        if !frame.executable {
            flags &= !(VM_EXEC as usize);
        }
        // SAFETY: The VMA is a PFN map, the address lies in it, the lock is held.
        unsafe {
            let prot = bindings::vm_get_page_prot(flags);
            bindings::vmf_insert_pfn_prot(vma, self.address(), frame.pfn, prot)
        }
    }

    /// Takes out what is mapped of `size` bytes at `addr`, so that it can be mapped
    /// with more rights: an entry is never changed in place, since what it was
    /// checked against might be gone.
    fn take_out(&self, addr: usize, size: usize) {
        // SAFETY: The range lies in the VMA, and the fault's lock is held.
        unsafe { bindings::zap_special_vma_range(self.vma(), addr, size) };
    }

    /// Resolves the fault with `use_frame`, which is given one page.
    fn resolve(&self, use_frame: impl Fn(Resolved) -> VmFault) -> VmFault {
        let ret = self.try_resolve(use_frame);
        if ret & RETRY == 0 {
            // Else the lock is gone, and with it perhaps the space.
            trace::fault(&self.space.mapping, self.page(), self.access, ret);
        }
        ret
    }

    fn try_resolve(&self, use_frame: impl Fn(Resolved) -> VmFault) -> VmFault {
        if self.make_page_table().is_err() {
            return OOM;
        }
        for _ in 0..TRIES {
            let miss = match self.space.with_frame(self.page(), self.access, &use_frame) {
                Ok(ret) => return ret,
                Err(miss) => miss,
            };
            let (segment, page) = match miss {
                Miss::Hole => return self.hole(),
                Miss::Denied => return SIGSEGV,
                Miss::Stale => return NOPAGE,
                Miss::Unknown(segment, page) => (segment, page),
            };
            let write = self.access.contains(Prot::WRITE);
            match self.space.learn(&segment, page, write) {
                Err(_) => return OOM,
                Ok(Learned::Again) => (),
                Ok(Learned::Stale) => return NOPAGE,
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

    fn hole(&self) -> VmFault {
        self.space.failures.note_hole(self.page());
        SIGBUS
    }

    /// How the wait of this fault's previous try ended, if in an error: that could not
    /// be told then, with the lock let go of.
    ///
    /// KVM does not hear of an error either when the lock was let go of in any try,
    /// but begins anew. So it is told at the beginning of the next fault.
    fn failed(&self, write: bool) -> Option<VmFault> {
        let what = (self.page(), write);
        let tried = self.has(bindings::fault_flag_FAULT_FLAG_TRIED);
        let error = if !self.is_by_kvm() {
            tried.then(|| self.space.failures.take(what))??
        } else if tried {
            self.space.failures.peek(what)?
        } else {
            self.space.failures.take(what)?
        };
        Some(fault_of(error))
    }

    /// Whether KVM has the page faulted in for a guest: with the window of a slot,
    /// and not because user space itself touched it.
    fn is_by_kvm(&self) -> bool {
        // SAFETY: The fault's lock is held.
        let ops = unsafe { (*self.vma()).vm_ops };
        core::ptr::eq(ops, &SLOT_VM_OPS.0) && !self.has(bindings::fault_flag_FAULT_FLAG_USER)
    }

    /// Has the arena fault the page in. [`None`]: look again.
    fn wait_for(&self, segment: &Segment, page: usize, write: bool, busy: bool) -> Option<VmFault> {
        let key = (self.page(), write);
        if let Some(ret) = self.failed(write) {
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
            // SAFETY: The fault's lock is held; from here on `self.vmf` is not used.
            unsafe { bindings::address_space_helper_release_fault_lock(self.vmf) };
            match space.arena.fault_in(addr, write) {
                // A failure from before is no longer true.
                Ok(()) => drop(space.failures.take(key)),
                // Interrupted by a fatal signal: whoever retries will see it.
                Err(error) if error == EINTR => (),
                Err(error) => space.failures.put(key, error),
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
            Err(error) => Some(fault_of(error)),
        }
    }
}

fn fault_of(error: Error) -> VmFault {
    if error == ENOMEM {
        OOM
    } else {
        SIGBUS
    }
}

/// Something is touched that has no entry.
///
/// # Safety
///
/// Called by the fault code for a VMA with [`VM_OPS`].
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: By our caller; `resolve` ends the use of the fault when it releases
    // the lock.
    let fault = unsafe { Fault::new(vmf) };
    fault.resolve(|frame| fault.insert(frame))
}

/// Something is touched that has no entry, in a window that a VM uses.
///
/// Where KVM finds an entry for reading and the guest writes, it does not ask for
/// more but takes the write for one to a device. So here there must be no entry for
/// reading where there may be one for writing.
///
/// # Safety
///
/// As for [`fault`].
unsafe extern "C" fn slot_fault(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: As in `fault`.
    let mut fault = unsafe { Fault::new(vmf) };
    // SAFETY: The fault's lock is held.
    let flags = unsafe { (*fault.vma()).__bindgen_anon_2.vm_flags };
    if fault.access == Prot::READ && flags & bindings::VM_WRITE as usize != 0 {
        // Where reading has failed, writing had before.
        if let Some(ret) = fault.failed(false) {
            return ret;
        }
        fault.access = Prot::WRITE;
        let ret = fault.resolve(|frame| fault.insert(frame));
        if ret & (SIGBUS | SIGSEGV) == 0 {
            return fault.for_kvm(ret);
        }
        // The layout does not allow writing, or the file has no room for a page.
        fault.access = Prot::READ;
    }
    let ret = fault.resolve(|frame| fault.insert(frame));
    fault.for_kvm(ret)
}

/// As [`huge_fault`], in a window that a VM uses.
///
/// # Safety
///
/// As for [`fault`].
unsafe extern "C" fn slot_huge_fault(vmf: *mut bindings::vm_fault, order: c_uint) -> VmFault {
    // SAFETY: By our caller.
    let ret = unsafe { huge_fault(vmf, order) };
    if ret & FALLBACK != 0 {
        return ret;
    }
    // SAFETY: By our caller; the lock is still held.
    unsafe { Fault::again(vmf) }.for_kvm(ret)
}

/// Something is written that has an entry for reading.
///
/// Not to have this would let the kernel make the entry writable in place, and
/// read-only ranges would protect nothing.
///
/// # Safety
///
/// As for [`fault`].
unsafe extern "C" fn pfn_mkwrite(vmf: *mut bindings::vm_fault) -> VmFault {
    // SAFETY: As in `fault`.
    let fault = unsafe { Fault::new(vmf) };
    let ret = fault.resolve(|_| 0);
    if ret != 0 {
        return done(ret);
    }
    // It may be written. Returning 0 would have the kernel upgrade the entry it saw,
    // which may since have been zapped and made anew for reading, the arena's entry
    // being clean again.
    fault.take_out(fault.address(), PAGE_SIZE);
    done(fault.resolve(|frame| fault.insert(frame)))
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
unsafe extern "C" fn huge_fault(vmf: *mut bindings::vm_fault, order: c_uint) -> VmFault {
    if order != HUGE_ORDER {
        return FALLBACK;
    }
    // SAFETY: As in `fault`.
    let fault = unsafe { Fault::new(vmf) };
    let addr = fault.address() & !(HUGE_SIZE - 1);
    let vma = fault.vma();
    // SAFETY: The fault's lock is held.
    let (start, end, flags) = unsafe {
        let bounds = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
        (
            bounds.vm_start,
            bounds.vm_end,
            (*vma).__bindgen_anon_2.vm_flags,
        )
    };
    if addr < start || end - addr < HUGE_SIZE {
        return FALLBACK;
    }
    let first = fault.page() - ((fault.address() - addr) >> PAGE_SHIFT) as u64;
    let write = fault.access.contains(Prot::WRITE);
    if write && !fault.pmd_is_none() {
        fault.take_out(addr, HUGE_SIZE);
    }
    for _ in 0..TRIES {
        let miss = match fault.space.with_huge_frame(first, fault.access, |frame| {
            // An entry made under the same lock since is as good as ours, but it
            // may be a page table.
            if !fault.pmd_is_none() {
                return FALLBACK;
            }
            // The entry's protection is the VMA's.
            if flags & bindings::VM_EXEC as usize != 0 && !frame.executable {
                return FALLBACK;
            }
            // SAFETY: The VMA is a PFN map that holds the whole huge page, of which
            // the entry is empty; nothing is allocated on this architecture.
            unsafe { bindings::vmf_insert_pfn_pmd(vmf, frame.pfn, write) }
        }) {
            Ok(ret) => {
                trace::fault(&fault.space.mapping, first, fault.access, ret);
                return ret;
            }
            Err(miss) => miss,
        };
        let Miss::Unknown(segment, page) = miss else {
            return FALLBACK;
        };
        // The page that is touched tells whether the arena has a huge one; faulting
        // it in is left to the fault that follows.
        let touched = page + (fault.page() - first) as usize;
        match fault.space.learn(&segment, touched, write) {
            Ok(Learned::Again) if segment.frames.get_huge(page).is_some() => (),
            _ => return FALLBACK,
        }
    }
    FALLBACK
}

/// ptrace and /proc/PID/mem, which cannot get at a PFN map otherwise. The layout's
/// and the window's protection hold for them too.
///
/// # Safety
///
/// Called with the mmap lock held, for a VMA with [`VM_OPS`] and a buffer of `len`
/// bytes.
unsafe extern "C" fn access(
    vma: *mut bindings::vm_area_struct,
    addr: usize,
    buf: *mut c_void,
    len: c_int,
    write: c_int,
) -> c_int {
    // SAFETY: By our caller.
    let (space, flags, start, first) = unsafe {
        (
            space_of(vma),
            (*vma).__bindgen_anon_2.vm_flags,
            (*vma).__bindgen_anon_1.__bindgen_anon_1.vm_start,
            (*vma).vm_pgoff,
        )
    };
    let write = write != 0;
    let (wanted, flag) = if write {
        (Prot::WRITE, bindings::VM_WRITE)
    } else {
        (Prot::READ, bindings::VM_READ)
    };
    if flags & flag as usize == 0 {
        return EACCES.to_errno();
    }
    let len = len.max(0) as usize;
    let mut done = 0;
    while done < len {
        let at = addr + done - start;
        let offset = at % PAGE_SIZE;
        let chunk = (PAGE_SIZE - offset).min(len - done);
        let page = (first + (at >> PAGE_SHIFT)) as u64;
        let copied = space.reach(page, wanted, |frame| {
            // SAFETY: The frame is referenced while the install lock is held, and the
            // buffer has `len` bytes, of which `done + chunk` are not more.
            unsafe {
                bindings::address_space_helper_frame_copy(
                    frame.pfn,
                    offset,
                    buf.cast::<u8>().add(done).cast(),
                    chunk,
                    write,
                )
            }
        });
        if copied.is_err() {
            break;
        }
        done += chunk;
    }
    if done == 0 {
        return EFAULT.to_errno();
    }
    done as c_int
}

impl Space {
    /// Resolves a page for who holds another mm's lock and may not let it go.
    fn reach(&self, page: u64, access: Prot, use_frame: impl Fn(Resolved)) -> Result {
        let write = access.contains(Prot::WRITE);
        for _ in 0..TRIES {
            let (segment, at) = match self.with_frame(page, access, &use_frame) {
                Ok(()) => return Ok(()),
                Err(Miss::Unknown(segment, at)) => (segment, at),
                Err(_) => return Err(EFAULT),
            };
            match self.learn(&segment, at, write)? {
                Learned::Again => (),
                Learned::Missing => {
                    let held = self.arena.try_read().ok_or(EAGAIN)?;
                    self.arena
                        .fault_in_locked(&held, segment.addr_of(at), write)?;
                }
                Learned::Stale | Learned::Busy => return Err(EAGAIN),
            }
        }
        Err(EAGAIN)
    }
}

/// How many failures are remembered.
const FAILURES: usize = 16;

/// Errors of waits, kept from the try of a fault that waited, when no lock was held
/// and nothing could be returned but "try again", to the next try of the same task.
#[pin_data]
pub(crate) struct Failures {
    #[pin]
    inner: SpinLock<Remembered>,
}

struct Remembered {
    failures: [Option<Failure>; FAILURES],
    /// Where in the space a hole was last met.
    hole: Option<u64>,
}

struct Failure {
    /// Who waited; compared, never followed.
    task: usize,
    what: Waited,
    error: Error,
    since: Instant<Monotonic>,
}

/// A page of the space, and whether it was to be written.
type Waited = (u64, bool);

impl Failures {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(Remembered {
                failures: [const { None }; FAILURES],
                hole: None,
            }),
        })
    }

    /// The place of the current task. Others may use the same: then one of them
    /// waits, fails and is remembered again.
    fn place() -> (usize, usize) {
        let task = Task::current_raw() as usize;
        // Tasks are large, so their low address bits tell them apart badly.
        (task, (task >> 12) % FAILURES)
    }

    fn put(&self, what: Waited, error: Error) {
        let (task, place) = Self::place();
        if let Some(slot) = self.inner.lock().failures.get_mut(place) {
            *slot = Some(Failure {
                task,
                what,
                error,
                since: Instant::now(),
            });
        }
    }

    /// The error of the current task's wait, which is forgotten then.
    fn take(&self, what: Waited) -> Option<Error> {
        let error = self.peek(what)?;
        if let Some(slot) = self.inner.lock().failures.get_mut(Self::place().1) {
            *slot = None;
        }
        Some(error)
    }

    /// The error of the current task's wait.
    fn peek(&self, what: Waited) -> Option<Error> {
        let (task, place) = Self::place();
        let inner = self.inner.lock();
        let failure = inner.failures.get(place)?.as_ref()?;
        (failure.task == task
            && failure.what == what
            // What nobody came back for soon need not be true any more.
            && failure.since.elapsed() < Delta::from_secs(1))
        .then_some(failure.error)
    }

    fn note_hole(&self, page: u64) {
        self.inner.lock().hole = Some(page);
    }

    /// The page at which a hole was last met.
    pub(crate) fn last_hole(&self) -> Option<u64> {
        self.inner.lock().hole
    }
}
