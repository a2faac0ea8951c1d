// SPDX-License-Identifier: GPL-2.0

//! Resolving: offset and access -> page frame.
//!
//! A frame is used only inside [`Space::with_frame`] and the like, under the install
//! lock: what is done with it there is done before any revocation that comes later,
//! and undone by that. Frames come from the segment's table; [`Space::learn`] fills it
//! from the arena, by the mirror rule: a frame enters only while the arena's own
//! entry shows it, with at least that protection.
//!
//! Locks: `install`; and the arena's mmap lock, which is only tried.

use core::{
    mem::MaybeUninit,
    ops, //
};

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    layout::{
        Prot,
        Range, //
    },
    segment::{
        frame::Frame,
        frames::{
            HUGE_ORDER,
            HUGE_PAGES, //
        },
        notifier::Seen,
        Segment, //
    },
    space::{
        readahead::MOST,
        Shown,
        Space, //
    },
};

/// A frame that may be used as long as the install lock is held.
pub(crate) struct Resolved {
    /// The page frame number.
    pub(crate) pfn: usize,
    /// Whether it may be written: the layout allows it and the arena's entry too.
    pub(crate) writable: bool,
    /// Whether the layout allows to execute it.
    pub(crate) executable: bool,
}

/// Why there is no frame.
pub(crate) enum Miss {
    /// Nothing is mapped there.
    Hole,
    /// The layout does not allow the access.
    Denied,
    /// The page is being revoked: try again in a while.
    Stale,
    /// The table does not know this page of this segment.
    Unknown(Arc<Segment>, usize),
}

/// What came of [`Space::learn`].
pub(crate) enum Learned {
    /// Look again: the table knows it now, or things have changed.
    Again,
    /// The page is being revoked.
    Stale,
    /// The arena's lock cannot be had now.
    Busy,
    /// The arena does not have the page, or not writable: it must be faulted in.
    Missing,
}

/// Frames of pages that follow one another, to be entered together.
pub(crate) struct Run<const N: usize> {
    /// The page of the space that the first is.
    pub(crate) start: u64,
    /// Which of them was touched.
    touched: usize,
    /// Whether the layout allows to execute them.
    pub(crate) executable: bool,
    /// A page each: a packed frame, or 0. `count` of them have been written; to clear all
    /// of them is felt in a fault that enters few.
    words: [MaybeUninit<usize>; N],
    count: usize,
}

impl<const N: usize> Run<N> {
    /// The frames, as `words` has them.
    pub(crate) fn words(&self) -> &[usize] {
        // SAFETY: `with_run`, which alone makes one, has written `count` words.
        unsafe { core::slice::from_raw_parts(self.words.as_ptr().cast(), self.count) }
    }

    /// How many pages from the touched one on are known without a gap.
    pub(crate) fn ahead(&self) -> usize {
        self.words()[self.touched..]
            .iter()
            .take_while(|word| **word != 0)
            .count()
    }
}

fn allowed(range: &Range<Arc<Segment>>, access: Prot) -> bool {
    range.prot.contains(access)
}

/// What the segment's table knows of its page `at`, if it is enough for the access.
fn known(range: &Range<Arc<Segment>>, at: usize, access: Prot) -> Option<Frame> {
    range
        .segment
        .frames
        .get(at)
        .filter(|frame| frame.writable || !access.contains(Prot::WRITE))
}

