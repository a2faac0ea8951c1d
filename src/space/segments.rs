// SPDX-License-Identifier: GPL-2.0

//! Segments of a space: found again or made for a map, kept for a registered file, and ended when
//! nothing shows them.
//!
//! The lists are guarded by the ops lock. A segment is made with no lock held, since a file may
//! take its time to be mapped and the worker must be able to revoke meanwhile; so a call that has
//! obtained one pins it until it is shown.

use core::ops::Range;

use kernel::{
    fs::File,
    list::{
        List,
        ListArc, //
    },
    prelude::*,
    sync::{
        atomic::ordering::*,
        Arc,
        MutexGuard, //
    },
    time::msecs_to_jiffies,
    workqueue::WorkItem, //
};

use crate::{
    layout::{
        FilePage,
        Prot,
        SegmentPage, //
    },
    segment::{
        list::{
            Ops,
            Pinned,
            Search, //
        },
        source::{
            Backing,
            Source, //
        },
        Segment,
        REMOVED, //
    },
    space::{
        Space,
        REAP, //
    },
    sys::{
        task,
        workers, //
    },
};

/// How long a segment that nothing shows is kept, in case it is mapped again. It pins its file
/// for as long, so not long.
const IDLE_MS: c_uint = 100;

/// How many segments are ended at a time.
const REAPED: usize = 16;

/// Segments of which a change has removed something, and which it may have left unused.
pub(crate) struct Removed {
    segments: List<Segment, REMOVED>,
    /// The one that was added last: compared, never followed.
    last: *const Segment,
}

impl Removed {
    pub(crate) const fn new() -> Self {
        Removed {
            segments: List::new(),
            last: core::ptr::null(),
        }
    }

    /// Remembers a segment, of which this is the reference that a range had which showed `pages` of
    /// it. No allocation; may be called under the install lock, since the lists of the space hold a
    /// reference too, so that none is ended here. `ops` is held.
    pub(crate) fn add(&mut self, segment: Arc<Segment>, pages: &Range<SegmentPage>) {
        segment.note_removed(pages);
        let last = core::mem::replace(&mut self.last, Arc::as_ptr(&segment));
        if self.last == last {
            return;
        }
        if let Ok(segment) = ListArc::try_from_arc(segment) {
            self.segments.push_back(segment);
        }
    }
}

/// Segments that are on no list of the space any more, for whoever has them to end.
pub(crate) struct Taken(List<Segment, REMOVED>);

