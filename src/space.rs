// SPDX-License-Identifier: GPL-2.0

//! The address space: the object behind an asfd and its views.
//!
//! It owns the arena, the segments, and the layout that attachments and VMs are
//! shown; here the layout is changed: map and unmap.
//!
//! # Lock order
//!
//! Outer first. Nothing is waited for while a lock further down is held.
//!
//! 1. `ops`, a mutex: one change of the layout at a time, from the check to the
//!    end of the zap. Also taken by the worker, never by a fault or a notifier.
//! 2. The asfd inode's `i_mmap_rwsem` (see `mapping.rs`): waited for under `ops`
//!    only; elsewhere, above all inside another file's, only tried.
//! 3. An attached process's mmap lock, which a fault comes with.
//! 4. The arena's mmap lock, and whatever a file takes under it: under an attached
//!    process's lock it is only tried.
//! 5. `install` (see `install.rs`): held for moments; nothing is allocated and
//!    nothing slept for under it, but page table locks are taken.
//!
//! A notifier is called under 4 or under a file's own locks and takes 5, and tries
//! 2. The layout is read under `install` held shared, or under `ops`, and changed
//! under both, `install` exclusively.

use core::ops::Range;

use kernel::{
    cred::Credential,
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{ordering::*, Atomic},
        new_mutex, Arc, Mutex,
    },
    task::Task,
    time::msecs_to_jiffies,
    workqueue::{
        impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork, Work,
    },
};

use crate::{
    arena::Arena,
    bindings,
    fault::Failures,
    frames::HUGE_PAGES,
    install::InstallLock,
    kvm::Slots,
    layout::{self, Layout, Prot, Spare},
    mapping::Mapping,
    segment::{Segment, Source},
    stale::Stale,
    trace, workers,
};

/// The work item that revokes what the notifier could not.
pub(crate) const REVOKE: u64 = 1;
/// The work item that unmaps segments which nothing shows.
pub(crate) const REAP: u64 = 2;

/// How long a segment that nothing shows is kept, in case it is mapped again. It
/// pins its file for as long, so not long.
const IDLE_MS: c_uint = 100;

/// How many removed segments a change remembers before it looks at all instead.
const REMEMBERED: usize = 8;

/// Memory of the layout, accounted to whoever changes it.
pub(crate) struct Kernel;

impl layout::Store for Kernel {
    type Segment = Arc<Segment>;
    type Chunk = KBox<layout::Chunk<Arc<Segment>>>;
    type Directory = KVVec<Option<Self::Chunk>>;
    type Error = Error;

