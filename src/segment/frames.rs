// SPDX-License-Identifier: GPL-2.0

//! The frame table of a segment: which page frame each of its pages is known to
//! be, and who holds the references.
//!
//! Attachments get frames, never references: whatever frame any of them may show
//! is held once, here. So nothing that an attachment shows can be freed under
//! it, whatever the timing, and a second attacher's fault needs no walk of the
//! arena.
//!
//! Entries are added with the install lock held shared, after the check that the
//! arena still shows the frame ([`Frames::set`]); they are taken out with it
//! held exclusively, once every attachment has been zapped ([`Frames::take`]).
//! Memory is made beforehand, with no lock held ([`Frames::reserve`]).
//!
//! Pages are counted from the segment's first. A huge page is one entry.

use core::mem::MaybeUninit;

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
};

use crate::{
    segment::frame::{
        Frame,
        Taken, //
    },
    sys::bindings, //
};

/// Pages in a huge page, and entries in a chunk.
pub(crate) const HUGE_PAGES: usize = 512;
/// The order of a huge page.
pub(crate) const HUGE_ORDER: u32 = 9;

/// A chunk's memory: one packed entry a page, only touched as atomics.
type Chunk = [usize; HUGE_PAGES];

/// What an entry is now: a relaxed load. The kernel's own is a call, which is felt where
/// it is made for each page.
fn peek(entry: &Atomic<usize>) -> usize {
    // SAFETY: Valid and aligned for as long as it is borrowed; a volatile load of a word
    // is what the kernel's atomics make of a relaxed one.
    unsafe { entry.as_ptr().read_volatile() }
}

/// What is known of one naturally aligned run of [`HUGE_PAGES`] pages, in a word, since
/// of a huge page there is to be no more: nothing (0), a packed huge frame, or where the
/// entries of single pages are.
///
/// Once there are entries they stay. What is huge from then on has the first of them,
/// where [`Frame::HUGE`] tells it from a single page; the others are 0 then, since the
/// arena does not show both.
struct Slot(Atomic<usize>);

impl Slot {
    /// The entries of the single pages, if there is room for any.
    fn entries(&self) -> &[Atomic<usize>] {
        // Pairs with the publication in `reserve`.
        let word = self.0.load(Acquire);
        if word == 0 || word & Frame::PRESENT != 0 {
            return &[];
        }
        let chunk = core::ptr::with_exposed_provenance::<Atomic<usize>>(word);
        // SAFETY: By the table's invariant the chunk lives as long as the table, and its
        // elements are only used atomically; an `Atomic` is laid out as what it holds.
        unsafe { core::slice::from_raw_parts(chunk, HUGE_PAGES) }
    }

    /// Where a huge frame is, or would be now.
    fn huge_entry(&self) -> &Atomic<usize> {
        self.entries().first().unwrap_or(&self.0)
    }

    /// The huge frame, if one is known.
    fn huge(&self) -> Option<Frame> {
        let word = peek(&self.0);
        if word == 0 {
            return None;
        }
        let word = if word & Frame::PRESENT != 0 {
            word
        } else {
            peek(self.huge_entry())
        };
        Frame::unpack(word).filter(|_| word & Frame::HUGE != 0)
    }
}

/// The table.
///
/// # Invariants
///
/// - Each slot that is neither 0 nor a packed frame owns a `Chunk` made by `KBox`, which
///   is freed only when the table is dropped; its elements are only accessed atomically.
/// - Each entry that is present owns one reference to its folio.
pub(crate) struct Frames {
    /// Pages between the start of slot 0 and the segment's first page, so that
    /// slots lie as huge pages lie in the arena.
    lead: usize,
    pages: usize,
    slots: KVVec<Slot>,
}

// SAFETY: The chunks are owned by the table and only accessed atomically.
unsafe impl Send for Frames {}
// SAFETY: As above.
unsafe impl Sync for Frames {}

