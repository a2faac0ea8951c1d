// SPDX-License-Identifier: GPL-2.0

//! Which segments a space has: found again or made for a map, kept for a registered
//! file, and ended when nothing shows them.
//!
//! The list is guarded by the ops lock. A segment is made with no lock held, since a
//! file may take its time to be mapped and the worker must be able to revoke
//! meanwhile; so who has got one pins it until it is shown.

use kernel::{
    cred::Credential,
    fs::File,
    prelude::*,
    sync::{aref::ARef, atomic::ordering::*, Arc, MutexGuard},
    task::Task,
    time::msecs_to_jiffies,
    workqueue::WorkItem,
};

use crate::{
    layout::Prot,
    segment::{Segment, Source},
    space::{Space, REAP},
    workers,
};

/// How long a segment that nothing shows is kept, in case it is mapped again. It
/// pins its file for as long, so not long.
const IDLE_MS: c_uint = 100;

/// What the ops lock guards: the segments in use, and the right to change the layout.
pub(crate) struct Ops {
    segments: KVVec<Arc<Segment>>,
    next_id: u64,
}

/// A segment that is not ended, whether or not anything shows it.
///
/// # Invariants
///
/// Counted in the segment's `pins`.
pub(crate) struct Pinned(Arc<Segment>);

impl Pinned {
    fn new(segment: Arc<Segment>) -> Self {
        segment.pins.fetch_add(1, Relaxed);
        // INVARIANT: Just counted.
        Pinned(segment)
    }

    /// The segment.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Relaxed);
    }
}

impl Ops {
    pub(crate) const fn new() -> Self {
        Ops {
            segments: KVVec::new(),
            next_id: 0,
        }
    }

    /// The segment with this id, if it is in use.
    fn segment(&self, id: u64) -> Option<&Arc<Segment>> {
        self.segments.iter().find(|segment| segment.id() == id)
    }

    /// Pins the segment with this id, if it is in use.
    pub(crate) fn pin(&self, id: u64) -> Option<Pinned> {
        self.segment(id).cloned().map(Pinned::new)
    }

    /// The segments in use.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Takes all segments off the list.
    pub(crate) fn take_all(&mut self) -> KVVec<Arc<Segment>> {
        core::mem::take(&mut self.segments)
    }

    /// Takes a segment that nothing needs off the list.
    fn take_idle(&mut self, space: &Space) -> Option<Arc<Segment>> {
        let shown = space.install.read();
        let at = self.segments.iter().position(|segment| {
            !segment.registered.load(Relaxed)
                && segment.pins.load(Relaxed) == 0
                && !shown.layout.shows(segment.id())
        })?;
        drop(shown);
        self.segments.remove(at).ok()
    }

    fn find(&self, wanted: &Source) -> Option<Pinned> {
        // The newest first: that is what is mapped again and again.
        self.segments
            .iter()
            .rev()
            .find(|segment| segment.serves(wanted))
            .map(|segment| Pinned::new(segment.clone()))
    }
}

impl Space {
    /// A segment that holds `pages` pages of `file` from page `first`, for at least
    /// `prot`, as the calling task may have it.
    ///
    /// Errors: those of mmap(), `ENODEV` for memory that cannot be shown. No lock but
    /// `ops` may be held, which is let go of while a segment is made.
    pub(crate) fn obtain<'a>(
        self: &'a Arc<Self>,
        mut ops: MutexGuard<'a, Ops>,
        file: ARef<File>,
        first: usize,
        pages: usize,
        prot: Prot,
    ) -> Result<(MutexGuard<'a, Ops>, Pinned)> {
        let wanted = Source::new(file, current_cred(), first, pages, prot);
        if let Some(found) = ops.find(&wanted) {
            return Ok((ops, found));
        }
        let id = ops.next_id;
        ops.next_id += 1;
        drop(ops);

        let _charge = self.arena.charge();
        // SAFETY: The space ends its segments before it goes itself.
        let segment =
            unsafe { Segment::make(Arc::as_ptr(self), &self.arena, id, wanted.widened())? };
        let pinned = Pinned::new(segment);
        let mut ops = self.ops.lock();
        let listed = ops
            .segments
            .push(pinned.segment().clone(), GFP_KERNEL_ACCOUNT);
        if let Err(error) = listed {
            drop(ops);
            pinned.segment().end(self);
            let (addr, length) = pinned.segment().area();
            // The address goes unused if even this fails; it goes with the arena.
            let _ = self.arena.unmap(addr, length);
            return Err(error.into());
        }
        Ok((ops, pinned))
    }

    /// Keeps a segment of a file, and what is known of its pages, until
    /// [`Space::unregister`].
    pub(crate) fn register(
        self: &Arc<Self>,
        file: ARef<File>,
        first: usize,
        pages: usize,
        prot: Prot,
        populate: bool,
    ) -> Result {
        let (ops, pinned) = self.obtain(self.ops.lock(), file, first, pages, prot)?;
        drop(ops);
        let segment = pinned.segment();
        segment.registered.store(true, Relaxed);
        if populate {
            let first = first - segment.first();
            self.bring_in(segment, first..first + pages, prot);
        }
        Ok(())
    }

    /// Ends all registrations of a file; what is mapped stays. `ENOENT`.
    pub(crate) fn unregister(self: &Arc<Self>, file: &File) -> Result {
        let ops = self.ops.lock();
        let mut any = false;
        for segment in ops.segments() {
            if segment.file().as_ptr() == file.as_ptr() && segment.registered.xchg(false, Relaxed) {
                any = true;
                if !self.install.read().layout.shows(segment.id()) {
                    self.forget_frames(segment);
                }
            }
        }
        drop(ops);
        if !any {
            return Err(ENOENT);
        }
        self.reap_later();
        Ok(())
    }

    /// Looks for segments to end in a while.
    pub(crate) fn reap_later(self: &Arc<Self>) {
        // An error says that it is queued already.
        let _ = workers::queue()
            .enqueue_delayed::<Arc<Space>, REAP>(self.clone(), msecs_to_jiffies(IDLE_MS));
    }
}

impl WorkItem<REAP> for Space {
    type Pointer = Arc<Space>;

    fn run(space: Arc<Space>) {
        loop {
            // Off the list, nobody can find it again.
            let Some(segment) = space.ops.lock().take_idle(&space) else {
                break;
            };
            segment.end(&space);
            space.forget_frames(&segment);
            let (addr, length) = segment.area();
            space.arena.unmap_here(addr, length);
        }
    }
}

/// The calling task's credentials.
fn current_cred() -> ARef<Credential> {
    // SAFETY: A task may read its own credentials, and holds them.
    unsafe { Credential::from_ptr((*Task::current_raw()).cred) }.into()
}
