// SPDX-License-Identifier: GPL-2.0

//! Resolving: offset and access -> page frame.
//!
//! A frame is used only inside [`Space::with_frame`] and the like, under the install lock: what is
//! done with it there is done before any revocation that comes later, and undone by that. Frames
//! come from the segment's table, which `mirror.rs` fills.
//!
//! Locks: the install lock, for reading.

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops, //
};

use kernel::sync::Arc;

use crate::{
    layout::{
        Prot,
        Range,
        SegmentPage,
        SpacePage, //
    },
    segment::{
        frame::Frame,
        frame::HUGE_PAGES,
        list::Pinned,
        Segment, //
    },
    space::{
        Shown,
        Space, //
    },
    sys::rwlock::{
        Held,
        ReadGuard, //
    },
};

/// A frame that may be used as long as the install lock is held, which is for `'a`.
pub(crate) struct Resolved<'a> {
    /// The frame; writable if both the layout and the arena's entry allow it.
    pub(crate) frame: Frame,
    /// Whether the layout allows to execute it.
    pub(crate) executable: bool,
    _install: PhantomData<&'a Shown>,
}

/// What is not to be installed where a VM takes a write to an entry for reading for one to a
/// device; see `attachment/fault_for_vm.rs`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caution {
    /// It is no such place, or the access is a write.
    None,
    /// An entry for reading where another may be written: what may be has no neighbours, and no
    /// huge entry.
    Neighbours,
    /// Nor one where this may be written: it could not be when that was tried, a moment ago.
    Writable,
}

/// Why there is no frame.
pub(crate) enum Miss {
    /// Nothing is mapped there.
    Hole,
    /// The layout does not allow the access.
    Denied,
    /// The page is being revoked: it will be something else in a while.
    Invalidating,
    /// The table does not know this page of this segment, which is not ended meanwhile.
    Unknown(Pinned, SegmentPage),
}

/// Frames of pages that follow one another, to be installed together as long as the install lock
/// is held, which is for `'a`.
pub(crate) struct Run<'a> {
    /// The page of the space that the first is.
    pub(crate) start: SpacePage,
    /// Which of them was touched.
    touched: usize,
    /// Whether the layout allows to execute them.
    pub(crate) executable: bool,
    /// A page each: a packed frame, or 0.
    pub(crate) words: &'a [usize],
}

impl Run<'_> {
    /// How many pages from the touched one on are known without a gap.
    pub(crate) fn ahead(&self) -> u64 {
        let ahead = self.words.get(self.touched..).unwrap_or(&[]);
        ahead.iter().take_while(|word| **word != 0).count() as u64
    }
}

/// What the segment's table knows of its page `at`, if it is enough for the access.
pub(super) fn known(range: &Range<Arc<Segment>>, at: SegmentPage, access: Prot) -> Option<Frame> {
    range
        .segment
        .frames
        .get(at)
        .filter(|frame| frame.allows(access))
}

/// Pins what a range shows. The install lock is held: whoever ends segments has seen, with that
/// held later, that nothing shows them any more, and sees the pin too.
fn pin(range: &Range<Arc<Segment>>) -> Pinned {
    Pinned::new(range.segment.clone())
}

