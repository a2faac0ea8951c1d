// SPDX-License-Identifier: GPL-2.0

//! Attachments: the VMAs that map an asfd or a view.
//!
//! An attachment is a PFN map: it gets frames, never references, so nothing can pin
//! what a revocation must take away. Its faults are in `fault.rs`; here is how it is
//! made, counted, and looked into by debuggers.
//!
//! All of this runs with the mmap lock of the attached process held, by its callers.

use kernel::{
    mm::{
        virt::{
            VmaNew,
            VmaRef, //
        },
        MmWithUser, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::ordering::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::{
    attachment::fault::{
        fault,
        huge_fault,
        pfn_mkwrite,
        slot_fault,
        slot_huge_fault,
        VmFault, //
    },
    layout::Prot,
    space::{
        resolve::{
            Learned,
            Miss,
            Resolved,
            TRIES, //
        },
        Space, //
    },
    sys::bindings, //
};

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
        VM_DONTDUMP,
        VM_DONTEXPAND,
        VM_EXEC,
        VM_IO,
        VM_MAYEXEC,
        VM_MAYSHARE,
        VM_MAYWRITE,
        VM_PFNMAP,
        VM_WRITE, //
    };
    // Not VM_SHARED: the kernel drops it from a shared mapping of a file that is
    // open for reading only.
    if vma.flags() & VM_MAYSHARE == 0 {
        return Err(EINVAL);
    }
    let mut refused = 0;
    if !prot.contains(Prot::WRITE) {
        refused |= VM_WRITE | VM_MAYWRITE;
    }
    if !prot.contains(Prot::EXEC) {
        refused |= VM_EXEC | VM_MAYEXEC;
    }
    if vma.flags() & (refused & (VM_WRITE | VM_EXEC)) != 0 {
        return Err(EACCES);
    }
    let set = VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP;
    // SAFETY: The VMA is being set up, so nobody else uses it; the flags are those
    // of a PFN map, of which nothing is mapped yet.
    unsafe {
        let raw = vma.as_ptr();
        bindings::address_space_helper_vma_init(raw, first as usize, set, refused);
        (*raw).vm_private_data = core::ptr::from_ref(space).cast_mut().cast();
        (*raw).vm_ops = &VM_OPS.0;
    }
    space.counts.attachments.fetch_add(1, Relaxed);
    Ok(())
}

/// Whether `vma` is an attachment of `space`.
pub(crate) fn is_attachment_of(vma: &VmaRef, space: &Space) -> bool {
    // SAFETY: The VMA is valid and held still, as `VmaRef` promises.
    unsafe {
        let raw = vma.as_ptr();
        (core::ptr::eq((*raw).vm_ops, &VM_OPS.0) || core::ptr::eq((*raw).vm_ops, &SLOT_VM_OPS.0))
            && core::ptr::eq((*raw).vm_private_data.cast(), space)
    }
}

/// Makes the window at `addr` of the caller one that a VM can use; see
/// `fault.rs`.
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

/// Whether `vma` is the window of a VM's memory slot.
///
/// # Safety
///
/// `vma` must be valid.
pub(crate) unsafe fn is_slot_window(vma: *mut bindings::vm_area_struct) -> bool {
    // SAFETY: By our caller.
    core::ptr::eq(unsafe { (*vma).vm_ops }, &SLOT_VM_OPS.0)
}

/// The space of an attachment.
///
/// # Safety
///
/// `vma` must have [`VM_OPS`], and must not go away before the reference.
pub(crate) unsafe fn space_of<'a>(vma: *mut bindings::vm_area_struct) -> &'a Space {
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
    if flags & flag == 0 {
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

/// How long to wait for a revocation, or for the arena's lock, before another try.
const PAUSE: Delta = Delta::from_micros(50);

impl Space {
    /// Resolves a page for who holds another mm's lock and may not let it go.
    fn reach(&self, page: u64, access: Prot, use_frame: impl Fn(Resolved)) -> Result {
        let write = access.contains(Prot::WRITE);
        for _ in 0..TRIES {
            let (segment, at) = match self.with_frame(page, access, &use_frame) {
                Ok(()) => return Ok(()),
                Err(Miss::Unknown(segment, at)) => (segment, at),
                Err(Miss::Stale) => {
                    fsleep(PAUSE);
                    continue;
                }
                Err(_) => return Err(EFAULT),
            };
            match self.learn(&segment, at, &(at..at + 1), write)? {
                Learned::Again => (),
                Learned::Missing => {
                    let held = self.arena.try_read().ok_or(EAGAIN)?;
                    let found = self
                        .arena
                        .fault_in_locked(&held, segment.addr_of(at), write);
                    // What is no longer shown may have ended meanwhile.
                    if self.shown_at(page) == Some((segment.id(), at)) {
                        found?;
                    }
                }
                Learned::Stale | Learned::Busy => fsleep(PAUSE),
            }
        }
        Err(EAGAIN)
    }
}
