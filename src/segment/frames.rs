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
//! ([`Frames::reserve`]).
//!
//! Pages are counted from the segment's first. A huge page is one entry.

use core::{
    mem::MaybeUninit,
    ops::Range, //
};

use kernel::{
    alloc::{
        AllocError,
        Allocator,
        Vec, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        SetOnce, //
    },
};

use crate::{
    layout::SegmentPage,
    segment::{
        frame::{
            Frame,
            HUGE_ORDER,
            HUGE_PAGES, //
        },
        frame_ref::FrameRef,
        notifier::Confirmed, //
    },
    sys::rwlock::{
        Held,
        WriteGuard, //
    },
};

/// An entry: a packed frame, or 0.
type Word = Atomic<usize>;
/// The entries of [`HUGE_PAGES`] single pages.
type Chunk = [Word; HUGE_PAGES];

/// A relaxed load. The kernel crate's own is a call, which costs as much as all else that is
/// done for a page.
fn peek(word: &Word) -> usize {
    // SAFETY: Valid and aligned for as long as it is borrowed; a volatile load of a word is what
    // the kernel's atomics make of a relaxed one.
    unsafe { word.as_ptr().read_volatile() }
}

/// The table.
///
/// A *slot* is a naturally aligned run of [`HUGE_PAGES`] pages of the arena. It is known as a huge
/// page or as single pages, not both at once, since the arena does not map both: between the two
/// there is an invalidation, which removes what was there. So many slots are a *group*. The memory
/// for either kind is there as soon as any slot of the group is known so: 8 bytes a slot for huge
/// pages, and for single pages 16 bytes a slot and 8 bytes a page of those slots of which any was
/// known.
///
/// # Invariants
///
/// Each entry that is present owns one reference to its folio.
pub(crate) struct Frames {
    /// Pages between the start of slot 0 and the segment's first page, so that slots lie as huge
    /// pages lie in the arena.
    lead: usize,
    pages: usize,
    first: Group,
    /// The groups after the first.
    more: SetOnce<KVVec<Group>>,
}

/// [`HUGE_PAGES`] slots, or as many as there are.
struct Group {
    /// A slot each: the huge page that it is.
    huge: SetOnce<KVec<Word>>,
    /// A slot each: the single pages that it has.
    singles: SetOnce<KVec<SetOnce<KBox<Chunk>>>>,
}

impl Group {
    const fn new() -> Group {
        Group {
            huge: SetOnce::new(),
            singles: SetOnce::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.huge.as_ref().is_none() && self.singles.as_ref().is_none()
    }
}

/// How much of the table is looked at under one hold of the install lock, in slots without single
/// pages. A slot that has some takes as long as [`SINGLES`] of those.
const LOOKS: usize = 1 << 14;
const SINGLES: usize = 64;

/// What a search has come to.
enum Search<'a> {
    /// An entry, with the page it begins at.
    Found(&'a Word, SegmentPage),
    /// There is none.
    Nothing,
    /// None up to this page; the search was long enough.
    Unfinished(SegmentPage),
}

impl Frames {
    /// An empty table for `pages` pages that begin at page `first` of the arena.
    pub(crate) fn new(first: usize, pages: usize) -> Frames {
        Frames {
            lead: first % HUGE_PAGES,
            pages,
            first: Group::new(),
            more: SetOnce::new(),
        }
    }

    /// How many slots there are.
    fn slots(&self) -> usize {
        (self.lead + self.pages).div_ceil(HUGE_PAGES)
    }

    /// The slot of a page, and which page of it that is; [`None`] past the last page.
    fn slot(&self, page: SegmentPage) -> Option<(usize, usize)> {
        let index = page.as_usize();
        (index < self.pages).then(|| {
            let index = self.lead + index;
            (index / HUGE_PAGES, index % HUGE_PAGES)
        })
    }