    fn chunk() -> Result<Self::Chunk> {
        KBox::init(
            pin_init::init_array_from_fn(|_| layout::Node::vacant()),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn directory(slots: usize) -> Result<Self::Directory> {
        let mut directory = KVVec::with_capacity(slots, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..slots {
            directory.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(directory)
    }
}

/// What the install lock guards.
pub(crate) struct Shown {
    pub(crate) layout: Layout<Kernel>,
    /// What is being revoked behind the owner's back.
    pub(crate) stale: Stale,
    /// Whether the owner has removed something that may not be zapped yet.
    pub(crate) zapping: bool,
    /// Whether no file of the space is open any more.
    pub(crate) closed: bool,
}

/// What `ops` guards: the segments in use, and the right to change the layout.
pub(crate) struct Ops {
    segments: KVVec<Arc<Segment>>,
    next_id: u64,
}

/// What happened to a space, for fdinfo.
pub(crate) struct Counts {
    /// Windows: VMAs that map the space.
    pub(crate) attachments: Atomic<u64>,
    /// Page faults of attachments.
    pub(crate) faults: Atomic<u64>,
    /// Changes by the owner that were zapped.
    pub(crate) revocations: Atomic<u64>,
    /// Changes behind the owner's back.
    pub(crate) invalidations: Atomic<u64>,
    /// Those of the latter that went to the worker.
    pub(crate) deferred: Atomic<u64>,
}

/// An address space.
///
/// Reached through [`Handle`]s, which the files own.
#[pin_data]
pub(crate) struct Space {
    /// Its length.
    pub(crate) pages: u64,
    pub(crate) mapping: Mapping,
    #[pin]
    pub(crate) ops: Mutex<Ops>,
    #[pin]
    pub(crate) install: InstallLock<Shown>,
    pub(crate) counts: Counts,
    /// Faults whose wait ended in an error.
    #[pin]
    pub(crate) failures: Failures,
    /// Windows that are memory slots.
    #[pin]
    pub(crate) slots: Slots,
    /// Files that are open on it.
    handles: Atomic<u64>,
    #[pin]
    revoke_work: Work<Space, REVOKE>,
    #[pin]
    reap_work: DelayedWork<Space, REAP>,
    /// Last, since the segments' frames and notifiers go before the mm.
    pub(crate) arena: Arena,
}

impl_has_work! {
    impl HasWork<Space, REVOKE> for Space { self.revoke_work }
}
impl_has_delayed_work! {
    impl HasDelayedWork<Space, REAP> for Space { self.reap_work }
}

/// Where to map.
pub(crate) enum Place {
    /// At this page, where nothing may be mapped.
    Empty(u64),
    /// At this page, whatever is mapped there.
    Over(u64),
    /// Wherever there is room.
    Anywhere,
}

/// What a change of the layout removed.
struct Removed {
    segments: [Option<Arc<Segment>>; REMEMBERED],
    any: bool,
    more: bool,
}

impl Removed {
    fn new() -> Self {
        Removed {
            segments: [const { None }; REMEMBERED],
            any: false,
            more: false,
        }
    }

    /// Remembers the segment of a removed range. Called under the install lock;
    /// the space's own reference keeps the drop of the range's from being the last.
    fn add(&mut self, range: layout::Range<Arc<Segment>>) {
        self.any = true;
        if range.segment.suspect.xchg(true, Relaxed) {
            return;
        }
        match self.segments.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(range.segment),
            None => self.more = true,
        }
    }
}

impl Ops {
    /// The segment with this id, if it is in use.
    pub(crate) fn segment(&self, id: u64) -> Option<&Arc<Segment>> {
        self.segments.iter().find(|segment| segment.id() == id)
    }

    /// The segments in use.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Takes a segment that nothing shows off the list.
    pub(crate) fn take_idle(&mut self, space: &Space) -> Option<Arc<Segment>> {
        let shown = space.install.read();
        let at = self
            .segments
            .iter()
            .position(|segment| !shown.layout.shows(segment.id()))?;
        drop(shown);
        self.segments.remove(at).ok()
    }

    fn find(&self, wanted: &Source) -> Option<Arc<Segment>> {
        // The newest first: that is what is mapped again and again.
        self.segments
            .iter()
            .rev()
            .find(|segment| segment.serves(wanted))
            .cloned()
    }
}

impl Space {
    /// A space of `pages` pages, whose windows hang in `mapping`.
    fn new(pages: u64, mapping: Mapping) -> Result<Arc<Space>> {
        let arena = Arena::new()?;
        // SAFETY: May be called from anywhere.
        let seed = unsafe { bindings::get_random_u64() };
        let layout = Layout::new(pages, seed);
        Arc::pin_init(
            pin_init!(Space {
                pages,
                mapping,
                ops <- new_mutex!(Ops { segments: KVVec::new(), next_id: 0 }, "Space::ops"),
                install <- InstallLock::new(Shown {
                    layout,
                    stale: Stale::new(),
                    zapping: false,
                    closed: false,
                }),
                counts: Counts {
                    attachments: Atomic::new(0),
                    faults: Atomic::new(0),
                    revocations: Atomic::new(0),
                    invalidations: Atomic::new(0),
                    deferred: Atomic::new(0),
                },
                failures <- Failures::new(),
                slots <- Slots::new(),
                handles: Atomic::new(0),
                revoke_work <- new_work!("address_space::revoke"),
                reap_work <- new_delayed_work!("address_space::reap"),
                arena,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Maps `pages` pages of `file` from page `first`; returns where.
    ///
    /// Errors: those of mmap(), `ENODEV` for memory that cannot be shown, `EEXIST`,
    /// `ENOSPC`. The range must lie within the space, and the sums not overflow.
    pub(crate) fn map(
        self: &Arc<Self>,
        file: ARef<File>,
        first: usize,
        pages: usize,
        prot: Prot,
        place: Place,
        populate: bool,
    ) -> Result<u64> {
        let wanted = Source::new(file, current_cred(), first, pages, prot);
        let mut ops = self.ops.lock();
        let segment = match ops.find(&wanted) {
            Some(segment) => segment,
            None => {
                let id = ops.next_id;
                ops.next_id += 1;
                // A file may take its time to be mapped. The worker needs the lock
                // to revoke, so it is not held meanwhile.
                drop(ops);
                // SAFETY: The space ends its segments before it goes itself.
                let segment = unsafe {
                    Segment::make(Arc::as_ptr(self), &self.arena, id, wanted.clone().widened())?
                };
                ops = self.ops.lock();
                if let Err(error) = ops.segments.push(segment.clone(), GFP_KERNEL_ACCOUNT) {
                    drop(ops);
                    segment.end(self);
                    let (addr, length) = segment.area();
                    let _ = self.arena.unmap(addr, length);
                    return Err(error.into());
                }
                segment
            }
        };

        let at = self.place(&place, &wanted);
        let at = at.and_then(|start| {
            self.change(
                &ops,
                start..start + pages as u64,
                prot,
                |layout, removed| {
                    layout.replace(
                        layout::Range {
                            start,
                            end: start + pages as u64,
                            segment: segment.clone(),
                            offset: (wanted.first - segment.first()) as u64,
                            prot,
                        },
                        |range| removed.add(range),
                    )
                },
            )?;
            Ok(start)
        });
        if at.is_err() {
            self.reap_later();
        }
        drop(ops);

        if at.is_ok() && populate && prot.contains(Prot::READ) {
            self.populate(&segment, wanted.first - segment.first(), pages, prot);
        }
        at
    }

    /// Where a request may go, as things are. The ops lock must be held.
    fn place(&self, place: &Place, wanted: &Source) -> Result<u64> {
        let shown = self.install.read();
        let pages = wanted.pages as u64;
        match *place {
            Place::Over(start) => Ok(start),
            Place::Empty(start) if shown.layout.overlaps(start, start + pages) => Err(EEXIST),
            Place::Empty(start) => Ok(start),
            Place::Anywhere => {
                let huge = HUGE_PAGES as u64;
                let lie = wanted.first as u64 % huge;
                let aligned = if pages >= huge {
                    shown.layout.find_hole(pages, huge, lie)
                } else {
                    None
                };
                aligned
                    .or_else(|| shown.layout.find_hole(pages, 1, 0))
                    .ok_or(ENOSPC)
            }
        }
    }

    /// Empties `range`, which must lie within the space; when this returns nobody
    /// reaches what was shown there.
    pub(crate) fn unmap(self: &Arc<Self>, range: Range<u64>) -> Result {
        let ops = self.ops.lock();
        self.change(&ops, range.clone(), Prot::NONE, |layout, removed| {
            layout.remove(range.start, range.end, |range| removed.add(range))
        })
    }

    /// Has the files that are shown in `range` write what was changed in them to
    /// where they are kept; the first error of any. May take as long as the files do,
    /// and holds no lock meanwhile.
    pub(crate) fn sync(&self, range: Range<u64>, datasync: bool) -> Result {
        let mut result = Ok(());
        let mut page = range.start;
        loop {
            let shown = self.install.read().layout.next(page).cloned();
            let Some(shown) = shown.filter(|shown| shown.start < range.end) else {
                break;
            };
            page = shown.end;
            if let Err(error) = shown.segment.sync(shown.offset, shown.pages(), datasync) {
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Changes the layout within `range`, and revokes what is no longer shown.
    fn change(
        self: &Arc<Self>,
        ops: &Ops,
        range: Range<u64>,
        prot: Prot,
        change: impl FnOnce(&mut Layout<Kernel>, &mut Removed) -> Result<(), layout::Refused>,
    ) -> Result {
        let need = self
            .install
            .read()
            .layout
            .need(Layout::<Kernel>::REPLACE_NODES);
        let mut spare = Spare::<Kernel>::new(need)?;
        let mut removed = Removed::new();
        let mut shown = self.install.write();
        shown.layout.refill(&mut spare);
        let changed = change(&mut shown.layout, &mut removed);
        shown.zapping = removed.any;
        drop(shown);
        drop(spare);
        // Only what lies outside the space is refused, and the caller checked that.
        changed.map_err(|_| EINVAL)?;

        if removed.any {
            self.zap(&range);
            self.install.write().zapping = false;
            self.retire(ops, &removed);
        }
        trace::change(&self.mapping, &range, prot, removed.any);
        Ok(())
    }

    /// Looks after the segments of which something was removed: where nothing is
    /// shown any more, lets go of the frames at once (a held frame keeps a memfd
    /// from being sealed) and of the rest in a while.
    fn retire(self: &Arc<Self>, ops: &Ops, removed: &Removed) {
        let mut idle = false;
        let mut look = |segment: &Arc<Segment>| {
            if !segment.suspect.xchg(false, Relaxed)
                || self.install.read().layout.shows(segment.id())
            {
                return;
            }
            self.forget_frames(segment);
            idle = true;
        };
        if removed.more {
            ops.segments.iter().for_each(&mut look);
        } else {
            removed.segments.iter().flatten().for_each(&mut look);
        }
        if idle {
            self.reap_later();
        }
    }

    fn reap_later(self: &Arc<Self>) {
        // An error says that it is queued already.
        let _ = workers::queue()
            .enqueue_delayed::<Arc<Space>, REAP>(self.clone(), msecs_to_jiffies(IDLE_MS));
    }

    /// Brings pages into memory, as far as that goes.
    fn populate(&self, segment: &Segment, first: usize, pages: usize, prot: Prot) {
        for page in first..first + pages {
            let write = prot.contains(Prot::WRITE);
            if current!().signal_pending()
                || self.arena.fault_in(segment.addr_of(page), write).is_err()
            {
                break;
            }
        }
    }

    /// The last file is gone, and with it the last attachment.
    fn close(self: &Arc<Self>) {
        self.install.write().closed = true;
        self.cancel_reaping();
        // Notifiers are only ended with no lock held that their callbacks, or who
        // waits for those, might want.
        let segments = core::mem::take(&mut self.ops.lock().segments);
        for segment in &segments {
            segment.end(self);
        }
        // The layout's references are the last ones now.
    }

    /// Makes sure that the delayed work neither runs nor will: it would outlive the
    /// module, which only open files pin.
    fn cancel_reaping(self: &Arc<Self>) {
        // SAFETY: The field is a `DelayedWork` in pinned memory.
        let work = unsafe { DelayedWork::raw_as_work(&raw const self.reap_work) };
        // SAFETY: It is the work of a `delayed_work`, which was initialised. No lock
        // is held that the work takes.
        let pending = unsafe {
            bindings::cancel_delayed_work_sync(kernel::container_of!(
                work.cast::<bindings::work_struct>(),
                bindings::delayed_work,
                work
            ))
        };
        if pending {
            // SAFETY: Queueing had turned a reference into the pending work, which
            // nobody will turn back now.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(self)) });
        }
    }
}

/// The right to use a space, owned by each file that is open on it.
///
/// # Invariants
///
/// Counted in the space's `handles`.
pub(crate) struct Handle(Arc<Space>);

impl Handle {
    /// A new space and the first handle to it.
    pub(crate) fn create(pages: u64, mapping: Mapping) -> Result<Handle> {
        let space = Space::new(pages, mapping)?;
        space.handles.store(1, Relaxed);
        // INVARIANT: Just counted.
        Ok(Handle(space))
    }

    /// Another handle to the same space.
    pub(crate) fn share(&self) -> Handle {
        self.0.handles.fetch_add(1, Relaxed);
        // INVARIANT: Just counted.
        Handle(self.0.clone())
    }

    /// The space.
    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Full) == 1 {
            self.0.close();
        }
    }
}

/// Bytes that a number of pages takes.
pub(crate) const fn bytes(pages: u64) -> u64 {
    pages << PAGE_SHIFT
}

/// The calling task's credentials.
fn current_cred() -> ARef<Credential> {
    // SAFETY: A task may read its own credentials, and holds them.
    unsafe { Credential::from_ptr((*Task::current_raw()).cred) }.into()
}
