// SPDX-License-Identifier: GPL-2.0

//! An attachment and a page fault of one as safe types.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use core::{
    ops::Range,
    ptr::NonNull, //
};

use kernel::{
    fs::File,
    mm::virt::VmaRef,
    page::{
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    layout::{
        Prot,
        SpacePage, //
    },
    segment::frame::HUGE_PAGES,
    space::{
        terms::{
            Sink,
            Terms, //
        },
        Space, //
    },
    sys::{
        bindings,
        zapping_tasks, //
    },
};

/// What a fault returns.
pub(crate) type VmFault = bindings::vm_fault_t;

/// The page is installed.
pub(crate) const NOPAGE: VmFault = bindings::vm_fault_reason_VM_FAULT_NOPAGE;
/// There is no huge page to install.
pub(crate) const FALLBACK: VmFault = bindings::vm_fault_reason_VM_FAULT_FALLBACK;

/// Size of a huge page in bytes.
pub(crate) const HUGE_SIZE: usize = HUGE_PAGES * PAGE_SIZE;

/// Added to the private data of a VMA that has a sink. (Both are aligned to more.)
const HAS_SINK: usize = 1;

/// An attachment, held still.
///
/// # Invariants
///
/// `vma` is an attachment: its operations are a `Table` (`operations.rs`), and its private data is
/// either the [`Terms`] of its file, which keeps them, or [`HAS_SINK`] bytes into a [`Sink`] of
/// these terms, of which the VMA owns a reference. `terms` and `sink` are these. `first` and `mm`
/// are its fields of these names.
#[derive(Clone, Copy)]
pub(crate) struct Attachment<'a> {
    vma: &'a VmaRef,
    secondary_mmu: bool,
    terms: &'a Terms,
    sink: Option<ArcBorrow<'a, Sink>>,
    first: SpacePage,
    mm: *mut bindings::mm_struct,
}

impl<'a> Attachment<'a> {
    /// The attachment that `vma` is.
    ///
    /// # Safety
    ///
    /// `vma` must be an attachment, and held still for `'a`.
    pub(super) unsafe fn new(vma: *mut bindings::vm_area_struct) -> Self {
        // SAFETY: By the caller's promise.
        //
        // INVARIANT: As above.
        unsafe {
            let private = (*vma).vm_private_data;
            let (terms, sink) = if private as usize & HAS_SINK != 0 {
                let sink: *const Sink = private.wrapping_byte_sub(HAS_SINK).cast();
                let terms: &Terms = (*sink).terms();
                (terms, Some(ArcBorrow::from_raw(sink)))
            } else {
                (&*private.cast(), None)
            };
            Attachment {
                vma: VmaRef::from_raw(vma),
                secondary_mmu: bindings::address_space_helper_mm_has_notifiers((*vma).vm_mm),
                terms,
                sink,
                first: SpacePage::new((*vma).vm_pgoff as u64),
                mm: (*vma).vm_mm,
            }
        }
    }

