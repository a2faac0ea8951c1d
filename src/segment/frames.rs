// SPDX-License-Identifier: GPL-2.0

//! The frame table of a segment: which page frame each of its pages is known to be, with the
//! reference to it.
//!
//! Attachments get frames, never references: whatever frame any of them may show is held once,
//! here. So nothing that an attachment shows can be freed under it, whatever the timing, and a
//! second attacher's fault needs no walk of the arena.
//!
//! Entries are added with the install lock held for reading, of what the notifier has confirmed
//! ([`Frames::mirror`]); they are removed with it held for writing, once every attachment has
//! been zapped ([`Frames::take`]). Memory is allocated before, with no lock held
//! ([`Frames::reserve`]); [`frame_slots`](super::frame_slots) has it, and finds entries in it.
//!
//! Pages are counted from the segment's first. A huge page is one entry.

use core::{
    mem::MaybeUninit,
    ops::Range, //
};

use kernel::{
    alloc::AllocError,
    sync::atomic::ordering::*, //
};

use crate::{
    layout::SegmentPage,
    segment::{
        frame::{
            Frame,
            HUGE_ORDER,
            HUGE_PAGES, //
        },
        frame_entry::{
            Of,
            Slot,
            Word, //
        },
        frame_ref::FrameRef,
        frame_slots::{
            Room,
            Search,
            Slots,
            LOOKS, //
        },
        notifier::Confirmed, //
    },
    sys::{
        peek::peek,
        rwlock::{
            Held,
            WriteGuard, //
        },
    },
};

/// The table.
///
/// # Invariants
///
/// Each entry that is present owns one reference to its folio.
pub(crate) struct Frames {
    slots: Slots,
}

impl Frames {
    /// An empty table for `pages` pages that begin at page `first` of the arena.
    pub(crate) fn new(first: usize, pages: usize) -> Frames {
        // INVARIANT: No entry is present.
        Frames {
            slots: Slots::new(first, pages),
        }
    }

    /// The frame of `page`, if it is known.
    pub(crate) fn get(&self, page: SegmentPage) -> Option<Frame> {
        let (slot, index) = self.slots.locate(page)?;
        let entries = self.slots.get(slot);
        if let Some(huge) = Self::huge(entries) {
            return Some(Frame {
                pfn: huge.pfn + index,
                ..huge
            });
        }
        Frame::unpack(entries.single(index))
    }

    /// The huge page that a slot is, if it is known as one.
    fn huge(entries: Slot<'_>) -> Option<Frame> {
        Frame::unpack(entries.huge()?)
    }