impl Space {
    /// Calls `use_frame` with the frame of page `page` of the space, with the install lock held:
    /// it must not allocate, nor wait for anything but page table locks.
    ///
    /// The page counts as installed, whether or not `use_frame` installs it: a zap too many does
    /// no harm, one too few would leave the page reachable.
    pub(crate) fn with_frame<R>(
        &self,
        page: SpacePage,
        access: Prot,
        use_frame: impl FnOnce(Resolved<'_>) -> R,
    ) -> Result<R, Miss> {
        self.with_frame_if(page, access, Caution::None, use_frame)
    }

    /// The same, with caution.
    pub(crate) fn with_frame_if<R>(
        &self,
        page: SpacePage,
        access: Prot,
        caution: Caution,
        use_frame: impl FnOnce(Resolved<'_>) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = lookup(&shown, page)?;
        let at = find(&shown, range, page, access)?;
        caution.check(range)?;
        let frame = known(range, at, access).ok_or_else(|| Miss::Unknown(pin(range), at))?;
        // As in `with_run`.
        range.installed.add(page..page + 1);
        Ok(use_frame(Resolved::new(range, frame)))
    }

    /// As [`Space::with_frame`], with what is known also of the pages `around`, as far as they may
    /// be accessed so; `N` pages at most.
    pub(crate) fn with_run<const N: usize, R>(
        &self,
        page: SpacePage,
        around: &ops::Range<SpacePage>,
        access: Prot,
        caution: Caution,
        use_run: impl FnOnce(&Run<'_>) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = lookup(&shown, page)?;
        let at = find(&shown, range, page, access)?;
        caution.check(range)?;
        if known(range, at, access).is_none() {
            return Err(Miss::Unknown(pin(range), at));
        }

        let mut start = around.start.max(range.start);
        let mut end = around.end.min(range.end);
        let before = page - start;
        if caution.wants_alone(range)
            || end - start > 1 && is_revoked(&shown, range, start, at - before, end - start)
        {
            (start, end) = (page, page + 1);
        }
        // To clear all of it would cost a fault that installs few as much as these.
        let mut words = [const { MaybeUninit::uninit() }; N];
        let count = ((end - start) as usize).min(N);
        let touched = page - start;
        let write = access.contains(Prot::WRITE);
        let may_write = range.prot.contains(Prot::WRITE);
        // The page that is touched was known just now, and may only get more rights as long as
        // the lock is held.
        let words = range
            .segment
            .frames
            .copy(at - touched, write, may_write, &mut words[..count]);
        // Under the lock: a change that takes the range away afterwards knows what to zap.
        range.installed.add(start..start + count as u64);
        Ok(use_run(&Run {
            start,
            touched: touched as usize,
            executable: range.prot.contains(Prot::EXEC),
            words,
        }))
    }

    /// As [`Space::with_frame`], with the huge frame that begins at `page`, all of which the
    /// layout must show in one piece.
    ///
    /// [`Miss::Denied`] stands for every reason why there can be none.
    pub(crate) fn with_huge_frame<R>(
        &self,
        page: SpacePage,
        access: Prot,
        caution: Caution,
        use_frame: impl FnOnce(Resolved<'_>) -> R,
    ) -> Result<R, Miss> {
        let shown = self.install.read();
        let range = lookup(&shown, page)?;
        if !range.prot.contains(access)
            || caution.wants_alone(range)
            || range.end - page < HUGE_PAGES as u64
        {
            return Err(Miss::Denied);
        }
        let segment = &range.segment;
        let at = range.offset_of(page).ok_or(Miss::Hole)?;
        if !segment.frames.can_be_huge(at) {
            return Err(Miss::Denied);
        }
        if is_revoked(&shown, range, page, at, HUGE_PAGES as u64) {
            return Err(Miss::Invalidating);
        }
        match segment.frames.get_huge(at) {
            Some(frame) if frame.allows(access) => {
                range.installed.add(page..page + HUGE_PAGES as u64);
                Ok(use_frame(Resolved::new(range, frame)))
            }
            _ => Err(Miss::Unknown(pin(range), at)),
        }
    }

    /// Which segment, by its id, and which page of it `page` of the space shows.
    pub(crate) fn shown_at(&self, page: SpacePage) -> Option<(u64, SegmentPage)> {
        let shown = self.install.read();
        let range = shown.layout.lookup(page)?;
        Some((range.segment.id(), range.offset_of(page)?))
    }
}

impl Caution {
    /// Whether nothing else is to be installed with a page of a range.
    fn wants_alone(self, range: &Range<Arc<Segment>>) -> bool {
        self != Caution::None && range.prot.contains(Prot::WRITE)
    }

    /// `Invalidating` where a page of it is not to be installed: that it may be written is new, and
    /// the next try asks for that.
    fn check(self, range: &Range<Arc<Segment>>) -> Result<(), Miss> {
        match self == Caution::Writable && range.prot.contains(Prot::WRITE) {
            true => Err(Miss::Invalidating),
            false => Ok(()),
        }
    }
}

/// The range that has `page`. What is being changed is neither what it was nor what it will be.
pub(super) fn lookup(shown: &Shown, page: SpacePage) -> Result<&Range<Arc<Segment>>, Miss> {
    if shown.revoking.overlaps(&(page..page + 1)) {
        return Err(Miss::Invalidating);
    }
    shown.layout.lookup(page).ok_or(Miss::Hole)
}

/// Which page of its segment a range shows at `page`, if it may be accessed so now.
pub(super) fn find(
    shown: &ReadGuard<'_, Shown>,
    range: &Range<Arc<Segment>>,
    page: SpacePage,
    access: Prot,
) -> Result<SegmentPage, Miss> {
    if !range.prot.contains(access) {
        return Err(Miss::Denied);
    }
    let at = range.offset_of(page).ok_or(Miss::Hole)?;
    if is_revoked(shown, range, page, at, 1) {
        return Err(Miss::Invalidating);
    }
    Ok(at)
}

/// Whether something of `count` pages is being revoked, by the owner or by an invalidation: from
/// page `page` of the space on, which shows page `at` of the range's segment.
fn is_revoked(
    shown: &(impl Held + ops::Deref<Target = Shown>),
    range: &Range<Arc<Segment>>,
    page: SpacePage,
    at: SegmentPage,
    count: u64,
) -> bool {
    range
        .segment
        .invalidation
        .overlaps(&(at..at + count), shown)
        || shown.revoking.overlaps(&(page..page + count))
}

impl<'a> Resolved<'a> {
    /// The frame of a sink, which the attachment holds.
    pub(super) fn of_sink(_install: &'a Shown, pfn: usize, writable: bool) -> Self {
        Resolved {
            frame: Frame { pfn, writable },
            executable: false,
            _install: PhantomData,
        }
    }

    fn new(range: &Range<Arc<Segment>>, frame: Frame) -> Self {
        Resolved {
            frame: Frame {
                writable: frame.writable && range.prot.contains(Prot::WRITE),
                ..frame
            },
            executable: range.prot.contains(Prot::EXEC),
            _install: PhantomData,
        }
    }
}