    /// The VMA.
    pub(crate) fn vma(&self) -> &'a VmaRef {
        self.vma
    }

    /// Whether a secondary MMU may show it too, that of a VM: its mm has mmu notifiers, as that of
    /// a process that has made a VM has. It may be a memory slot then.
    pub(crate) fn has_secondary_mmu(&self) -> bool {
        self.secondary_mmu
    }

    /// On what terms it shows the space.
    pub(crate) fn terms(&self) -> &'a Terms {
        self.terms
    }

    /// The space that it shows.
    pub(crate) fn space(&self) -> &'a Arc<Space> {
        self.terms.space()
    }

    /// What it absorbs accesses with. One that should have a sink has none if there was no memory
    /// for it when fork() made the attachment.
    pub(crate) fn sink(&self) -> Option<ArcBorrow<'a, Sink>> {
        self.sink
    }

    /// The pages of the space that it shows.
    pub(crate) fn pages(&self) -> Range<SpacePage> {
        let pages = (self.vma.end() - self.vma.start()) >> PAGE_SHIFT;
        self.first..self.first + pages as u64
    }

    /// The address at which it shows a page of the space, one of [`Attachment::pages`].
    pub(crate) fn address_of(&self, page: SpacePage) -> usize {
        self.vma.start() + ((page - self.first) as usize) * PAGE_SIZE
    }

    /// Zaps `size` bytes at `addr`, so that they can be installed with other rights: an entry is
    /// never changed in place, since what it was checked against might be gone. Says whether it
    /// has: not while somebody zaps alone, who has to be waited for with no lock held.
    pub(crate) fn zap(&self, addr: usize, size: usize) -> bool {
        let shared = self.space().zaps.try_shared();
        if shared.is_some() {
            self.zap_now(addr, size);
        }
        shared.is_some()
    }

    /// The same, with the right to zap: a [`Shared`](crate::sys::zaps::Shared), or the mmap lock
    /// held for writing.
    fn zap_now(&self, addr: usize, size: usize) {
        let end = addr.saturating_add(size).min(self.vma.end());
        let start = addr.max(self.vma.start());
        if start < end {
            zapping_tasks::run(|| {
                // SAFETY: The bytes lie in the VMA, a PFN map that is held still.
                unsafe { bindings::zap_special_vma_range(self.vma.as_ptr(), start, end - start) };
            });
        }
    }

    /// If this is the copy that fork() or mremap() makes of an attachment of the current process,
    /// and has no entries yet: zaps what must not be copied or moved of that, which are huge
    /// entries; in fork() also all, if some may be of a sink, and gives the copy a sink of its own.
    /// Nothing installs any before fork() or mremap() is done.
    ///
    /// In the same process it is another VMA of the same attachment, with the same sink.
    pub(super) fn open(self) {
        let current = current!();
        let forked = current.mm().is_some_and(|mm| mm.as_raw() != self.mm);
        let all = forked && self.sink.is_some_and(|sink| sink.is_used());
        let private = self.sink.map(|sink| {
            if !forked {
                return private_data(sink.into());
            }
            match Sink::new(sink.terms().clone()) {
                Ok(own) => private_data(own),
                Err(_) => core::ptr::from_ref(self.terms).cast_mut().cast(),
            }
        });
        // SAFETY: The VMA is valid, and nothing else uses it yet. The current task has its own mmap
        // lock held for writing: it is in fork(), if the mm is another one; if not, it changes its
        // own VMAs. All that is zapped is an attachment, as this one is, so a PFN map.
        //
        // INVARIANT: The VMA's private data is as the type has it, with a reference of its own.
        unsafe {
            let vma = self.vma.as_ptr();
            zapping_tasks::run(|| bindings::address_space_helper_zap_original(vma, all));
            if let Some(private) = private {
                (*vma).vm_private_data = private;
            }
        }
    }

    /// The VMA goes: puts its reference to the sink.
    pub(super) fn close(self) {
        if let Some(sink) = self.sink {
            // SAFETY: By the type's invariant the VMA owns a reference, which nothing uses after
            // this: its entries are gone.
            drop(unsafe { Arc::from_raw(&*sink) });
        }
    }

    /// Zaps bytes `start..end`, and keeps anything from being installed until the mmap lock is
    /// released, which must be held for writing.
    pub(super) fn zap_exclusively(&self, start: usize, end: usize) {
        // SAFETY: The VMA is valid, and its mmap lock held for writing.
        unsafe { bindings::address_space_helper_vma_start_write(self.vma.as_ptr()) };
        self.zap_now(start, end.saturating_sub(start));
    }

    /// Where its mm is: to be compared, not followed.
    pub(crate) fn mm_ptr(&self) -> *mut bindings::mm_struct {
        self.mm
    }
}

/// What a VMA that has a sink has for its private data; see [`Attachment`].
pub(super) fn private_data(sink: Arc<Sink>) -> *mut c_void {
    Arc::into_raw(sink)
        .cast_mut()
        .wrapping_byte_add(HAS_SINK)
        .cast()
}

