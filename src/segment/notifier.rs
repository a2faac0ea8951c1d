// SPDX-License-Identifier: GPL-2.0

//! The mmu interval notifier of a segment, as a safe type, and the questions
//! that are asked of an mm under it.
//!
//! Takes no lock itself. The protocol is that of `mm/mmu_notifier.c` and
//! `Documentation/mm/hmm.rst`: [`Notifier::begin`], look, then under the install
//! lock [`Notifier::retry`]; the callback sets the sequence under the install
//! lock held exclusively.

use core::mem::MaybeUninit;

use kernel::{
    error::to_result,
    fs::File,
    mm::{
        MmWithUser,
        MmapReadGuard, //
    },
    page::PAGE_SIZE,
    prelude::*,
    types::Opaque, //
};

use crate::{
    segment::frame::Frame,
    sys::bindings, //
};

/// An interval notifier in the making or in use.
///
/// # Invariants
///
/// Between a successful [`Notifier::insert`] and [`Notifier::remove`] the
/// notifier is registered with an mm, and pinned.
#[pin_data]
#[repr(transparent)]
pub(crate) struct Notifier {
    #[pin]
    inner: Opaque<bindings::mmu_interval_notifier>,
}

// SAFETY: The notifier is only passed to C functions that lock for themselves.
unsafe impl Send for Notifier {}
// SAFETY: As above.
unsafe impl Sync for Notifier {}

/// What the mm that a segment is mapped in has for one page.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The page frame.
    pub(crate) pfn: usize,
    /// Whether the mm's own entry may be written.
    pub(crate) writable: bool,
    /// The entry maps an aligned run of `1 << order` pages.
    pub(crate) order: u32,
}

impl Notifier {
    /// A notifier that is not registered yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::zeroed(),
        })
    }

    /// Registers for `length` bytes at `addr` of `mm`. May sleep on the mmap lock.
    ///
    /// # Safety
    ///
    /// Must be called once. The notifier must stay pinned, and what the
    /// callbacks in `ops` use must stay valid, until [`Notifier::remove`] has
    /// returned.
    pub(crate) unsafe fn insert(
        &self,
        mm: &MmWithUser,
        addr: usize,
        length: usize,
        ops: &'static bindings::mmu_interval_notifier_ops,
    ) -> Result {
        // SAFETY: `mm` has users; the rest is passed on to our caller.
        to_result(unsafe {
            bindings::mmu_interval_notifier_insert(self.inner.get(), mm.as_raw(), addr, length, ops)
        })
    }

    /// Ends the registration; afterwards no callback runs or will run.
    ///
    /// Waits for callbacks, so nothing that they take may be held.
    ///
    /// # Safety
    ///
    /// Must be called once, after a successful [`Notifier::insert`].
    pub(crate) unsafe fn remove(&self) {
        // SAFETY: The notifier is registered.
        unsafe { bindings::mmu_interval_notifier_remove(self.inner.get()) };
    }

    /// Begins a look at the mm; waits while an invalidation runs.
    ///
    /// The notifier must have been inserted.
    pub(crate) fn begin(&self) -> usize {
        // SAFETY: The notifier was inserted, and its mm outlives it.
        unsafe { bindings::mmu_interval_read_begin(self.inner.get()) }
    }

    /// Whether what was seen since [`Notifier::begin`] may be stale. To be asked
    /// with the install lock held.
    pub(crate) fn retry(&self, seq: usize) -> bool {
        // SAFETY: The notifier was inserted.
        unsafe { bindings::address_space_helper_interval_read_retry(self.inner.get(), seq) }
    }

    /// Marks everything that was looked at so far as stale.
    ///
    /// # Safety
    ///
    /// Must be called from the callback, with the sequence number that it was
    /// given and the install lock held exclusively.
    pub(crate) unsafe fn set_seq(&self, seq: usize) {
        // SAFETY: By our caller.
        unsafe { bindings::address_space_helper_interval_set_seq(self.inner.get(), seq) };
    }

    /// What is present from `addr` on in the notifier's mm, a page for each of `words`;
    /// never faults anything in and does no I/O. `file` is mapped there.
    ///
    /// What lies in ordinary page tables is read off them, as HMM would and without its
    /// costs, which are those of some hundred pages. HMM is asked about everything else.
    ///
    /// `EBUSY` where the mm was changing.
    pub(crate) fn look<'a>(
        &self,
        _held: &MmapReadGuard<'_>,
        file: &File,
        seq: usize,
        addr: usize,
        words: &'a mut [MaybeUninit<usize>],
    ) -> Result<Seen<'a>> {
        let count = words.len();
        let first = words.as_mut_ptr().cast::<usize>();
        // SAFETY: The mm's lock is held for reading, the notifier is registered with it,
        // and there is room for `count` words.
        let ordinary = unsafe {
            bindings::address_space_helper_look(
                (*self.inner.get()).mm,
                file.as_ptr(),
                addr,
                first,
                count,
            )
        };
        if !ordinary {
            words.fill(MaybeUninit::new(0));
        }
        // SAFETY: All of them have been written.
        let words = unsafe { core::slice::from_raw_parts_mut(first, count) };
        if ordinary {
            return Ok(Seen::Singles(words));
        }
        let mut range = bindings::hmm_range {
            notifier: self.inner.get(),
            notifier_seq: seq,
            start: addr,
            end: addr + count * PAGE_SIZE,
            hmm_pfns: words.as_mut_ptr(),
            // No flags: report, do not fault.
            default_flags: 0,
            pfn_flags_mask: 0,
            dev_private_owner: core::ptr::null_mut(),
        };
        // SAFETY: The mmap lock is held for reading, `hmm_pfns` has room for the
        // pages asked for, and the notifier covers them.
        to_result(unsafe { bindings::hmm_range_fault(&mut range) })?;
        Ok(Seen::Any(words))
    }
}

/// What was seen of pages that follow one another.
pub(crate) enum Seen<'a> {
    /// Entries of ordinary page tables: packed frames, or 0.
    Singles(&'a [usize]),
    /// As HMM puts it.
    Any(&'a [usize]),
}

impl Seen<'_> {
    /// What was seen of the page at `index`; [`None`] where nothing is present.
    pub(crate) fn at(&self, index: usize) -> Option<Entry> {
        match self {
            Seen::Singles(words) => Frame::unpack(*words.get(index)?).map(|frame| Entry {
                pfn: frame.pfn,
                writable: frame.writable,
                order: 0,
            }),
            Seen::Any(words) => Entry::of(*words.get(index)?),
        }
    }
}

impl Entry {
    /// What HMM says of a page; [`None`] where nothing is present.
    fn of(pfn: usize) -> Option<Entry> {
        if pfn & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
            return None;
        }
        Some(Entry {
            pfn: pfn & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS,
            writable: pfn & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0,
            order: (pfn >> bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT) as u32 & 0x1f,
        })
    }
}
