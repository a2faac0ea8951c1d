// SPDX-License-Identifier: GPL-2.0

//! Revocation: making a range unreachable through every attachment and every VM.
//!
//! A change by the owner is revoked by [`Space::zap`], from the ioctl, and has reached everyone
//! when that returns. A change behind the owner's back (truncate, punch, reclaim, migration,
//! writeback) comes through the notifier, inside other people's locks, usually the changed file's
//! own i_mmap lock:
//!
//! - The invalidation begins, under the install lock held for writing; from then on nothing of
//!   the range can be installed.
//! - The attachments are zapped at once if the asfd's i_mmap lock is available in a few tries.
//!   Waiting for it would hang the machine: `mm_take_all_locks()`, so every KVM_CREATE_VM, holds
//!   the i_mmap locks of all files that its process maps, the asfd's may be among them, and it may
//!   be waiting for the very lock that the caller holds.
//! - What the owner has removed from the layout and has yet to zap is zapped with that, if it is
//!   not much, or the page is lent: its lender waits for no owner.
//! - Else it is deferred to the worker. Until that has zapped, the frames stay referenced, so
//!   that what the attachments still show is not freed under them.
//!
//! Zapping an attachment fires the attached mm's notifiers (that is how KVM drops its own
//! entries), inside the arena's. Real depth is two: an attachment cannot be a segment, and where
//! the mm lends, a notifier that is called back for a zap does not zap (`sys/zapping_tasks.rs`).
//! But lockdep's notifier map does not know: see [`without_lockdep`].

use core::ops::Range;