    /// The group that a slot lies in, if there is memory for it.
    fn group(&self, slot: usize) -> Option<&Group> {
        match slot / HUGE_PAGES {
            0 => Some(&self.first),
            index => self.more.as_ref()?.get(index - 1),
        }
    }

    /// Where the huge page is entered that a slot is.
    fn huge_word(&self, slot: usize) -> Option<&Word> {
        self.group(slot)?.huge.as_ref()?.get(slot % HUGE_PAGES)
    }

    /// The huge page that a slot is, if it is known as one.
    fn huge(&self, slot: usize) -> Option<Frame> {
        Frame::unpack(peek(self.huge_word(slot)?))
    }

    /// Where the single pages of a slot are entered; none where there is no memory for them.
    fn singles(&self, slot: usize) -> &[Word] {
        let chunk = self
            .group(slot)
            .and_then(|group| group.singles.as_ref()?.get(slot % HUGE_PAGES)?.as_ref());
        chunk.map_or(&[], |chunk| &chunk[..])
    }

    /// The frame of `page`, if it is known.
    pub(crate) fn get(&self, page: SegmentPage) -> Option<Frame> {
        let (slot, index) = self.slot(page)?;
        if let Some(huge) = self.huge(slot) {
            return Some(Frame {
                pfn: huge.pfn + index,
                ..huge
            });
        }
        Frame::unpack(peek(self.singles(slot).get(index)?))
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
        while let Some((slot, index)) = self.slot(page).filter(|_| !rest.is_empty()) {
            let (now, later) = rest.split_at_mut(rest.len().min(HUGE_PAGES - index));
            page = page + now.len() as u64;
            rest = later;
            if let Some(huge) = self.huge(slot) {
                for (pfn, into) in (huge.pfn + index..).zip(now) {
                    *into = word(Frame { pfn, ..huge }.pack());
                }
                continue;
            }
            let singles = self.singles(slot).get(index..).unwrap_or(&[]);
            let (known, unknown) = now.split_at_mut(now.len().min(singles.len()));
            for (into, single) in known.iter_mut().zip(singles) {
                *into = word(peek(single));
            }
            unknown.fill(MaybeUninit::new(0));
        }
        rest.fill(MaybeUninit::new(0));
        // SAFETY: Each word has been written above: all known ones, and 0 for the others.
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// Whether a huge page can begin at `page`.
    pub(crate) fn can_be_huge(&self, page: SegmentPage) -> bool {
        (self.lead + page.as_usize()) % HUGE_PAGES == 0 && self.holds_huge(page)
    }

    /// The huge frame that begins at `page`, if one is known.
    pub(crate) fn get_huge(&self, page: SegmentPage) -> Option<Frame> {
        let (slot, index) = self.slot(page)?;
        if index != 0 {
            return None;
        }
        self.huge(slot)
    }

    /// Makes room for the entry of `page`: of the huge page that it lies in, or of itself.
    /// Allocates if there is none: no install lock may be held. `ENOMEM`.
    pub(crate) fn reserve(&self, page: SegmentPage, huge: bool) -> Result<(), AllocError> {
        let Some((slot, _)) = self.slot(page) else {
            return Ok(());
        };
        // Where another task is faster, what it has made is as good, as soon as it is there.
        if slot >= HUGE_PAGES && self.more.as_ref().is_none() {
            let groups = self.slots().div_ceil(HUGE_PAGES) - 1;
            self.more.populate(many(groups, Group::new)?);
        }
        let Some(group) = self.group(slot) else {
            return Ok(());
        };
        let slots = (self.slots() - slot / HUGE_PAGES * HUGE_PAGES).min(HUGE_PAGES);
        if huge {
            if group.huge.as_ref().is_none() {
                group.huge.populate(many(slots, || Atomic::new(0))?);
            }
            return Ok(());
        }
        if group.singles.as_ref().is_none() {
            group.singles.populate(many(slots, SetOnce::new)?);
        }
        let place = group
            .singles
            .as_ref()
            .and_then(|slots| slots.get(slot % HUGE_PAGES));
        if let Some(place) = place.filter(|place| place.as_ref().is_none()) {
            let zeroed = KBox::<[usize; HUGE_PAGES]>::zeroed(GFP_KERNEL_ACCOUNT)?;
            // SAFETY: An atomic has the layout of what it holds.
            let chunk = unsafe { KBox::from_raw(KBox::into_raw(zeroed).cast::<Chunk>()) };
            place.populate(chunk);
        }
        Ok(())
    }

    /// Whether [`Frames::reserve`] has nothing to do.
    pub(crate) fn has_room(&self, page: SegmentPage, huge: bool) -> bool {
        match self.slot(page) {
            Some((slot, _)) if huge => self.huge_word(slot).is_some(),
            Some((slot, _)) => !self.singles(slot).is_empty(),
            None => true,
        }
    }

    /// Enters what the arena maps, as far as there is room: pages from `page` on, which `confirmed`
    /// is about. Takes a reference to each.
    pub(crate) fn mirror<T>(&self, page: SegmentPage, confirmed: &Confirmed<'_, T>) {
        let count = confirmed.seen().len();
        let mut done = 0;
        // A slot at a time.
        while let Some((slot, index)) = self.slot(page + done as u64).filter(|_| done < count) {
            let now = done..done + (count - done).min(HUGE_PAGES - index);
            done = now.end;
            let singles = self.singles(slot);
            let singles = singles.get(index..index + now.len()).unwrap_or(&[]);
            if !singles.is_empty() && singles.iter().all(|single| peek(single) == 0) {
                // All are new: one call takes all references.
                if let Some(references) = FrameRef::get_all(confirmed, now.clone()) {
                    for (word, reference) in singles.iter().zip(references) {
                        if let Some(reference) = reference {
                            Self::enter(word, reference.frame(), || Some(reference));
                        }
                    }
                    continue;
                }
            }
            for index in now {
                let Some(entry) = confirmed.seen().at(index) else {
                    continue;
                };
                if let Some((word, frame)) =
                    self.place(page + index as u64, entry.frame, entry.order)
                {
                    Self::enter(word, frame, || FrameRef::get(confirmed, index));
                }
            }
        }
    }

    /// Where a frame of `1 << order` pages around `page` is entered, and as what; `frame` is that
    /// of `page` itself. As a huge page only if it lies as one in the arena and the segment holds
    /// all of it.
    fn place(&self, page: SegmentPage, frame: Frame, order: u32) -> Option<(&Word, Frame)> {
        let (slot, index) = self.slot(page)?;
        if order >= HUGE_ORDER && self.holds_huge(page) && frame.pfn % HUGE_PAGES == index {
            let pfn = frame.pfn - index;
            return Some((self.huge_word(slot)?, Frame { pfn, ..frame }));
        }
        Some((self.singles(slot).get(index)?, frame))
    }

    /// Enters a frame where it says more than what is there, with the reference that `get` takes,
    /// which is to the same folio.
    fn enter(word: &Word, frame: Frame, get: impl FnOnce() -> Option<FrameRef>) {
        // Otherwise it is known already. (Another page cannot be there: an invalidation
        // removes the entry before the arena can map another.)
        let says_more = |old| match Frame::unpack(old) {
            None => true,
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
            match word.cmpxchg(old, frame.pack(), Relaxed) {
                // INVARIANT: The entry owns the reference from here on.
                Ok(0) => return reference.into_entry(),
                // The same page with more rights: the entry's reference stays.
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// Whether the huge page's worth of pages around `page` is all the segment's.
    pub(crate) fn holds_huge(&self, page: SegmentPage) -> bool {
        let start = (self.lead + page.as_usize()) / HUGE_PAGES * HUGE_PAGES;
        // The arena may have merged the VMAs of two segments of one file, and have a huge page
        // across the seam.
        start >= self.lead && start + HUGE_PAGES <= self.lead + self.pages
    }

    /// The smallest range around `pages` that cuts no huge entry in two: one can only be taken
    /// whole, so a revocation of a part must reach all of it. `_install` is the install lock.
    pub(crate) fn widen(
        &self,
        pages: Range<SegmentPage>,
        _install: &impl Held,
    ) -> Range<SegmentPage> {
        let is_huge = |page: SegmentPage| {
            self.slot(page)
                .is_some_and(|(slot, _)| self.huge(slot).is_some())
        };
        let mut wide = pages.clone();
        if pages.is_empty() {
            return wide;
        }
        if is_huge(pages.start) {
            // A huge entry lies within the segment, so there are as many pages before.
            let index = (self.lead + pages.start.as_usize()) % HUGE_PAGES;
            wide.start = pages.start - index as u64;
        }
        if is_huge(pages.end - 1) {
            let (slot, _) = self.slot(pages.end - 1).unwrap_or((0, 0));
            wide.end = self.first_of(slot + 1);
        }
        wide
    }

    /// Whether any frame of `pages` may be known: to find out for sure may take too long.
    /// `_install` is the install lock.
    pub(crate) fn any(&self, pages: &Range<SegmentPage>, _install: &impl Held) -> bool {
        !matches!(self.find(pages, &mut LOOKS.clone()), Search::Nothing)
    }

    /// Looks for the first entry in `pages`, as long as there are looks left.
    fn find(&self, pages: &Range<SegmentPage>, looks: &mut usize) -> Search<'_> {
        let mut page = pages.start;
        while page < pages.end {
            let Some((slot, index)) = self.slot(page) else {
                break;
            };
            let next = match self.group(slot).filter(|group| !group.is_empty()) {
                None => self.first_of((slot / HUGE_PAGES + 1) * HUGE_PAGES),
                Some(_) => {
                    if let Some(word) = self.huge_word(slot).filter(|word| peek(word) != 0) {
                        return Search::Found(word, page);
                    }
                    let singles = self.singles(slot);
                    let last = (pages.end - page).min((HUGE_PAGES - index) as u64);
                    let among = singles.iter().skip(index).take(last as usize);
                    for (step, single) in among.enumerate() {
                        if peek(single) != 0 {
                            return Search::Found(single, page + step as u64);
                        }
                    }
                    *looks = looks.saturating_sub(singles.len() * SINGLES / HUGE_PAGES);
                    self.first_of(slot + 1)
                }
            };
            page = next;
            *looks = looks.saturating_sub(1);
            if *looks == 0 && page < pages.end {
                return Search::Unfinished(page);
            }
        }
        Search::Nothing
    }

    /// The first page of a slot that is not the first.
    fn first_of(&self, slot: usize) -> SegmentPage {
        SegmentPage::from_usize(slot * HUGE_PAGES - self.lead)
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
            match self.find(&rest, &mut looks) {
                Search::Found(word, page) => {
                    // SAFETY: The entry has it no longer, and had the reference by the type's
                    // invariant.
                    *place = unsafe { FrameRef::from_entry(word.xchg(0, Relaxed), page) };
                    rest.start = page;
                }
                Search::Nothing => return None,
                Search::Unfinished(page) => return Some(page),
            }
        }
        Some(rest.start)
    }
}

/// So many values.
fn many<A: Allocator, T>(count: usize, value: impl Fn() -> T) -> Result<Vec<T, A>, AllocError> {
    let mut all = Vec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..count {
        all.push(value(), GFP_KERNEL_ACCOUNT)?;
    }
    Ok(all)
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Nothing has the table any more, so no lock is needed.
        let mut rest = SegmentPage::new(0)..SegmentPage::from_usize(self.pages);
        loop {
            let mut taken = [const { None }; 16];
            match self.take_unlocked(&rest, &mut taken) {
                Some(next) => rest.start = next,
                None => break,
            }
        }
    }
}
