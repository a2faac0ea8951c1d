// SPDX-License-Identifier: GPL-2.0

//! Revocation: making a range unreachable through every attachment and every VM.
//!
//! Only this file zaps. A change by the owner is revoked by [`Space::zap`], from
//! the ioctl, and has reached everyone when that returns. A change behind the
//! owner's back (truncate, punch, reclaim, migration, writeback) comes through the
//! notifier, inside other people's locks, usually the changed file's own i_mmap
//! lock:
//!
//! - The range is listed as stale, under the install lock held exclusively; from
//!   then on nothing of it can be installed.
//! - The attachments are zapped at once if the asfd's i_mmap lock can be had
//!   without waiting. Waiting for it would hang the machine:
//!   `mm_take_all_locks()`, so every KVM_CREATE_VM, holds the i_mmap locks of all
//!   files that its process maps, the asfd's may be among them, and it may be
//!   waiting for the very lock that our caller holds.
//! - Else the worker zaps. Until it has, the frames stay referenced, so that what
//!   the attachments still show is not freed under them.
//!
//! Zapping an attachment fires the attached mm's notifiers (that is how KVM drops
//! its own entries), inside ours. Real depth is two, since windows cannot be
//! segments, but lockdep's notifier map does not know: see [`Space::invalidate`].

use core::ops::Range;

use kernel::{
    container_of,
    sync::{
        atomic::ordering::*,
        Arc,
        ArcBorrow, //
    },
    workqueue::WorkItem, //
};

use crate::{
    segment::{
        frame::Taken,
        invalidation::{
            Place,
            Task, //
        },
        notifier::Notifier,
        Segment, //
    },
    space::{
        Space,
        REVOKE, //
    },
    sys::{
        bindings,
        trace,
        workers, //
    },
};

/// Frames that are let go at a time: what fits the stack.
const BATCH: usize = 32;

