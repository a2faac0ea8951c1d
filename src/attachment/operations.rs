// SPDX-License-Identifier: GPL-2.0

//! VM operations in Rust: what the kernel calls is turned into calls with an [`Attachment`] or a
//! [`FaultContext`]. What they do is in `attach.rs`.
//!
//! Locks: the kernel calls them with the mmap lock or the VMA's held.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use core::marker::PhantomData;

use kernel::{
    error::from_result,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    attachment::vma::{
        Attachment,
        FaultContext,
        VmFault,
        FALLBACK, //
    },
    segment::frame::HUGE_ORDER,
    space::resolve::Resolved,
    sys::bindings,
};

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
            map_pages: Some(map_nothing),
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

/// The pages around a fault are installed by the fault itself. But the kernel calls the other
/// operations under the lock of the VMA alone only where there is this one, and else has each
/// access begin anew with the mmap lock.
extern "C" fn map_nothing(_fault: *mut bindings::vm_fault, _first: usize, _last: usize) -> VmFault {
    0
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
            |_attachment| crate::sys::errno::EOPNOTSUPP.to_errno();
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