impl Frames {
    /// An empty table for `pages` pages that begin at page `first` of the arena.
    pub(crate) fn new(first: usize, pages: usize) -> Result<Frames> {
        let lead = first % HUGE_PAGES;
        let count = (lead + pages).div_ceil(HUGE_PAGES);
        let mut slots = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            slots.push(Slot(Atomic::new(0)), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Frames { lead, pages, slots })
    }

    fn slot(&self, page: usize) -> Option<(&Slot, usize)> {
        let index = self.lead + page;
        Some((self.slots.get(index / HUGE_PAGES)?, index % HUGE_PAGES))
    }

    /// The frame of `page`, if it is known.
    pub(crate) fn get(&self, page: usize) -> Option<Frame> {
        let (slot, index) = self.slot(page)?;
        if let Some(huge) = slot.huge() {
            return Some(Frame {
                pfn: huge.pfn + index,
                ..huge
            });
        }
        Frame::unpack(peek(slot.entries().get(index)?))
    }

    /// Copies what is known of the pages from `page` on, a packed frame for each of
    /// `words`, all of which are written: 0 for what is not known, or may not be written
    /// if `write`. Writable are none unless `may_write`.
    pub(crate) fn copy(
        &self,
        page: usize,
        write: bool,
        may_write: bool,
        words: &mut [MaybeUninit<usize>],
    ) {
        let need = Frame::PRESENT | if write { Frame::WRITABLE } else { 0 };
        let mask = if may_write { !0 } else { !Frame::WRITABLE };
        let word = |known: usize| {
            MaybeUninit::new(if known & need == need {
                known & mask
            } else {
                0
            })
        };
        let mut page = page;
        let mut rest = words;
        // A slot at a time: it is looked at once for all its pages.
        while let Some((slot, index)) = self.slot(page).filter(|_| !rest.is_empty()) {
            let (now, later) = rest.split_at_mut(rest.len().min(HUGE_PAGES - index));
            page += now.len();
            rest = later;
            if let Some(huge) = slot.huge() {
                for (pfn, into) in (huge.pfn + index..).zip(now) {
                    *into = word(Frame { pfn, ..huge }.pack());
                }
                continue;
            }
            let entries = slot.entries().get(index..).unwrap_or(&[]);
            let (known, unknown) = now.split_at_mut(now.len().min(entries.len()));
            for (into, entry) in known.iter_mut().zip(entries) {
                *into = word(peek(entry));
            }
            unknown.fill(MaybeUninit::new(0));
        }
        rest.fill(MaybeUninit::new(0));
    }

    /// Whether a huge page can begin at `page`.
    pub(crate) fn can_be_huge(&self, page: usize) -> bool {
        (self.lead + page) % HUGE_PAGES == 0 && self.holds_huge(page)
    }

    /// The huge frame that begins at `page`, if one is known.
    pub(crate) fn get_huge(&self, page: usize) -> Option<Frame> {
        let (slot, index) = self.slot(page)?;
        if index != 0 {
            return None;
        }
        slot.huge()
    }

    /// Whether there is room for the entry of `page`.
    pub(crate) fn has_room(&self, page: usize) -> bool {
        self.slot(page)
            .is_some_and(|(slot, _)| !slot.entries().is_empty())
    }

    /// Makes room for the entry of `page`. Allocates: no install lock may be held.
    ///
    /// There is none while a huge frame is known: who looked at the arena before will
    /// find that it has changed, and look again.
    pub(crate) fn reserve(&self, page: usize) -> Result {
        let (slot, _) = self.slot(page).ok_or(EINVAL)?;
        if peek(&slot.0) != 0 {
            return Ok(());
        }
        let chunk = KBox::into_raw(KBox::<Chunk>::zeroed(GFP_KERNEL_ACCOUNT)?);
        // Full: publishes the zeroed chunk to the Acquire in `entries`.
        //
        // INVARIANT: The slot owns the chunk from here on.
        if slot.0.cmpxchg(0, chunk.expose_provenance(), Full).is_err() {
            // SAFETY: Another was faster; `chunk` is still ours alone.
            drop(unsafe { KBox::from_raw(chunk) });
        }
        Ok(())
    }