impl Space {
    /// Calls `use_frame` with the frame of page `page` of the space, with the
    /// install lock held: it must not allocate, nor wait for anything but page
    /// table locks.
    ///
    /// The page counts as entered, whether or not `use_frame` enters it: a zap too many
    /// does no harm, one too few would leave the page reachable.
    pub(crate) fn with_frame<R>(
        &self,
        page: u64,
        access: Prot,
        use_frame: impl FnOnce(Resolved) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page).ok_or(Miss::Hole)?;
        let at = shown.find(range, page, access)?;
        let frame =
            known(range, at, access).ok_or_else(|| Miss::Unknown(range.segment.clone(), at))?;
        // As in `with_run`.
        range.entered.add(page..page + 1);
        Ok(use_frame(Resolved::new(range, frame)))
    }

    /// As [`Space::with_frame`], with what is known also of the pages around, in
    /// `window`, as far as they may be accessed so; `N` pages at most.
    pub(crate) fn with_run<const N: usize, R>(
        &self,
        page: u64,
        window: &ops::Range<u64>,
        access: Prot,
        use_run: impl FnOnce(&Run<N>) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page).ok_or(Miss::Hole)?;
        let at = shown.find(range, page, access)?;
        if known(range, at, access).is_none() {
            return Err(Miss::Unknown(range.segment.clone(), at));
        }

        let mut start = window.start.max(range.start);
        let mut end = window.end.min(range.end);
        let before = (page - start) as usize;
        if end - start > 1
            && shown.is_stale(&range.segment, start, at - before, (end - start) as usize)
        {
            (start, end) = (page, page + 1);
        }
        let mut run = Run {
            start,
            touched: (page - start) as usize,
            executable: range.prot.contains(Prot::EXEC),
            words: [const { MaybeUninit::uninit() }; N],
            count: ((end - start) as usize).min(N),
        };
        let from = at - run.touched;
        let write = access.contains(Prot::WRITE);
        let may_write = range.prot.contains(Prot::WRITE);
        // The page that is touched was known just now, and may only get more rights as
        // long as the lock is held.
        range
            .segment
            .frames
            .copy(from, write, may_write, &mut run.words[..run.count]);
        // Under the lock: who takes the range away afterwards knows what to zap.
        range.entered.add(start..start + run.count as u64);
        Ok(use_run(&run))
    }

    /// Which segment, by its id, and which page of it `page` of the space shows.
    pub(crate) fn shown_at(&self, page: u64) -> Option<(u64, usize)> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page)?;
        Some((range.segment.id(), range.offset_of(page)? as usize))
    }

    /// As [`Space::with_frame`], with the huge frame that begins at `page`, all of
    /// which the layout must show in one piece.
    ///
    /// [`Miss::Denied`] stands for every reason why there can be none.
    pub(crate) fn with_huge_frame<R>(
        &self,
        page: u64,
        access: Prot,
        use_frame: impl FnOnce(Resolved) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page).ok_or(Miss::Hole)?;
        if !allowed(range, access) || range.end - page < HUGE_PAGES as u64 {
            return Err(Miss::Denied);
        }
        let segment = &range.segment;
        let at = range.offset_of(page).ok_or(Miss::Hole)? as usize;
        if !segment.frames.can_be_huge(at) {
            return Err(Miss::Denied);
        }
        if shown.is_stale(segment, page, at, HUGE_PAGES) {
            return Err(Miss::Stale);
        }
        match segment.frames.get_huge(at) {
            Some(frame) if frame.writable || !access.contains(Prot::WRITE) => {
                range.entered.add(page..page + HUGE_PAGES as u64);
                Ok(use_frame(Resolved::new(range, frame)))
            }
            _ => Err(Miss::Unknown(segment.clone(), at)),
        }
    }

    /// Enters what the arena has for page `page` of a segment into its table, and what
    /// of the pages around it, in `window`, is resident.
    ///
    /// Does not fault anything in; allocates, so no install lock may be held. May
    /// be called with another mm's lock held. `ENOMEM`.
    pub(crate) fn learn(
        &self,
        segment: &Segment,
        page: usize,
        window: &ops::Range<usize>,
        write: bool,
    ) -> Result<Learned> {
        let start = window.start.clamp(page.saturating_sub(MOST - 1), page);
        let end = window
            .end
            .clamp(page + 1, start + MOST)
            .min(segment.pages());
        let seq = segment.notifier.begin();
        let Some(held) = self.arena.try_read() else {
            return Ok(Learned::Busy);
        };
        let mut words = [const { MaybeUninit::uninit() }; MOST];
        let looked = segment.notifier.look(
            &held,
            segment.file(),
            seq,
            segment.addr_of(start),
            &mut words[..end - start],
        );
        drop(held);
        let seen = match looked {
            Ok(seen) => seen,
            // The mm changed under us.
            Err(error) if error == EBUSY => return Ok(Learned::Again),
            Err(_) => return Ok(Learned::Missing),
        };
        match seen.at(page - start) {
            Some(entry) if entry.writable || !write => (),
            _ => return Ok(Learned::Missing),
        }
        for page in [start, end - 1] {
            // A huge page has room without.
            let huge = seen
                .at(page - start)
                .is_some_and(|entry| entry.order >= HUGE_ORDER);
            let has_room = segment.frames.has_room(page);
            if !(has_room || huge && segment.frames.holds_huge(page)) {
                let _charge = self.arena.charge();
                segment.frames.reserve(page)?;
            }
        }

        let shown = self.install.read();
        if !segment.is_live() || segment.notifier.retry(seq) {
            return Ok(Learned::Again);
        }
        if shown.stale.overlaps(segment.id(), start, end) {
            return Ok(Learned::Stale);
        }
        if let Seen::Singles(words) = seen {
            // SAFETY: The lock is held, and under it the notifier has confirmed that the
            // arena still maps what was seen.
            unsafe { segment.frames.set_singles(start, words) };
            return Ok(Learned::Again);
        }
        for page in start..end {
            let Some(entry) = seen.at(page - start) else {
                continue;
            };
            // A huge entry stands for more than this page.
            if entry.order >= HUGE_ORDER
                && shown.stale.overlaps(
                    segment.id(),
                    page.saturating_sub(HUGE_PAGES),
                    page + HUGE_PAGES,
                )
            {
                return Ok(Learned::Stale);
            }
            let frame = Frame {
                pfn: entry.pfn,
                writable: entry.writable,
            };
            // SAFETY: As above.
            unsafe { segment.frames.set(page, frame, entry.order) };
        }
        Ok(Learned::Again)
    }
}

impl Shown {
    /// Which page of its segment a range shows at `page`, if it may be accessed so now.
    fn find(&self, range: &Range<Arc<Segment>>, page: u64, access: Prot) -> Result<usize, Miss> {
        if !allowed(range, access) {
            return Err(Miss::Denied);
        }
        let at = range.offset_of(page).ok_or(Miss::Hole)? as usize;
        if self.is_stale(&range.segment, page, at, 1) {
            return Err(Miss::Stale);
        }
        Ok(at)
    }

    /// Whether something of `count` pages is being revoked, by whomever: from page
    /// `page` of the space, which shows page `at` of the segment, on.
    fn is_stale(&self, segment: &Segment, page: u64, at: usize, count: usize) -> bool {
        self.stale.overlaps(segment.id(), at, at + count)
            || (page < self.zapping.end && self.zapping.start < page + count as u64)
    }
}

impl Resolved {
    /// As `Frames::copy` tells a frame.
    pub(crate) fn word(&self) -> usize {
        Frame {
            pfn: self.pfn,
            writable: self.writable,
        }
        .pack()
    }

    fn new(range: &Range<Arc<Segment>>, frame: Frame) -> Self {
        Resolved {
            pfn: frame.pfn,
            writable: frame.writable && range.prot.contains(Prot::WRITE),
            executable: range.prot.contains(Prot::EXEC),
        }
    }
}

/// How often a fault looks again before it lets the access be tried anew.
pub(crate) const TRIES: usize = 8;
