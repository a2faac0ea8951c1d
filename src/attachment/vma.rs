// SPDX-License-Identifier: GPL-2.0

//! An attachment and a page fault of one as safe types, and VM operations in Rust. What they do is
//! in `fault.rs` and its neighbours.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use core::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};

use kernel::{
    error::from_result,
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
    segment::frame::{
        HUGE_ORDER,
        HUGE_PAGES, //
    },
    space::{
        resolve::Resolved,
        terms::{
            Sink,
            Terms, //
        },
        Space, //
    },
    sys::bindings,
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
/// `vma` is an attachment: its operations are a [`Table`], and its private data is either the
/// [`Terms`] of its file, which keeps them, or [`HAS_SINK`] bytes into a [`Sink`] of these terms,
/// of which the VMA owns a reference. `terms` and `sink` are these. `first` and `mm` are its fields
/// of these names.
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
    /// never changed in place, since what it was checked against might be gone.
    pub(crate) fn zap(&self, addr: usize, size: usize) {
        let end = addr.saturating_add(size).min(self.vma.end());
        let start = addr.max(self.vma.start());
        if start < end {
            // SAFETY: The bytes lie in the VMA, a PFN map that is held still.
            unsafe { bindings::zap_special_vma_range(self.vma.as_ptr(), start, end - start) };
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
            bindings::address_space_helper_zap_original(vma, all);
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
        self.zap(start, end.saturating_sub(start));
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
    unsafe fn new(vmf: *mut bindings::vm_fault) -> Self {
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

/// What ptrace and the like copy from or to.
///
/// # Invariants
///
/// `buf` has `len` bytes, which are the caller's for the call.
pub(crate) struct Buffer<'a> {
    buf: *mut u8,
    len: usize,
    write: bool,
    _call: PhantomData<&'a mut [u8]>,
}

impl Buffer<'_> {
    /// How many bytes are wanted.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether they go to the attachment.
    pub(crate) fn is_write(&self) -> bool {
        self.write
    }

    /// Copies as many bytes, at byte `offset` of a frame, from or to byte `at` of the buffer; no
    /// more than there are in both.
    pub(crate) fn copy(&mut self, at: usize, frame: &Resolved<'_>, offset: usize, bytes: usize) {
        let at = at.min(self.len);
        let bytes = bytes
            .min(self.len - at)
            .min(PAGE_SIZE - offset.min(PAGE_SIZE));
        // SAFETY: The frame table holds the frame while the install lock is held, which a
        // `Resolved` stands for; the bytes lie in it, and in the buffer.
        unsafe {
            bindings::address_space_helper_frame_copy(
                frame.frame.pfn,
                offset,
                self.buf.add(at).cast(),
                bytes,
                self.write,
            )
        };
    }
}

/// What an attachment does.
pub(crate) trait VmOperations {
    /// The VMA is a copy of an attachment, or a part of one that was split.
    fn open(attachment: Attachment<'_>);
    /// The VMA goes away. Its mm may have no users any more.
    fn close(attachment: Attachment<'_>);
    /// Something is touched that has no entry.
    fn fault(context: FaultContext<'_>) -> VmFault;
    /// Something is touched where a huge page could be.
    fn huge_fault(context: FaultContext<'_>) -> VmFault;
    /// Something is written that has an entry for reading.
    fn pfn_mkwrite(context: FaultContext<'_>) -> VmFault;
    /// mprotect() is about to give bytes `start..end` the flags `flags`. The mmap lock is held for
    /// writing.
    fn mprotect(
        attachment: Attachment<'_>,
        start: usize,
        end: usize,
        flags: bindings::vm_flags_t,
    ) -> Result;
    /// ptrace and /proc/PID/mem at `addr`; returns how many bytes were copied.
    fn access(attachment: Attachment<'_>, addr: usize, buffer: Buffer<'_>) -> Result<usize>;
}

/// A table of operations, which the kernel only reads.
pub(crate) struct Table(bindings::vm_operations_struct);

// SAFETY: Nothing writes it, and the pointers in it that are not functions are null.
unsafe impl Sync for Table {}

impl Table {
    /// The operations of `T`. Only attachments may have them.
    pub(crate) const fn of<T: VmOperations>() -> Self {
        Table(bindings::vm_operations_struct {
            open: Some(Shims::<T>::open),
            close: Some(Shims::<T>::close),
            fault: Some(Shims::<T>::fault),
            huge_fault: Some(Shims::<T>::huge_fault),
            pfn_mkwrite: Some(Shims::<T>::pfn_mkwrite),
            mprotect: Some(Shims::<T>::mprotect),
            access: Some(Shims::<T>::access),
            #[cfg(CONFIG_NUMA)]
            set_policy: Some(Shims::<T>::set_policy),
            ..pin_init::zeroed()
        })
    }

    /// The table as C has it.
    pub(super) fn as_raw(&'static self) -> *const bindings::vm_operations_struct {
        &self.0
    }
}

struct Shims<T>(PhantomData<T>);

/// Operations that get a VMA, or a fault, and what follows.
macro_rules! shims {
    ($($(#[$attr:meta])* $kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty = |$this:ident| $body:expr;)*) => {$(
        /// # Safety
        ///
        /// Called as a VM operation of an attachment, with arguments as for that.
        $(#[$attr])*
        unsafe extern "C" fn $name(this: shims!(@type $kind), $($arg: $type),*) -> $ret {
            // SAFETY: The kernel holds the mmap lock or the VMA lock, which is the fault's lock
            // if it is a fault; what has these operations is an attachment.
            let $this = unsafe { shims!(@$kind this) };
            $body
        }
    )*};
    (@type attachment) => { *mut bindings::vm_area_struct };
    (@type context) => { *mut bindings::vm_fault };
    (@attachment $this:ident) => { Attachment::new($this) };
    (@context $this:ident) => { FaultContext::new($this) };
}

impl<T: VmOperations> Shims<T> {
    shims! {
        // mbind(): the pages are the files', which are asked for a policy themselves.
        #[cfg(CONFIG_NUMA)]
        attachment fn set_policy(_policy: *mut bindings::mempolicy) -> c_int =
            |_attachment| EOPNOTSUPP.to_errno();
        attachment fn open() -> () = |attachment| T::open(attachment);
        attachment fn close() -> () = |attachment| T::close(attachment);
        context fn fault() -> VmFault = |context| T::fault(context);
        context fn huge_fault(order: c_uint) -> VmFault = |context| {
            if order != HUGE_ORDER {
                return FALLBACK;
            }
            T::huge_fault(context)
        };
        context fn pfn_mkwrite() -> VmFault = |context| T::pfn_mkwrite(context);
        attachment fn mprotect(start: usize, end: usize, flags: usize) -> c_int = |attachment| {
            from_result(|| T::mprotect(attachment, start, end, flags).map(|()| 0))
        };
        attachment fn access(
            addr: usize, buf: *mut c_void, len: c_int, write: c_int
        ) -> c_int = |attachment| {
            // INVARIANT: That is what the kernel calls this operation with.
            let buffer = Buffer {
                buf: buf.cast(),
                len: len.max(0) as usize,
                write: write != 0,
                _call: PhantomData,
            };
            match T::access(attachment, addr, buffer) {
                Ok(bytes) => bytes as c_int,
                Err(error) => error.to_errno(),
            }
        };
    }
}