/// What the segments' notifiers are registered with.
pub(crate) static NOTIFIER_OPS: bindings::mmu_interval_notifier_ops =
    bindings::mmu_interval_notifier_ops {
        invalidate: Some(invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

/// The arena is about to stop showing, or to write-protect, a range of a segment.
///
/// # Safety
///
/// Called by the notifier core with a registered notifier.
unsafe extern "C" fn invalidate(
    notifier: *mut bindings::mmu_interval_notifier,
    range: *const bindings::mmu_notifier_range,
    seq: usize,
) -> bool {
    // SAFETY: Only the notifiers of segments are registered with these
    // operations, and a segment lives until its notifier is removed.
    let segment = unsafe { &*container_of!(notifier.cast::<Notifier>(), Segment, notifier) };
    // SAFETY: As above: the segment has not ended.
    let space = unsafe { segment.space() };
    // SAFETY: `range` is valid for the call.
    let (start, end, blockable) = unsafe {
        (
            (*range).start,
            (*range).end,
            bindings::address_space_helper_range_blockable(range),
        )
    };
    space.invalidate(segment, start, end, blockable, seq)
}

impl Space {
    /// Zaps pages of the space for its owner. What was removed there must be gone
    /// from the layout; the ops lock must be held, and no other.
    pub(crate) fn zap(&self, pages: &Range<u64>) {
        if pages.is_empty() {
            return;
        }
        self.mapping.zap(pages);
        self.counts.revocations.fetch_add(1, Relaxed);
    }

    /// Lets go of all frames of a segment that nothing shows any more.
    ///
    /// The ops lock must be held, so that no removed range is still to be zapped; or
    /// the segment must be off the list, which it gets only when all are.
    pub(crate) fn forget_frames(&self, segment: &Segment) {
        let pages = segment.pages();
        // What was left to the worker may have been written after it was cleaned.
        let late = self.install.read().stale.overlaps(segment.id(), 0, pages);
        self.take_frames(segment, 0, pages, late);
    }

    fn invalidate(
        &self,
        segment: &Segment,
        start: usize,
        end: usize,
        blockable: bool,
        seq: usize,
    ) -> bool {
        let mut shown = if blockable {
            self.install.write()
        } else {
            match self.install.try_write() {
                Some(shown) => shown,
                None => return false,
            }
        };
        let (start, end) = segment.clip(start, end);
        let (start, end) = segment.frames.widen(start, end);
        let idle = !segment.frames.any(start, end);
        if !idle && !blockable {
            // Zapping sleeps.
            return false;
        }
        // SAFETY: We are in the callback, the lock is held exclusively.
        unsafe { segment.notifier.set_seq(seq) };
        if idle {
            // All that is installed comes from the table.
            return true;
        }
        let place = shown.stale.list(segment.id(), start, end);
        if place.is_some() {
            // Or a piece that the walk below has yet to reach could join one that
            // it has passed.
            shown.layout.hold_joins();
        }
        let closed = shown.closed;
        drop(shown);
        self.counts.invalidations.fetch_add(1, Relaxed);

        let Some(place) = place else {
            trace::invalidate(&self.mapping, segment.id(), start..end, true);
            self.call_worker(closed);
            return true;
        };
        match self.mapping.try_lock() {
            Some(attached) => {
                let mut cursor = None;
                loop {
                    let piece = self.install.read().layout.next_showing(
                        segment.id(),
                        start as u64..end as u64,
                        cursor,
                    );
                    let Some(piece) = piece else { break };
                    cursor = Some(piece.cursor);
                    // The attached mm's notifiers are called inside the arena's.
                    // That cannot go in circles: no attachment can be mapped in an
                    // arena. Lockdep has one map for all mms, though, and would
                    // report it. The same zap runs with lockdep on from the ioctl.
                    //
                    // SAFETY: Paired, and nothing in between can return.
                    unsafe { bindings::address_space_helper_lockdep_off() };
                    attached.zap(&(piece.start..piece.end));
                    // SAFETY: As above.
                    unsafe { bindings::address_space_helper_lockdep_on() };
                }
                drop(attached);
                trace::invalidate(&self.mapping, segment.id(), start..end, false);
                self.settle(segment, start, end, place, closed);
            }
            None => {
                trace::invalidate(&self.mapping, segment.id(), start..end, true);
                self.install.write().stale.leave(place);
                self.call_worker(closed);
            }
        }
        true
    }

    /// A listed range has been zapped wherever the layout shows it: let it go.
    fn settle(&self, segment: &Segment, start: usize, end: usize, place: Place, closed: bool) {
        let mut shown = self.install.write();
        if !shown.zapping.is_empty() {
            // A range that the owner has just removed from the layout may still be
            // mapped. Who zaps it holds the ops lock; the worker waits for that.
            shown.stale.leave(place);
            drop(shown);
            self.call_worker(closed);
            return;
        }
        drop(shown);
        // Nothing that was in the layout when the range was listed is left: it has
        // been zapped by us, or by whoever removed it.
        self.take_frames(segment, start, end, false);
        let mut shown = self.install.write();
        shown.stale.done(place);
        shown.layout.release_joins();
    }

    /// Takes the frames out of the table and puts them, in batches. If it is `late`,
    /// writeback may have cleaned them before the attachments were zapped; then this
    /// may wait for the file.
    fn take_frames(&self, segment: &Segment, start: usize, end: usize, late: bool) {
        let mut from = start;
        loop {
            let mut taken: [Option<Taken>; BATCH] = [const { None }; BATCH];
            let next = {
                let _shown = self.install.write();
                segment.frames.take(from, end, &mut taken)
            };
            if late {
                for page in taken.iter().flatten().filter_map(Taken::page_to_write) {
                    // Fails where the page is no longer the file's: then there is
                    // nothing to be kept.
                    let _ = self.arena.fault_in(segment.addr_of(page), true);
                }
            }
            // `taken` is dropped after the lock.
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
    }

    fn call_worker(&self, closed: bool) {
        self.counts.deferred.fetch_add(1, Relaxed);
        if closed {
            // No file is open any more, so no attachment exists, and the space's
            // end is about to let all frames go.
            return;
        }
        // SAFETY: The space is not closed, so a handle owns a reference to it; and
        // closing waits for this callback before the last one is dropped.
        let space: Arc<Space> = unsafe { ArcBorrow::from_raw(core::ptr::from_ref(self)) }.into();
        // An error says that the work is queued already.
        let _ = workers::queue().enqueue::<Arc<Space>, REVOKE>(space);
    }
}

impl WorkItem<REVOKE> for Space {
    type Pointer = Arc<Space>;

    fn run(space: Arc<Space>) {
        loop {
            let ops = space.ops.lock();
            let Some(task) = space.install.read().stale.task() else {
                break;
            };
            match task {
                Task::Range(_, id, start, end) => {
                    space.zap_shown(id, start, end);
                    // A segment that has ended meanwhile let its frames go then.
                    let pinned = ops.pin(id);
                    // Letting go may wait for the file, which must hold up no owner.
                    // Whatever he removes from here on has been zapped.
                    drop(ops);
                    if let Some(pinned) = pinned {
                        space.take_frames(pinned.segment(), start, end, true);
                    }
                    let mut shown = space.install.write();
                    shown.stale.finish(task);
                    shown.layout.release_joins();
                }
                Task::All => {
                    space.mapping.zap(&(0..space.pages));
                    for segment in ops.segments() {
                        space.take_frames(segment, 0, segment.pages(), true);
                    }
                    space.install.write().stale.finish(task);
                }
            }
        }
    }
}

impl Space {
    /// Zaps wherever pages `start..end` of a segment are shown. The ops lock must be
    /// held, and no other.
    fn zap_shown(&self, id: u64, start: usize, end: usize) {
        let pages = start as u64..end as u64;
        let mut cursor = None;
        loop {
            let shown = self.install.read();
            let piece = shown.layout.next_showing(id, pages.clone(), cursor);
            drop(shown);
            let Some(piece) = piece else { break };
            cursor = Some(piece.cursor);
            self.mapping.zap(&(piece.start..piece.end));
        }
    }
}