    /// Enters a frame of `1 << order` pages around `page`, taking a reference.
    ///
    /// `frame` is that of `page` itself. As a huge page only if it lies as one in
    /// the arena and the segment holds all of it.
    ///
    /// # Safety
    ///
    /// The install lock must be held shared, and since it is held the notifier
    /// must have confirmed that the arena maps the frame with at least this
    /// protection: that is what keeps the folio alive until the reference is
    /// taken.
    pub(crate) unsafe fn set(&self, page: usize, frame: Frame, order: u32) {
        let Some((slot, index)) = self.slot(page) else {
            return;
        };
        if order >= HUGE_ORDER && self.holds_huge(page) && frame.pfn % HUGE_PAGES == index {
            let huge = Frame {
                pfn: frame.pfn - index,
                ..frame
            };
            let packed = huge.pack() | Frame::HUGE;
            // Once more if room for single pages was made meanwhile, which stays.
            for _ in 0..2 {
                // SAFETY: Passed on to our caller; the arena maps the huge page.
                unsafe { Self::enter(slot.huge_entry(), packed) };
            }
        } else if let Some(single) = slot.entries().get(index) {
            // SAFETY: Passed on to our caller.
            unsafe { Self::enter(single, frame.pack()) };
        }
    }

    /// Enters single frames of the pages from `page` on, as [`Frames::set`] does: they
    /// are packed, or 0.
    ///
    /// # Safety
    ///
    /// As for [`Frames::set`], of each.
    pub(crate) unsafe fn set_singles(&self, page: usize, words: &[usize]) {
        let mut page = page;
        let mut rest = words;
        while let Some((slot, index)) = self.slot(page).filter(|_| !rest.is_empty()) {
            let (now, later) = rest.split_at(rest.len().min(HUGE_PAGES - index));
            page += now.len();
            rest = later;
            if let Some(entries) = slot.entries().get(index..index + now.len()) {
                // SAFETY: Passed on to our caller.
                unsafe { Self::enter_singles(entries, now) };
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Frames::set`].
    unsafe fn enter_singles(entries: &[Atomic<usize>], words: &[usize]) {
        if entries.iter().any(|entry| peek(entry) != 0) {
            for (entry, word) in entries.iter().zip(words) {
                if Frame::unpack(*word).is_some() {
                    // SAFETY: Passed on to our caller.
                    unsafe { Self::enter(entry, *word) };
                }
            }
            return;
        }
        // All are new: the references are taken with one call.
        //
        // SAFETY: By our caller the arena maps the frames, so their folios are alive.
        unsafe { bindings::address_space_helper_frames_get(words.as_ptr(), words.len()) };
        for (entry, word) in entries.iter().zip(words) {
            let Some(frame) = Frame::unpack(*word) else {
                continue;
            };
            // Relaxed, and an invariant: see `enter`.
            if !matches!(entry.cmpxchg(0, *word, Relaxed), Ok(0)) {
                // SAFETY: The reference just taken, which no entry took.
                unsafe { bindings::address_space_helper_frame_put(frame.pfn, false) };
                // SAFETY: Passed on to our caller.
                unsafe { Self::enter(entry, *word) };
            }
        }
    }

    /// Whether the huge page's worth of pages around `page` is all the segment's.
    pub(crate) fn holds_huge(&self, page: usize) -> bool {
        let first = (self.lead + page) / HUGE_PAGES * HUGE_PAGES;
        // The arena may have merged the areas of two segments of one file, and
        // have a huge page across the seam.
        first >= self.lead && first + HUGE_PAGES <= self.lead + self.pages
    }

    /// # Safety
    ///
    /// As for [`Frames::set`].
    unsafe fn enter(entry: &Atomic<usize>, packed: usize) {
        let Some(frame) = Frame::unpack(packed) else {
            return;
        };
        // Otherwise it is known already, or a slot has got entries. (Another page cannot
        // stand here: a revocation takes the entry out before the arena can show another.)
        let tells_more = |old| match Frame::unpack(old) {
            None => old == 0,
            Some(known) => known.pfn == frame.pfn && frame.writable && !known.writable,
        };
        let mut old = peek(entry);
        if !tells_more(old) {
            return;
        }
        // SAFETY: By our caller the arena maps the frame, so its folio is alive.
        unsafe { bindings::address_space_helper_frame_get(frame.pfn) };
        while tells_more(old) {
            // Relaxed: who finds the frame uses its number alone, and who takes it out,
            // and may put the reference, has the install lock exclusively.
            match entry.cmpxchg(old, packed, Relaxed) {
                // INVARIANT: The entry owns the reference from here on.
                Ok(0) => return,
                // The same page with more rights: the entry's reference stays, the new
                // one goes.
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        // SAFETY: The reference just taken, which no entry took; nothing was written
        // through it, so it is put without a mark.
        unsafe { bindings::address_space_helper_frame_put(frame.pfn, false) };
    }

    /// The smallest range around `start..end` that cuts no huge entry in two.
    ///
    /// A huge entry can only be taken whole, so a revocation of part of one must
    /// reach all of it. The install lock must be held.
    pub(crate) fn widen(&self, start: usize, end: usize) -> (usize, usize) {
        let is_huge = |page: usize| {
            self.slot(page)
                .is_some_and(|(slot, _)| slot.huge().is_some())
        };
        let mut wide = (start, end);
        if is_huge(start) {
            let index = (self.lead + start) % HUGE_PAGES;
            wide.0 = start.saturating_sub(index);
        }
        if end > start && is_huge(end - 1) {
            let next = (self.lead + end - 1) / HUGE_PAGES * HUGE_PAGES + HUGE_PAGES;
            wide.1 = next - self.lead;
        }
        wide
    }

    /// Whether any frame in `start..end` is known. The install lock must be held.
    pub(crate) fn any(&self, start: usize, end: usize) -> bool {
        self.find(start, end).is_some()
    }

    /// The first entry in `start..end`, with the number of the page it begins at.
    fn find(&self, start: usize, end: usize) -> Option<(&Atomic<usize>, usize)> {
        let mut page = start;
        while page < end {
            let (slot, index) = self.slot(page)?;
            let next = ((self.lead + page) / HUGE_PAGES + 1) * HUGE_PAGES - self.lead;
            if slot.huge().is_some() {
                return Some((slot.huge_entry(), page));
            }
            let last = (end - page).min(HUGE_PAGES - index);
            let entries = slot.entries().iter().skip(index).take(last);
            for (step, entry) in entries.enumerate() {
                if peek(entry) != 0 {
                    return Some((entry, page + step));
                }
            }
            page = next;
        }
        None
    }

    /// Takes up to `taken.len()` frames of `start..end` out of the table; returns
    /// where to go on, or [`None`] when the range is empty.
    ///
    /// The install lock must be held exclusively, and nobody may reach the frames
    /// any more once the returned references are dropped. `start..end` must come
    /// from [`Frames::widen`].
    pub(crate) fn take(
        &self,
        start: usize,
        end: usize,
        taken: &mut [Option<Taken>],
    ) -> Option<usize> {
        let mut from = start;
        for place in taken {
            let (entry, page) = self.find(from, end)?;
            if let Some(frame) = Frame::unpack(entry.xchg(0, Relaxed)) {
                // INVARIANT: The entry is empty; its reference goes with `Taken`.
                *place = Some(Taken { frame, page });
            }
            from = page;
        }
        Some(from)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut from = 0;
        loop {
            let mut taken = [const { None }; 16];
            match self.take(from, self.pages, &mut taken) {
                Some(next) => from = next,
                None => break,
            }
        }
        for slot in &self.slots {
            // All frames have been taken out, so what is there leads to a chunk.
            let chunk = core::ptr::with_exposed_provenance_mut::<Chunk>(peek(&slot.0));
            if !chunk.is_null() {
                // SAFETY: By the type's invariant it came from a `KBox`, and
                // nobody else can use the table any more.
                drop(unsafe { KBox::from_raw(chunk) });
            }
        }
    }
}
