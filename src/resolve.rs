// SPDX-License-Identifier: GPL-2.0

//! Resolving: offset and access -> page frame.
//!
//! A frame is used only inside [`Space::with_frame`], under the install lock: what
//! is done with it there is done before any revocation that comes later, and
//! undone by that. Frames come from the segment's table; [`Space::learn`] fills it
//! from the arena, by the mirror rule: a frame enters only while the arena's own
//! entry shows it, with at least that protection.
//!
//! Locks: `install`; and the arena's mmap lock, which is only tried.

use kernel::{prelude::*, sync::Arc};

use crate::{
    frames::{Frame, HUGE_ORDER, HUGE_PAGES},
    layout::{Prot, Range},
    segment::Segment,
    space::{Shown, Space},
    streak::MOST,
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

fn allowed(range: &Range<Arc<Segment>>, access: Prot) -> bool {
    range.prot.contains(access)
}

impl Space {
    /// Calls `use_frame` with the frame of page `page` of the space, with the
    /// install lock held: it must not allocate, nor wait for anything but page
    /// table locks.
    pub(crate) fn with_frame<R>(
        &self,
        page: u64,
        access: Prot,
        use_frame: impl FnOnce(Resolved) -> R,
    ) -> Result<R, Miss> {
        self.with_frames(page, 1, access, use_frame, |_, _| ())
            .map(|(ret, _)| ret)
    }

    /// As [`Space::with_frame`], and then `use_next` with the frames of the pages that
    /// follow, up to the first that is not known or may not be accessed so; `count`
    /// pages at most in all. Also tells how many there were.
    pub(crate) fn with_frames<R>(
        &self,
        page: u64,
        count: usize,
        access: Prot,
        use_frame: impl FnOnce(Resolved) -> R,
        mut use_next: impl FnMut(usize, Resolved),
    ) -> Result<(R, usize), Miss> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page).ok_or(Miss::Hole)?;
        if !allowed(range, access) {
            return Err(Miss::Denied);
        }
        let segment = &range.segment;
        let at = range.offset_of(page).ok_or(Miss::Hole)? as usize;
        if shown.is_stale(segment, page, at, 1) {
            return Err(Miss::Stale);
        }
        let frame = |at: usize| {
            segment
                .frames
                .get(at)
                .filter(|frame| frame.writable || !access.contains(Prot::WRITE))
                .map(|frame| Resolved::new(range, frame))
        };
        let first = frame(at).ok_or_else(|| Miss::Unknown(segment.clone(), at))?;
        let ret = use_frame(first);

        let count = count.min((range.end - page) as usize);
        if count == 1 || shown.is_stale(segment, page, at, count) {
            return Ok((ret, 1));
        }
        let mut done = 1;
        while done < count {
            let Some(next) = frame(at + done) else { break };
            use_next(done, next);
            done += 1;
        }
        Ok((ret, done))
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
                Ok(use_frame(Resolved::new(range, frame)))
            }
            _ => Err(Miss::Unknown(segment.clone(), at)),
        }
    }

    /// Enters what the arena has for page `page` of a segment into its table, and what
    /// of the pages that follow is resident, up to `count` in all.
    ///
    /// Does not fault anything in; allocates, so no install lock may be held. May
    /// be called with another mm's lock held. `ENOMEM`.
    pub(crate) fn learn(
        &self,
        segment: &Segment,
        page: usize,
        count: usize,
        write: bool,
    ) -> Result<Learned> {
        let count = count.clamp(1, MOST).min(segment.pages() - page);
        for page in [page, page + count - 1] {
            if !segment.frames.has_room(page) {
                let _charge = self.arena.charge();
                segment.frames.reserve(page)?;
            }
        }
        let seq = segment.notifier.begin();
        let Some(held) = self.arena.try_read() else {
            return Ok(Learned::Busy);
        };
        let mut entries = [const { None }; MOST];
        let entries = &mut entries[..count];
        match segment
            .notifier
            .look(&held, seq, segment.addr_of(page), entries)
        {
            Ok(()) => (),
            // The mm changed under us.
            Err(error) if error == EBUSY => return Ok(Learned::Again),
            Err(_) => entries.fill(None),
        }
        drop(held);
        match &entries[0] {
            Some(entry) if entry.writable || !write => (),
            _ => return Ok(Learned::Missing),
        }

        let shown = self.install.read();
        if !segment.is_live() || segment.notifier.retry(seq) {
            return Ok(Learned::Again);
        }
        for (page, entry) in (page..).zip(entries) {
            let Some(entry) = entry else { continue };
            // A huge entry stands for more than this page.
            let (from, to) = if entry.order >= HUGE_ORDER {
                (page.saturating_sub(HUGE_PAGES), page + HUGE_PAGES)
            } else {
                (page, page + 1)
            };
            if shown.stale.overlaps(segment.id(), from, to) {
                return Ok(Learned::Stale);
            }
            let frame = Frame {
                pfn: entry.pfn,
                writable: entry.writable,
            };
            // SAFETY: The lock is held, and under it the notifier has confirmed that
            // the arena still maps what was seen.
            unsafe { segment.frames.set(page, frame, entry.order) };
        }
        Ok(Learned::Again)
    }
}

impl Shown {
    /// Whether something of `count` pages is being revoked, by whomever: from page
    /// `page` of the space, which shows page `at` of the segment, on.
    fn is_stale(&self, segment: &Segment, page: u64, at: usize, count: usize) -> bool {
        self.stale.overlaps(segment.id(), at, at + count)
            || (page < self.zapping.end && self.zapping.start < page + count as u64)
    }
}

impl Resolved {
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