impl Space {
    /// A segment that holds pages `part` of a file, or of what was lent, for at least `prot`, as
    /// the calling task may have it.
    ///
    /// Errors: those of [`Source::check_private`], [`Source::check_lend`] and [`Segment::make`]. No
    /// lock but `ops` may be held, which is released while a segment is made.
    pub(crate) fn obtain<'a>(
        self: &'a Arc<Self>,
        mut ops: MutexGuard<'a, Ops>,
        backing: Backing,
        part: Range<FilePage>,
        prot: Prot,
    ) -> Result<(MutexGuard<'a, Ops>, Pinned)> {
        let wanted = Source::new(backing, task::current_cred(), part, prot);
        wanted.check_private()?;
        wanted.check_lend()?;
        if let Some(found) = ops.find(&wanted) {
            return Ok((ops, found));
        }
        let id = ops.next_id();
        drop(ops);

        let home = self.arenas.home(&wanted.file, wanted.is_lent())?;
        let arena = &home.arena;
        let wanted = wanted.widened();
        wanted.reserve()?;
        arena.charge(|| {
            let segment = Segment::make(self.clone(), &home, id, wanted)?;
            let pinned = Pinned::new(segment);
            let mut ops = self.ops.lock();
            if let Err(error) = ops.add(pinned.segment().clone()) {
                drop(ops);
                self.end_segment(pinned.segment(), |addr, length| arena.unmap(addr, length));
                return Err(error);
            }
            Ok((ops, pinned))
        })
    }

    /// Whether anything shows a segment.
    fn is_shown(&self, segment: &Segment) -> bool {
        self.install.read().layout.shows(segment.id())
    }

    /// Ends a segment that is on no list, so that nothing can find it again; `unmap` unmaps it
    /// from the arena. No lock may be held.
    pub(super) fn end_segment(&self, segment: &Segment, unmap: impl FnOnce(usize, usize)) {
        segment.end(|| self.install.write());
        self.drop_all_frames(segment);
        if let Some(lend) = segment.lend() {
            return lend.leave(segment);
        }
        let (addr, length) = segment.area();
        unmap(addr, length);
    }

    /// Keeps a segment of a file until [`Space::unregister`], for the asfd or view with number
    /// `by`, and returns it, pinned. Errors as for [`Space::obtain`].
    pub(crate) fn register(
        self: &Arc<Self>,
        backing: Backing,
        part: Range<FilePage>,
        prot: Prot,
        by: u64,
    ) -> Result<Pinned> {
        let (mut ops, pinned) = self.obtain(self.ops.lock(), backing, part, prot)?;
        if ops.keep(pinned.segment(), by) {
            self.counts.registered.fetch_add(1, Relaxed);
        }
        Ok(pinned)
    }

    /// Ends all registrations of a file; what is mapped stays. `ENOENT` where there are none.
    pub(crate) fn unregister(self: &Arc<Self>, file: &File) -> Result {
        let mut ops = self.ops.lock();
        let mut any = false;
        while let Some(segment) = ops.registered_of(file) {
            any = true;
            self.end_registration(&mut ops, &segment);
        }
        drop(ops);
        if !any {
            return Err(ENOENT);
        }
        self.reap_later();
        Ok(())
    }

    /// Ends the registrations that were made by the asfd or view with number `by`, or all; what is
    /// mapped stays.
    pub(crate) fn unregister_all(self: &Arc<Self>, by: Option<u64>) {
        let mut done = None;
        loop {
            // Anew for each, since there may be many and other calls want the lock.
            let mut ops = self.ops.lock();
            let Some((key, segment)) = ops.registered_after(done) else {
                break;
            };
            done = Some(key);
            if by.is_none_or(|by| segment.is_registered_by(by)) {
                self.end_registration(&mut ops, &segment);
            }
        }
        self.reap_later();
    }

    fn end_registration(&self, ops: &mut Ops, segment: &Arc<Segment>) {
        if ops.unkeep(segment) {
            self.counts.registered.fetch_sub(1, Relaxed);
        }
        if segment.is_private() {
            self.give_back(ops, segment, segment.pages());
        }
        if !self.is_shown(segment) {
            self.drop_frames(ops, segment);
        }
    }

    /// Looks after the segments of which something was removed: copies go with what was removed;
    /// where nothing is shown any more, puts the frames at once (a held frame keeps a memfd from
    /// being sealed), and has the rest ended in a while.
    pub(crate) fn release_unused(self: &Arc<Self>, ops: &mut Ops, mut removed: Removed) {
        let mut idle = false;
        while let Some(segment) = self.next_unused(ops, &mut removed) {
            ops.note_idle(segment.into_arc());
            idle = true;
        }
        if idle {
            self.reap_later();
        }
    }

    /// As [`Space::release_unused`], but takes those that nothing shows off the lists.
    pub(super) fn take_unused(self: &Arc<Self>, ops: &mut Ops, mut removed: Removed) -> Taken {
        let mut taken = List::new();
        while let Some(segment) = self.next_unused(ops, &mut removed) {
            match ops.take(&segment) {
                true => taken.push_back(segment),
                false => ops.note_idle(segment.into_arc()),
            }
        }
        Taken(taken)
    }

    /// Looks after the next segments of which something was removed; returns the first of which
    /// nothing is shown any more.
    fn next_unused(&self, ops: &Ops, removed: &mut Removed) -> Option<ListArc<Segment, REMOVED>> {
        while let Some(segment) = removed.segments.pop_front() {
            let removed = segment.take_removed();
            if segment.is_registered() {
                continue;
            }
            if !removed.is_empty() {
                self.give_back(ops, &segment, removed);
            }
            if !self.is_shown(&segment) {
                self.drop_frames(ops, &segment);
                return Some(segment);
            }
        }
        None
    }

    /// Looks for segments to end in a while. The install lock may not be held.
    pub(crate) fn reap_later(self: &Arc<Self>) {
        // Held until it is queued: whoever closes the space makes sure then that nothing is.
        let shown = self.install.read();
        if shown.closed {
            return;
        }
        // An error says that it is queued already.
        let _ = workers::queue()
            .enqueue_delayed::<Arc<Space>, REAP>(self.clone(), msecs_to_jiffies(IDLE_MS));
    }
}

impl Space {
    /// Takes some of the segments off the lists that nothing shows; says whether to go on.
    fn take_idle(&self, search: &mut Search, taken: &mut [Option<Arc<Segment>>; REAPED]) -> bool {
        let mut ops = self.ops.lock();
        ops.take_idle(search, |segment| self.is_shown(segment), taken)
    }

    /// Ends segments for a caller that minds how long their files are held. It holds each until the
    /// arena has unmapped it, so that no worker puts a file last, which would be later. Those that
    /// may have to wait for their file, or for a lender, are left to a worker.
    ///
    /// Then also those that nothing shows since an earlier call, unless the worker was faster.
    pub(crate) fn release(&self, taken: Taken) {
        for segment in taken.0.iter() {
            self.release_one(&segment.into());
        }
        let mut search = Search::default();
        loop {
            let mut taken = [const { None }; REAPED];
            let more = self.take_idle(&mut search, &mut taken);
            for segment in taken.iter().flatten() {
                self.release_one(segment);
            }
            if !more {
                break;
            }
        }
    }

    fn release_one(&self, segment: &Arc<Segment>) {
        let arena = segment.arena();
        if arena.is_slow() || segment.is_lent() {
            segment.ending.store(true, Relaxed);
            segment.have_attended();
        } else {
            self.end_segment(segment, |addr, length| arena.unmap(addr, length));
        }
    }
}

impl WorkItem<REAP> for Space {
    type Pointer = Arc<Space>;

    fn run(space: Arc<Space>) {
        let mut search = Search::default();
        loop {
            let mut taken = [const { None }; REAPED];
            let more = space.take_idle(&mut search, &mut taken);
            for segment in taken.into_iter().flatten() {
                segment.ending.store(true, Relaxed);
                segment.have_attended();
            }
            if !more {
                break;
            }
        }
    }
}