use kernel::{
    list::ListArc,
    sync::{
        atomic::ordering::*,
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::WorkItem, //
};

use crate::{
    layout::{
        FewRanges,
        Pages,
        SegmentPage,
        SpacePage, //
    },
    segment::{
        frame_ref::FrameRef,
        frames::Known,
        list::Ops,
        notifier::Event,
        Revoke,
        Segment, //
    },
    space::{
        zapping::Zapping,
        Space,
        REVOKE, //
    },
    sys::{
        lockdep::without_lockdep,
        mapping::MappingGuard,
        mm::Locks,
        trace,
        zapping_tasks::current_is_zapping,
        zaps::Shared, //
    },
};

/// Frames that are put at a time: what fits the stack.
const BATCH: usize = 32;

/// Pages with known frames that lie no farther apart than this are zapped together.
const NEAR: u64 = 64;

/// How often a notifier tries for the lock of the attachments, and how long it sleeps in between:
/// no longer in all than a disk takes, as it is called in other people's locks.
const TRIES: usize = 5;
/// The same for a lender, which waits for itself: what it changes or ends is to be the end of what
/// it has lent.
const TRIES_OF_LENDER: usize = 500;
const PAUSE: Delta = Delta::from_micros(100);

/// How long what a lender takes back waits for what was deferred.
const DRAINED_MS: u32 = 1000;

/// More pages than these are not zapped by a notifier only because the owner is at them.
const MUCH: u64 = 1 << 18;

/// Pages of the space, as pages of the mapping.
fn mapping_pages(pages: &Range<SpacePage>) -> Range<u64> {
    pages.start.get()..pages.end.get()
}

impl Revoke for Space {
    fn invalidate(
        self: Arc<Self>,
        segment: ArcBorrow<'_, Segment>,
        event: &Event<'_, Segment>,
    ) -> bool {
        // Called back for a zap of this task's: it begins when an attachment has come to where it
        // is, so what was lent there before is known no more, or left to the worker. To zap for
        // that would be to be called back again.
        let nested = segment.is_lent() && current_is_zapping();
        let mut shown = self.install.write();
        let pages = segment.clip(event.start, event.end);
        let pages = segment.frames.widen(pages, &shown);
        let idle = !segment.frames.any(&pages, &shown);
        if !idle && !event.blockable && !segment.is_lent() {
            // Zapping sleeps.
            return false;
        }
        event.advance(&mut shown);
        if idle || nested {
            // All that is installed comes from the table.
            return true;
        }
        segment.invalidation.begin(&pages, &mut shown);
        // Or a piece that the walk below has yet to reach could join one that it has passed.
        shown.layout.hold_joins();
        drop(shown);
        self.counts.invalidations.fetch_add(1, Relaxed);

        // The OOM reaper, which cannot wait, is at a lender that is killed: it goes on, and the
        // worker zaps.
        let attached = match (event.blockable, segment.is_lent()) {
            (false, _) => None,
            (_, false) => self.try_lock_attached(TRIES),
            // Only locks of the lender's are held, or perhaps by the caller of who puts an mm.
            (_, true) => self.try_lock_attached(TRIES_OF_LENDER),
        };
        trace::invalidate(
            &self.mapping,
            segment.id(),
            &(pages.start.get()..pages.end.get()),
            attached.is_none(),
        );
        let zapped = attached.map(|(attached, shared)| {
            let mut zap = |piece: &Range<SpacePage>| {
                let piece = mapping_pages(piece);
                without_lockdep(|| attached.zap(&piece, &shared))
            };
            self.each_known_piece(&segment, &pages, &mut zap);
            // What the owner has removed from the layout and has yet to zap, which may take as long
            // as the owner likes it to: the lender of a page is not to wait for that, nor to be
            // told that nobody has the page. Others' locks are not held for so much.
            let revoking = self.install.read().revoking.clone();
            let count: u64 = revoking.iter().map(Pages::count).sum();
            if segment.is_lent() || count <= MUCH {
                for piece in revoking.iter() {
                    zap(piece);
                }
                revoking
            } else {
                FewRanges::none()
            }
        });
        self.end_invalidation(segment, pages, zapped);
        true
    }

    fn reap(self: Arc<Self>) {
        self.reap_later();
    }

    fn attend(self: Arc<Self>, segment: &Arc<Segment>) {
        if segment.late.load(Relaxed) {
            self.finish_draining(segment);
        }
        // Once: what is unmapped may be mapped anew at the same addresses. A worker that is at what
        // is late may meet the end here before whoever had it attended for that.
        if segment.ending.xchg(false, Full) {
            self.end_segment(segment, |addr, length| {
                segment.arena().unmap_here(addr, length)
            });
        }
    }

    fn cut_off(self: Arc<Self>, segment: &Arc<Segment>) {
        // With this held nothing is removed from the layout that is still to be zapped.
        let ops = self.ops.lock();
        let pages = segment.pages();
        let any = {
            let mut shown = self.install.write();
            // Nothing more enters its table.
            segment.invalidation.begin(&pages, &mut shown);
            shown.layout.hold_joins();
            segment.frames.any(&pages, &shown)
        };
        if any {
            self.each_known_piece(segment, &pages, |piece| self.zap_fast(&ops, piece));
        }
        self.install.write().layout.release_joins();
        drop(ops);
        if any {
            // What a notifier has deferred may have been written after it was cleaned.
            let late = segment
                .invalidation
                .is_deferred(&pages, &self.install.read());
            self.take_frames(segment, &pages, late);
        }
        // What the worker has taken is written to the lender's memory, which it is no longer when
        // the notifier is gone. (Not for ever: a file system may be frozen.)
        for _ in 0..DRAINED_MS {
            if !segment
                .invalidation
                .is_deferred(&pages, &self.install.read())
            {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        // Only now: until all is zapped the lender's fork() and writeback of its files have to be
        // heard of.
        segment.end(|| self.install.write());
        segment.invalidation.end(&mut self.install.write());
    }
}

impl Space {
    /// Tries for the lock of the attachments and the right to zap them, a few times: what is
    /// deferred may be seen, and written while a file is written back, for as long as a task of low
    /// priority has them.
    fn try_lock_attached(&self, tries: usize) -> Option<(MappingGuard<'_>, Shared<'_>)> {
        let _wanted = self.zaps.want();
        let attempt = || Some((self.mapping.try_lock()?, self.zaps.try_shared()?));
        for _ in 1..tries {
            if let Some(attached) = attempt() {
                return Some(attached);
            }
            fsleep(PAUSE);
        }
        attempt()
    }

    /// Zaps pages of the space for its owner. What was removed there must be gone from the layout;
    /// no lock but `ops` may be held.
    /// Returns how many attachments were asked.
    pub(crate) fn zap(&self, ops: &Ops, pages: &Range<SpacePage>) -> usize {
        if pages.is_empty() {
            return 0;
        }
        self.counts.revocations.fetch_add(1, Relaxed);
        self.zap_fast(ops, pages)
    }

    /// Zaps pages of the mapping while the owner may zap others. No lock may be held.
    pub(super) fn zap_beside_owner(&self, pages: &Range<u64>) {
        let _wanted = self.zaps.want();
        let shared = loop {
            match self.zaps.try_shared() {
                Some(shared) => break shared,
                None => fsleep(PAUSE),
            }
        };
        self.mapping.lock().zap(pages, &shared);
    }

    /// Zaps pages of the mapping. No lock but `ops` may be held, which makes it the only one that
    /// does so in this way.
    fn zap_fast(&self, _ops: &Ops, pages: &Range<SpacePage>) -> usize {
        let pages = mapping_pages(pages);
        self.mapping.lock().zap_fast(&pages, &self.zaps)
    }

    /// Drops all frames of a segment that nothing shows any more, if that waits for no file: else
    /// they are dropped when it is ended. `ops` is held, so that no removed range is still to be
    /// zapped.
    pub(crate) fn drop_frames(&self, _ops: &Ops, segment: &Segment) {
        if !segment.invalidation.any(&self.install.read()) {
            self.take_frames(segment, &segment.pages(), false);
        }
    }

    /// The same for a segment that is off the lists, from which it is taken only when all is
    /// zapped. May wait for the file: what was deferred to the worker, which may not have come to
    /// it, may have been written after it was cleaned.
    pub(crate) fn drop_all_frames(&self, segment: &Segment) {
        self.take_frames(segment, &segment.pages(), true);
    }

    /// Zaps all pieces of the space that show any of `pages` of a segment, of which an invalidation
    /// has begun; joins must be on hold. No lock but `ops` may be held.
    pub(super) fn zap_everywhere(&self, ops: &Ops, segment: &Segment, pages: &Range<SegmentPage>) {
        self.each_known_piece(segment, pages, |piece| self.zap_fast(ops, piece));
    }

    /// Calls `zap` with the pieces of the space that may show any of `pages` of a segment to
    /// anybody, perhaps with what is around them: those whose frames are known, since all that is
    /// installed comes from the table. So it is not what shows a file that is paid for, but what of
    /// it is in use. It returns how many attachments it has asked. An invalidation of the pages has
    /// begun, joins must be on hold, and no lock that the caller of a fault wants is held.
    fn each_known_piece(
        &self,
        segment: &Segment,
        pages: &Range<SegmentPage>,
        mut zap: impl FnMut(&Range<SpacePage>) -> usize,
    ) {
        let mut zapping = Zapping::new();
        let mut rest = pages.clone();
        let mut run = rest.start..rest.start;
        loop {
            let known = segment.frames.next_known(&rest, &self.install.read());
            match known {
                Known::Unfinished(page) => rest.start = page,
                Known::Pages(known) => {
                    rest.start = known.end;
                    if !run.is_empty() && known.start - run.end > NEAR {
                        self.each_piece(segment, &run, |piece| zapping.add(&piece, &mut zap));
                        run = known;
                    } else if run.is_empty() {
                        run = known;
                    } else {
                        run.end = known.end;
                    }
                }
                Known::Nothing => break,
            }
        }
        if !run.is_empty() {
            self.each_piece(segment, &run, |piece| zapping.add(&piece, &mut zap));
        }
        zapping.finish(zap);
    }

    /// Calls `each` with the pieces of the space that show any of `pages` of a segment. What holds
    /// for [`Space::each_known_piece`] holds for this.
    fn each_piece(
        &self,
        segment: &Segment,
        pages: &Range<SegmentPage>,
        mut each: impl FnMut(Range<SpacePage>),
    ) {
        let mut cursor = None;
        loop {
            let piece =
                self.install
                    .read()
                    .layout
                    .next_showing(segment.id(), pages.clone(), cursor);
            let Some(piece) = piece else { break };
            cursor = Some(piece.cursor);
            each(piece.start..piece.end);
        }
    }

    /// Ends an invalidation of pages that have been zapped wherever the layout shows them, and in
    /// the ranges `zapped`, or defers it.
    fn end_invalidation(
        self: &Arc<Self>,
        segment: ArcBorrow<'_, Segment>,
        pages: Range<SegmentPage>,
        zapped: Option<FewRanges>,
    ) {
        let mut shown = self.install.write();
        shown.layout.release_joins();
        // A range that the owner has just removed from the layout may still be mapped. Its zap
        // is under the ops lock; the worker waits for that.
        let reached = zapped.is_some_and(|zapped| zapped.covers(&shown.revoking));
        // And what was deferred before may have been written since: the worker puts that, too.
        let deferred = segment.invalidation.is_deferred(&pages, &shown);
        if !reached || deferred {
            segment.invalidation.defer(&pages, &mut shown);
            if let Some(segment) = ListArc::try_from_arc_borrow(segment) {
                shown.deferred.push_back(segment);
            }
            let closed = shown.closed;
            drop(shown);
            self.counts.deferred.fetch_add(1, Relaxed);
            // Once no file is open any more no attachment exists, and the space's end is about
            // to drop all frames.
            if !closed {
                self.queue_revoking();
            }
            return;
        }
        drop(shown);
        // Nothing that was in the layout when the invalidation began is left: it has been zapped
        // here, also what the change that removed it has yet to zap, or by that.
        self.take_frames(&segment, &pages, false);
        segment.invalidation.end(&mut self.install.write());
    }

    /// Takes frames out of the table and puts them, in batches. If it is `late`, writeback may
    /// have cleaned them before the attachments were zapped; then this may wait for the file.
    pub(super) fn take_frames(&self, segment: &Segment, pages: &Range<SegmentPage>, late: bool) {
        let mut rest = pages.clone();
        loop {
            let mut taken: [Option<FrameRef>; BATCH] = [const { None }; BATCH];
            let next = {
                let mut shown = self.install.write();
                segment.frames.take(&rest, &mut taken, &mut shown)
            };
            if late {
                for page in taken.iter().flatten().filter_map(FrameRef::page_to_write) {
                    // Fails where the page is no longer the file's: then there is nothing to
                    // be kept. (Or where a lender is busy, which others are not to wait for.)
                    let locks = match segment.is_lent() {
                        true => Locks::Try,
                        false => Locks::Wait,
                    };
                    let _ = segment.fault_in(page, true, locks);
                }
            }
            // `taken` is dropped after the lock.
            match next {
                Some(next) => rest.start = next,
                None => break,
            }
        }
    }

    /// Takes a segment off the list of those that have deferred invalidations. One that is still
    /// late is listed again when it is not.
    fn next_deferred(&self) -> Option<(Arc<Segment>, Range<SegmentPage>)> {
        let mut shown = self.install.write();
        loop {
            let segment = shown.deferred.pop_front()?.into_arc();
            if !segment.late.load(Relaxed) {
                let pages = segment.invalidation.begin_draining(&mut shown);
                shown.layout.hold_joins();
                return Some((segment, pages));
            }
        }
    }

    /// Puts the frames of what the worker has zapped. May wait for the file.
    fn finish_draining(self: &Arc<Self>, segment: &Arc<Segment>) {
        let (mut shown, more) = loop {
            let pages = segment.invalidation.draining(&self.install.read());
            self.take_frames(segment, &pages, true);
            let mut shown = self.install.write();
            segment.invalidation.end_draining(&mut shown);
            let more = segment.invalidation.has_pending(&shown);
            if !(more && shown.closed) {
                break (shown, more);
            }
            // Nothing is attached any more, so there is nothing to zap.
            segment.invalidation.begin_draining(&mut shown);
        };
        // Ordered before the look at `overdue`, as in `take_idle` the other way round.
        segment.late.xchg(false, Full);
        if more {
            if let Ok(segment) = ListArc::try_from_arc(segment.clone()) {
                shown.deferred.push_back(segment);
            }
        }
        drop(shown);
        if more {
            self.queue_revoking();
        }
        if segment.is_overdue() {
            self.reap_later();
        }
    }
}

impl WorkItem<REVOKE> for Space {
    type Pointer = Arc<Space>;

    fn run(space: Arc<Space>) {
        loop {
            let ops = space.ops.lock();
            let Some((segment, pages)) = space.next_deferred() else {
                break;
            };
            space.each_known_piece(&segment, &pages, |piece| space.zap_fast(&ops, piece));
            let mut shown = space.install.write();
            shown.layout.release_joins();
            if !ops.has(&segment) {
                // It is being ended, which puts its frames.
                segment.invalidation.end_draining(&mut shown);
                continue;
            }
            // Putting frames may wait for the file, which must hold up no owner, and no other
            // segment. Whatever the owner removes from here on has been zapped.
            segment.late.store(true, Relaxed);
            drop(shown);
            drop(ops);
            segment.have_attended();
        }
    }
}
