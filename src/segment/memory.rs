// SPDX-License-Identifier: GPL-2.0

//! What is asked of the memory of a segment: to bring pages, to look at what is present, and to
//! drop it; and of its file.
//!
//! What is mapped in the arena is asked for there, what was lent of the lender, and holes, reading
//! ahead and writing of the file. Locks: those of the VMA in the arena or of the lender's mm, and
//! what the file takes. Which of them may be waited for the caller says.

use core::{
    mem::MaybeUninit,
    ops::Range, //
};

use kernel::{
    mm::MmWithUser,
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::ordering::*, //
};

use crate::{
    layout::{
        Pages,
        SegmentPage, //
    },
    segment::{
        notifier::{
            From,
            Notifier,
            Seen, //
        },
        Segment, //
    },
    sys::{
        file,
        mm::{
            Locks,
            NoPage, //
        },
    },
};

impl Segment {
    /// Has the arena map a page that is in memory already, and those in `around` it, without
    /// waiting for anything slow; says whether the page is mapped. See [`Arena::map_resident`].
    ///
    /// A lender is not asked for a page so: its memory cgroup may be full, and then it takes long.
    /// And what is mapped so is the file's, where a copy is to be made for a `write`.
    pub(crate) fn map_around(
        &self,
        page: SegmentPage,
        around: &Range<SegmentPage>,
        write: bool,
    ) -> bool {
        if self.is_lent() || write && self.is_private() {
            return false;
        }
        let before = page - around.start.min(page);
        let after = around.end.clamp(page + 1, self.pages().end) - page;
        self.arena.map_resident(
            self.file(),
            self.file_page(page),
            self.addr_of(page),
            before as usize,
            after as usize,
        )
    }

    /// The arena lacks a page of it; says whether it has lacked another before. One page that is
    /// touched says nothing about others, but a second one does.
    pub(crate) fn lacks_pages_again(&self) -> bool {
        self.lacked.load(Relaxed) || self.lacked.xchg(true, Relaxed)
    }

    /// Has a page made present where it is mapped, writable if `write`, which may take as long as
    /// the file does, or the lender. It must be pinned. See [`Arena::fault_in`] and
    /// [`Lend::fault_in`].
    pub(crate) fn fault_in(
        &self,
        page: SegmentPage,
        write: bool,
        locks: Locks,
    ) -> Result<(), NoPage> {
        let addr = self.addr_of(page);
        match self.lend() {
            None => self.arena.fault_in(addr, write, locks),
            Some(_) if !self.notifier.is_live() => Err(NoPage::Gone),
            Some(lend) => {
                lend.settle(self);
                lend.fault_in(addr, write, locks)
            }
        }
    }

    /// Waits until nothing is under way in the arena that concerns it, so that it can be looked at
    /// until something else is. Says whether it could not before. No signal ends the wait: no lock
    /// should be held, but by an access that cannot be tried again. (What is lent settles in
    /// [`Segment::look`] and [`Segment::fault_in`].)
    pub(crate) fn settle(&self) -> bool {
        let waits = !self.is_lent() && Notifier::begin(self).is_none();
        if waits {
            Notifier::settle(self, self.arena.mm());
        }
        waits && self.notifier.is_live()
    }

    /// What is present of page `page` and of those from page `first` on that are around it, a page
    /// for each of `words`; see [`Look::read`] for the errors, and `EAGAIN` also where the notifier
    /// would have to be waited for. `Ok(None)`: the notifier does not watch any more.
    ///
    /// Locks may be waited for only where no lock is held; of the arena's only that end is.
    pub(crate) fn look<'a>(
        &'a self,
        page: SegmentPage,
        first: SegmentPage,
        words: &'a mut [MaybeUninit<usize>],
        locks: Locks,
    ) -> Result<Option<Seen<'a, Segment>>> {
        let addr = self.addr_of(first);
        let Some(lend) = self.lend() else {
            if locks == Locks::Wait {
                self.settle();
            }
            let look = match Notifier::begin(self) {
                Some(look) => look,
                None if self.notifier.is_live() => return Err(EAGAIN),
                None => return Ok(None),
            };
            let vma = self.arena.try_lock_vma(addr).ok_or(EAGAIN)?;
            let from = From::Vma(&vma);
            return look.read(self.arena.mm(), from, addr, words).map(Some);
        };
        if locks == Locks::Wait {
            lend.settle(self);
        }
        let from = From::Lent(self.addr_of(page), locks);
        let look = |mm: &MmWithUser| {
            let look = match Notifier::begin(self) {
                Some(look) => look,
                None if self.notifier.is_live() => return Err(EAGAIN),
                // Taken back.
                None => return Err(EFAULT),
            };
            look.read(mm, from, addr, words).map(Some)
        };
        lend.with_mm(look).unwrap_or(Err(EFAULT))
    }

    /// Has nothing of some of its pages present where it is mapped: copies go, and what is of the
    /// file is mapped again when it is touched. What is lent stays as it is. Says whether it could
    /// be done; see [`Arena::zap`].
    pub(crate) fn zap(&self, pages: &Range<SegmentPage>) -> bool {
        let length = (pages.count() << PAGE_SHIFT) as usize;
        self.is_lent() || length == 0 || self.arena.zap(self.addr_of(pages.start), length)
    }

    /// Has the file make a hole of some of the pages; see [`file::punch_hole`].
    pub(crate) fn punch_hole(&self, pages: &Range<SegmentPage>) -> Result {
        let start = self.file_page(pages.start).get() << PAGE_SHIFT;
        file::punch_hole(self.file(), start, pages.count() << PAGE_SHIFT)
    }

    /// Has the file begin to read some of the pages; see [`file::read_ahead`].
    pub(crate) fn read_ahead(&self, pages: &Range<SegmentPage>) -> Result {
        let start = self.file_page(pages.start).get() << PAGE_SHIFT;
        file::read_ahead(self.file(), start, pages.count() << PAGE_SHIFT)
    }

    /// Has the file write some of the pages; see [`file::fsync_range`]. Nothing is kept elsewhere
    /// of what is lent.
    pub(crate) fn sync(&self, pages: Range<SegmentPage>, datasync: bool) -> Result {
        if self.is_lent() {
            return Ok(());
        }
        let start = self.file_page(pages.start).get() << PAGE_SHIFT;
        let end = self.file_page(pages.end).get() << PAGE_SHIFT;
        file::fsync_range(self.file(), start, end - 1, datasync)
    }
}