/// A page fault of an attachment.
///
/// # Invariants
///
/// `vmf` is that of a fault that the kernel has the attachment answer, and the fault's lock is
/// held.
pub(crate) struct FaultContext<'a> {
    vmf: NonNull<bindings::vm_fault>,
    attachment: Attachment<'a>,
    flags: bindings::fault_flag,
    address: usize,
    page: SpacePage,
}

impl<'a> FaultContext<'a> {
    /// The fault that the kernel has an attachment answer.
    ///
    /// # Safety
    ///
    /// `vmf` must be that of a fault of an attachment, whose lock is held for `'a`.
    pub(super) unsafe fn new(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: By the caller's promise.
        //
        // INVARIANT: As above.
        unsafe {
            let vmf = NonNull::new_unchecked(vmf);
            let fault = &vmf.as_ref().__bindgen_anon_1;
            FaultContext {
                vmf,
                attachment: Attachment::new(fault.vma),
                flags: vmf.as_ref().flags,
                address: fault.address & PAGE_MASK,
                page: SpacePage::new(fault.pgoff as u64),
            }
        }
    }

    /// The attachment.
    pub(crate) fn attachment(&self) -> Attachment<'a> {
        self.attachment
    }

    /// On what terms the attachment shows the space.
    pub(crate) fn terms(&self) -> &'a Terms {
        self.attachment.terms()
    }

    /// The space.
    pub(crate) fn space(&self) -> &'a Arc<Space> {
        self.attachment.space()
    }

    /// The address of the page that is touched.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// The page of the space that is touched.
    pub(crate) fn page(&self) -> SpacePage {
        self.page
    }

    /// How it is touched.
    pub(crate) fn access(&self) -> Prot {
        if self.has(bindings::fault_flag_FAULT_FLAG_WRITE) {
            Prot::WRITE
        } else if self.has(bindings::fault_flag_FAULT_FLAG_INSTRUCTION) {
            Prot::EXEC
        } else {
            Prot::READ
        }
    }

    fn has(&self, flag: bindings::fault_flag) -> bool {
        self.flags & flag != 0
    }

    /// Whether the access may be tried again later, so that `VM_FAULT_RETRY` may be returned.
    pub(crate) fn may_retry(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY)
    }

    /// Whether the fault's lock may be released meanwhile.
    pub(crate) fn may_release(&self) -> bool {
        self.may_retry() && !self.has(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT)
    }

    /// Whether the page is only wanted if that needs no waiting, and nothing is touched.
    pub(crate) fn is_speculative(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT)
    }

    /// Whether it was tried before.
    pub(crate) fn was_tried(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_TRIED)
    }

    /// Whether user space's own access raised it.
    pub(crate) fn is_by_user(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_USER)
    }

    /// Whether an access raised it, by user space or in a system call. Code that has pages faulted
    /// in, as fixup_user_fault() does for KVM, has no signal end its waits but a fatal one.
    pub(crate) fn is_by_access(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_INTERRUPTIBLE)
    }

    /// The fault as C has it, which is valid as long as this is.
    pub(super) fn as_raw(&self) -> *mut bindings::vm_fault {
        self.vmf.as_ptr()
    }

    /// Releases the fault's lock, after which the VMA may go, and runs `f`; `VM_FAULT_RETRY` must
    /// be returned.
    pub(crate) fn release_fault_lock(self, f: impl FnOnce(&Space)) {
        let space = self.space();
        // SAFETY: An attachment has a file as long as it is held still, which it is until the lock
        // is released; that is held by the type's invariant. The file keeps the space while `f`
        // runs.
        let _file: ARef<File> = unsafe {
            let file = File::from_raw_file((*self.attachment.vma.as_ptr()).vm_file).into();
            bindings::address_space_helper_release_fault_lock(self.vmf.as_ptr());
            file
        };
        f(space);
    }
}
