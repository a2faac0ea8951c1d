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
    sync::{
        aref::ARef,
        atomic::ordering::*,
        Arc,
        MutexGuard, //
    },
    task::Task,
    time::msecs_to_jiffies,
    workqueue::WorkItem, //
};

use crate::{
    layout::Prot,
    segment::{
        list::Listed,
        Segment,
        Source, //
    },
    space::{
        Space,
        REAP, //
    },
    sys::workers, //
};

/// How long a segment that nothing shows is kept, in case it is mapped again. It
/// pins its file for as long, so not long.
const IDLE_MS: c_uint = 100;

/// How many segments are ended at a time.
const REAPED: usize = 16;

/// What the ops lock guards: the segments in use, and the right to change the layout.
pub(crate) struct Ops {
    /// Those that are kept although nothing may show them. Apart, so that they are found
    /// however many others there are.
    registered: Listed,
    others: Listed,
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

/// The segments that a call has pinned: most have one.
pub(crate) struct Pins {
    first: Option<Pinned>,
    /// (Not an empty list where there are none: that is freed by a call.)
    others: Option<KVVec<Pinned>>,
}

impl Pins {
    /// None.
    pub(crate) const fn new() -> Self {
        Pins {
            first: None,
            others: None,
        }
    }

    /// One, which is in place 0.
    pub(crate) fn one(pinned: Pinned) -> Self {
        Pins {
            first: Some(pinned),
            ..Self::new()
        }
    }

    pub(crate) fn push(&mut self, pinned: Pinned) -> Result {
        if self.first.is_none() {
            self.first = Some(pinned);
        } else {
            let others = self.others.get_or_insert_with(KVVec::new);
            others.push(pinned, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    pub(crate) fn last(&self) -> Option<&Pinned> {
        let others = self.others.as_ref();
        others
            .and_then(|others| others.last())
            .or(self.first.as_ref())
    }

    /// Where the last one is.
    pub(crate) fn last_place(&self) -> u32 {
        self.others.as_ref().map_or(0, |others| others.len() as u32)
    }

    pub(crate) fn get(&self, place: u32) -> Option<&Pinned> {
        match place.checked_sub(1) {
            None => self.first.as_ref(),
            Some(place) => self.others.as_ref()?.get(place as usize),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Relaxed);
    }
}

impl Ops {
    pub(crate) fn new() -> Self {
        Ops {
            registered: Listed::new(),
            others: Listed::new(),
            next_id: 0,
        }
    }

    /// Pins the segment with this id, if it is in use.
    pub(crate) fn pin(&self, id: u64) -> Option<Pinned> {
        let mut segments = self.segments();
        let found = segments.find(|segment| segment.id() == id)?;
        Some(Pinned::new(found.clone()))
    }

    /// The segments in use.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        // An initialiser can be chained too.
        Iterator::chain(self.registered.iter(), self.others.iter())
    }

    /// How many segments are registered.
    pub(crate) fn registered(&self) -> usize {
        self.registered.iter().count()
    }

    /// Takes all segments off the lists, which the caller ends.
    pub(crate) fn take_all(&mut self) -> [Listed; 2] {
        [&mut self.registered, &mut self.others].map(|list| core::mem::replace(list, Listed::new()))
    }

    /// Takes segments that nothing needs off the list, as many as there are places;
    /// says whether there may be more.
    fn take_idle(&mut self, space: &Space, taken: &mut [Option<Arc<Segment>>]) -> bool {
        let shown = space.install.read();
        let idle = self
            .others
            .iter()
            .filter(|segment| segment.pins.load(Relaxed) == 0 && !shown.layout.shows(segment.id()));
        let mut count = 0;
        for (place, segment) in taken.iter_mut().zip(idle) {
            *place = Some(segment.clone());
            count += 1;
        }
        drop(shown);
        for segment in taken.iter().flatten() {
            drop(self.others.remove(segment));
        }
        count == taken.len()
    }

    /// Keeps a segment, whether or not anything shows it.
    fn keep(&mut self, segment: &Segment) {
        segment.registered.store(true, Relaxed);
        self.others.pass(segment, &mut self.registered);
    }

    /// Ends the keeping of one of the segments of a file.
    fn unkeep_one(&mut self, file: &File) -> Option<Arc<Segment>> {
        let segment = self.registered.any_of(file)?;
        segment.registered.store(false, Relaxed);
        self.registered.pass(&segment, &mut self.others);
        Some(segment)
    }

    fn find(&mut self, wanted: &Source) -> Option<Pinned> {
        let found = match self.registered.find(wanted) {
            Some(found) => found,
            None => self.others.find(wanted)?,
        };
        Some(Pinned::new(found.clone()))
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
        let listed = ops.others.add(pinned.segment().clone());
        if let Err(error) = listed {
            drop(ops);
            pinned.segment().end(self);
            let (addr, length) = pinned.segment().area();
            // The address goes unused if even this fails; it goes with the arena.
            let _ = self.arena.unmap(addr, length);
            return Err(error);
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
        let (mut ops, pinned) = self.obtain(self.ops.lock(), file, first, pages, prot)?;
        let segment = pinned.segment();
        ops.keep(segment);
        drop(ops);
        if populate {
            let first = first - segment.first();
            self.bring_in(segment, first..first + pages, prot);
        }
        Ok(())
    }

    /// Ends all registrations of a file; what is mapped stays. `ENOENT`.
    pub(crate) fn unregister(self: &Arc<Self>, file: &File) -> Result {
        let mut ops = self.ops.lock();
        let mut any = false;
        while let Some(segment) = ops.unkeep_one(file) {
            any = true;
            if !self.install.read().layout.shows(segment.id()) {
                self.forget_frames(&segment);
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
            let mut taken = [const { None }; REAPED];
            let more = space.ops.lock().take_idle(&space, &mut taken);
            // Off the list, nobody can find them again.
            for segment in taken.into_iter().flatten() {
                segment.end(&space);
                space.forget_frames(&segment);
                let (addr, length) = segment.area();
                space.arena.unmap_here(addr, length);
            }
            if !more {
                break;
            }
        }
    }
}

/// The calling task's credentials.
fn current_cred() -> ARef<Credential> {
    // SAFETY: A task may read its own credentials, and holds them.
    unsafe { Credential::from_ptr((*Task::current_raw()).cred) }.into()
}