    /// Copies what is known of the pages from `page` on, a packed frame for each of `words`, which
    /// it returns: 0 for what is not known, or may not be written if `write`. Writable are none
    /// unless `may_write`.
    pub(crate) fn copy<'a>(
        &self,
        page: SegmentPage,
        write: bool,
        may_write: bool,
        words: &'a mut [MaybeUninit<usize>],
    ) -> &'a [usize] {
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
        let mut rest = &mut *words;
        // A slot at a time: it is looked at once for all its pages.
        while let Some((slot, index)) = self.slots.locate(page).filter(|_| !rest.is_empty()) {
            let (now, later) = rest.split_at_mut(rest.len().min(HUGE_PAGES - index));
            page = page + now.len() as u64;
            rest = later;
            let entries = self.slots.get(slot);
            if let Some(huge) = Self::huge(entries) {
                for (pfn, into) in (huge.pfn + index..).zip(now) {
                    *into = word(Frame { pfn, ..huge }.pack());
                }
                continue;
            }
            let singles = entries.singles.get(index..).unwrap_or(&[]);
            let (known, unknown) = now.split_at_mut(now.len().min(singles.len()));
            for (into, single) in known.iter_mut().zip(singles) {
                *into = word(peek(single));
            }
            unknown.fill(MaybeUninit::new(0));
            if let Some((lone, _)) = entries.lone() {
                let place = lone.checked_sub(index);
                if let Some(into) = place.and_then(|place| now.get_mut(place)) {
                    *into = word(entries.single(lone));
                }
            }
        }
        rest.fill(MaybeUninit::new(0));
        // SAFETY: Each word has been written above: all known ones, and 0 for the others.
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// The huge frame that begins at `page`, if one is known.
    pub(crate) fn get_huge(&self, page: SegmentPage) -> Option<Frame> {
        let (slot, index) = self.slots.locate(page)?;
        if index != 0 {
            return None;
        }
        Self::huge(self.slots.get(slot))
    }

    /// Whether a huge page can begin at `page`.
    pub(crate) fn can_be_huge(&self, page: SegmentPage) -> bool {
        self.slots.can_be_huge(page)
    }

    /// Whether the huge page's worth of pages around `page` is all the segment's.
    pub(crate) fn holds_huge(&self, page: SegmentPage) -> bool {
        self.slots.holds_huge(page)
    }

    /// Makes room for the entry of `page`. Allocates if there is none: no install lock may be
    /// held. `ENOMEM`.
    pub(crate) fn reserve(&self, page: SegmentPage, room: Room) -> Result<(), AllocError> {
        self.slots.reserve(page, room)
    }

    /// Whether [`Frames::reserve`] has nothing to do.
    pub(crate) fn has_room(&self, page: SegmentPage, room: Room) -> bool {
        self.slots.has_room(page, room)
    }

    /// Enters what the arena maps, as far as there is room: pages from `page` on, which `confirmed`
    /// is about. Takes a reference to each.
    pub(crate) fn mirror<T>(&self, page: SegmentPage, confirmed: &Confirmed<'_, T>) {
        let count = confirmed.seen().len();
        let mut done = 0;
        let place = |done: usize| self.slots.locate(page + done as u64);
        // A slot at a time.
        while let Some((slot, index)) = place(done).filter(|_| done < count) {
            let now = done..done + (count - done).min(HUGE_PAGES - index);
            done = now.end;
            let entries = self.slots.get(slot);
            let places = index..index + now.len();
            let singles = entries.singles.get(places.clone()).unwrap_or(&[]);
            let none = |words: &[Word]| words.iter().all(|word| peek(word) == 0);
            let lone = entries
                .lone()
                .is_some_and(|(lone, _)| places.contains(&lone));
            if !singles.is_empty() && none(singles) && !lone {
                // All are new: one call takes all references.
                if let Some(references) = FrameRef::get_all(confirmed, now.clone()) {
                    for (word, reference) in singles.iter().zip(references) {
                        let Some(reference) = reference else { continue };
                        let frame = reference.frame();
                        // Nothing was there just now. Relaxed, as in `enter`.
                        match word.cmpxchg(0, Of::PLACE.pack(frame), Relaxed) {
                            // INVARIANT: The entry owns the reference from here on.
                            Ok(_) => reference.into_entry(),
                            Err(_) => Self::enter(word, (Of::PLACE, frame), || Some(reference)),
                        }
                    }
                    continue;
                }
            }
            for index in now {
                let Some(entry) = confirmed.seen().at(index) else {
                    continue;
                };
                if let Some((word, entry)) =
                    self.place(page + index as u64, entry.frame, entry.order)
                {
                    Self::enter(word, entry, || FrameRef::get(confirmed, index));
                }
            }
        }
    }

    /// Where a frame of `1 << order` pages around `page` is entered, and as what; `frame` is that
    /// of `page` itself. As a huge page only if it lies as one in the arena and the segment holds
    /// all of it.
    fn place(&self, page: SegmentPage, frame: Frame, order: u32) -> Option<(&Word, (Of, Frame))> {
        let (slot, index) = self.slots.locate(page)?;
        let entries = self.slots.get(slot);
        if order >= HUGE_ORDER && self.slots.holds_huge(page) && frame.pfn % HUGE_PAGES == index {
            let pfn = frame.pfn - index;
            return Some((entries.word?, (Of::PLACE, Frame { pfn, ..frame })));
        }
        let (word, of) = entries.place(index)?;
        Some((word, (of, frame)))
    }

    /// Enters a frame where it says more than what is there, with the reference that `get` takes,
    /// which is to the same folio.
    fn enter(word: &Word, entry: (Of, Frame), get: impl FnOnce() -> Option<FrameRef>) {
        let (of, frame) = entry;
        // Otherwise it is known already. (Another page cannot be there: an invalidation
        // removes the entry before the arena can map another.)
        // Or another single page of the slot has the place.
        let says_more = |old| match Frame::unpack(Of::frame(old)) {
            None => true,
            Some(_) if Of::entry(old) != of => false,
            Some(known) => known.pfn == frame.pfn && frame.writable && !known.writable,
        };
        let mut old = peek(word);
        if !says_more(old) {
            return;
        }
        let Some(reference) = get() else { return };
        while says_more(old) {
            // Relaxed: a reader uses the frame's number alone, and the code that removes it, and
            // may put the reference, holds the install lock for writing.
            match word.cmpxchg(old, of.pack(frame), Relaxed) {
                // INVARIANT: The entry owns the reference from here on.
                Ok(0) => return reference.into_entry(),
                // The same page with more rights: the entry's reference stays.
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// The smallest range around `pages` that cuts no huge entry in two: one can only be taken
    /// whole, so a revocation of a part must reach all of it. `_install` is the install lock.
    pub(crate) fn widen(
        &self,
        pages: Range<SegmentPage>,
        _install: &impl Held,
    ) -> Range<SegmentPage> {
        let huge_at = |page: SegmentPage| {
            let place = self.slots.locate(page);
            place.filter(|&(slot, _)| self.slots.get(slot).huge().is_some())
        };
        let mut wide = pages.clone();
        if pages.is_empty() {
            return wide;
        }
        if let Some((_, index)) = huge_at(pages.start) {
            // A huge entry lies within the segment, so there are as many pages before.
            wide.start = pages.start - index as u64;
        }
        if let Some((slot, _)) = huge_at(pages.end - 1) {
            wide.end = self.slots.first_of(slot + 1);
        }
        wide
    }

    /// Whether any frame of `pages` may be known: to find out for sure may take too long.
    /// `_install` is the install lock.
    pub(crate) fn any(&self, pages: &Range<SegmentPage>, _install: &impl Held) -> bool {
        !matches!(self.slots.find(pages, &mut LOOKS.clone()), Search::Nothing)
    }

    /// The first of `pages` of which frames are known, and what follows up to the last of the same
    /// 2 MiB. `_install` is the install lock.
    pub(crate) fn next_known(&self, pages: &Range<SegmentPage>, _install: &impl Held) -> Known {
        match self.slots.find(pages, &mut LOOKS.clone()) {
            Search::Found(_, page) => Known::Pages(page..self.slots.end_of_last(page, pages.end)),
            Search::Nothing => Known::Nothing,
            Search::Unfinished(page) => Known::Unfinished(page),
        }
    }

    /// Removes up to `taken.len()` frames of `pages` from the table; returns where to go on, or
    /// [`None`] when the range is empty. `pages` must come from [`Frames::widen`].
    ///
    /// No attachment may show the frames any more: they have been zapped, under an invalidation
    /// that still keeps faults out. `_install` is the install lock.
    pub(crate) fn take<T>(
        &self,
        pages: &Range<SegmentPage>,
        taken: &mut [Option<FrameRef>],
        _install: &mut WriteGuard<'_, T>,
    ) -> Option<SegmentPage> {
        self.take_unlocked(pages, taken)
    }

    fn take_unlocked(
        &self,
        pages: &Range<SegmentPage>,
        taken: &mut [Option<FrameRef>],
    ) -> Option<SegmentPage> {
        let mut rest = pages.clone();
        let mut looks = LOOKS;
        for place in taken {
            match self.slots.find(&rest, &mut looks) {
                Search::Found(word, page) => {
                    let entry = Of::frame(word.xchg(0, Relaxed));
                    // SAFETY: The entry has it no longer, and had the reference by the type's
                    // invariant.
                    *place = unsafe { FrameRef::from_entry(entry, page) };
                    rest.start = page;
                }
                Search::Nothing => return None,
                Search::Unfinished(page) => return Some(page),
            }
        }
        Some(rest.start)
    }
}

/// What a search for known frames comes to.
pub(crate) enum Known {
    /// There may be some among these pages, and none before.
    Pages(Range<SegmentPage>),
    Nothing,
    /// There is none before this page, from where it is to go on: it would have taken too long.
    Unfinished(SegmentPage),
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Nothing has the table any more, so no lock is needed.
        let mut rest = self.slots.pages();
        loop {
            let mut taken = [const { None }; 16];
            match self.take_unlocked(&rest, &mut taken) {
                Some(next) => rest.start = next,
                None => break,
            }
        }
    }
}
