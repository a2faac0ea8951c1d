// SPDX-License-Identifier: GPL-2.0

//! The address space: the object behind an asfd and its views.
//!
//! It owns the arena, the segments, and the layout that attachments and VMs are shown.
//! `segments.rs` obtains and ends segments, `change.rs` changes the layout, `resolve.rs` answers
//! what a page is, `revoke.rs` makes pages unreachable. What becomes of an access that is refused
//! is in `policy.rs`, `absorb.rs`, `watch.rs` and `await_change.rs`, and who hears of it in
//! `events.rs` and `refusals.rs`.
//!
//! # Lock order
//!
//! Outer first. Nothing is waited for while a lock further down is held.
//!
//! 1. `ops`, a mutex: one change of the layout at a time, from the check to the end of the zap.
//!    Also acquired by the worker, never by a fault or a notifier.
//! 2. An attached process's mmap lock (or a VMA's), which a fault comes with; populating only
//!    tries it, with nothing held.
//! 3. The asfd inode's `i_mmap_rwsem` (see `sys/mapping.rs`): the kernel acquires it under 2, and
//!    so does the module in mremap(). Else it waits for it under `ops` or with nothing held, with
//!    neither 2 nor 4, and elsewhere, above all inside another file's, only tries it.
//! 4. An arena's mmap lock and the locks of its VMAs, and whatever a file acquires under them:
//!    under 2 they are only tried. For what is invalidated in an arena to end is waited with
//!    nothing held, or under 2 where an access cannot be tried again.
//! 5. `install`, a reader-writer spinlock: held for moments; nothing is allocated under it, but
//!    page table locks are acquired.
//!
//! A notifier is called under 4 or under a file's own locks and acquires 5, and tries 3. The
//! layout is read under `install` in either mode, or under `ops`, and changed under both, with
//! `install` held for writing.
//!
//! Locks of their own, inside which the module acquires nothing:
//!
//! - of `Absorbed`, a spinlock that is acquired inside 5, or with nothing held;
//! - of `Watch`, a spinlock that is acquired with nothing held, under `ops` or under 2; the lock of
//!   a wait queue is acquired inside it, and what poll() has there;
//! - of `Refusals` and of `Failures`, spinlocks around a few words, acquired under 2 or with
//!   nothing held;
//! - of `SpareSteps`, a spinlock around a pointer, acquired with nothing held;
//! - of `Slots`, a spinlock that a closing attachment acquires under 2;
//! - of each arena, the mutex of its jobs; of each attendant, that of its segments; and that of
//!   the list of attendants.
//!
//! The mutex of the list of arenas is acquired with nothing held, and an arena may be made under
//! it; that of the mm source is acquired under it, or with nothing held.
//!
//! # The install lock
//!
//! `install` stands between a check and the entry that is made upon it. Code that puts a frame
//! where a process or a VM can reach it holds the lock for reading from the check (layout, frame
//! table, notifier) to the insertion. Code that takes something away holds it for writing for as
//! long as it takes to say so, and zaps after releasing it: what was checked before has been
//! inserted already and is zapped, what comes later sees the change.
//!
//! It is a spinlock, so that whoever holds it is not preempted: a holder of a view may be of the
//! lowest priority, and the owner and everybody else wait for it. So **nothing is done under it
//! that grows with what there is**: a change that takes more is made in pieces (`hold.rs`), and a
//! search goes on after the lock was let go. And **nothing is allocated while it is held, in either
//! mode**: reclaim calls the notifiers of segments, and those acquire the lock for writing.

pub(crate) mod absorb;
pub(crate) mod advise;
mod await_change;
pub(crate) mod batch;
pub(crate) mod bring_in;
pub(crate) mod change;
pub(crate) mod events;
pub(crate) mod failures;
mod give_back;
mod hold;
pub(crate) mod mirror;
pub(crate) mod policy;
pub(crate) mod readahead;
pub(crate) mod refusals;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod revoke;
pub(crate) mod segments;
pub(crate) mod slots;
pub(crate) mod store;
pub(crate) mod terms;
mod wake;
pub(crate) mod walk;
pub(crate) mod watch;
mod zapping;

use kernel::{
    list::List,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        new_mutex,
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_delayed_work,
        impl_has_work,
        new_delayed_work,
        new_work,
        DelayedWork,
        Work, //
    },
};

use crate::{
    layout::{FewRanges, Layout},
    segment::{
        arena::Arena,
        arenas::Arenas,
        list::{
            Ops,
            SegmentList, //
        },
        Segment,
        DEFERRED, //
    },
    space::{
        absorb::Absorbed,
        batch::SpareSteps,
        failures::Failures,
        readahead::Readahead,
        refusals::Refusals,
        slots::Slots,
        store::Kernel,
        watch::Watch, //
    },
    sys::{
        mapping::Mapping,
        random,
        rwlock::RwLock,
        workers,
        zaps::Zaps, //
    },
};

/// The work item that drains deferred invalidations.
pub(crate) const REVOKE: u64 = 1;
/// The work item that ends segments which nothing shows.
pub(crate) const REAP: u64 = 2;
/// The work item that ends what is absorbed briefly.
pub(crate) const EXPIRE: u64 = 3;

/// What the install lock guards.
pub(crate) struct Shown {
    pub(crate) layout: Layout<Kernel>,
    /// Segments that have deferred invalidations.
    pub(crate) deferred: List<Segment, DEFERRED>,
    /// Where the owner is changing something, or has removed what may not be zapped yet. Nothing is
    /// installed there meanwhile, or an attacher could meet the new in one place and after that the
    /// old in another.
    pub(crate) revoking: FewRanges,
    /// Whether the owner is in the middle of a change, and has let the lock go for a moment: what
    /// is away may come back.
    pub(crate) half_made: bool,
    /// Whether no file of the space is open any more.
    pub(crate) closed: bool,
}

/// What happened to a space, for fdinfo.
pub(crate) struct Counts {
    /// Segments that are registered. Changed with `ops` held.
    pub(crate) registered: Atomic<u64>,
    /// Attachments: VMAs that map the space.
    pub(crate) attachments: Atomic<u64>,
    /// Page faults of attachments.
    pub(crate) faults: Atomic<u64>,
    /// Changes by the owner that were zapped.
    pub(crate) revocations: Atomic<u64>,
    /// Changes behind the owner's back.
    pub(crate) invalidations: Atomic<u64>,
    /// Those of the latter that were deferred to the worker.
    pub(crate) deferred: Atomic<u64>,
}

/// An address space.
///
/// Reached through [`Handle`]s, which the files own.
///
/// # Invariants
///
/// It is in an [`Arc`], of which a handle or a queued work item holds a reference.
#[pin_data]
pub(crate) struct Space {
    /// Its length in pages.
    pub(crate) pages: u64,
    pub(crate) mapping: Mapping,
    /// Who zaps the attachments.
    pub(crate) zaps: Zaps,
    #[pin]
    pub(crate) ops: Mutex<Ops>,
    #[pin]
    pub(crate) install: RwLock<Shown>,
    pub(crate) counts: Counts,
    /// Faults whose wait ended in an error.
    #[pin]
    pub(crate) failures: Failures,
    /// How many pages a fault installs.
    pub(crate) readahead: Readahead,
    /// Accesses that were refused.
    #[pin]
    pub(crate) refusals: Refusals,
    /// What is absorbed.
    #[pin]
    pub(crate) absorbed: Absorbed,
    /// Who waits, and who is told.
    #[pin]
    pub(crate) watch: Watch,
    /// The place of a batch's operations, between two batches.
    #[pin]
    pub(crate) spare_steps: SpareSteps,
    /// Attachments that are memory slots.
    #[pin]
    pub(crate) slots: Slots,
    /// Files that are open on it.
    handles: Atomic<u64>,
    #[pin]
    revoke_work: Work<Space, REVOKE>,
    #[pin]
    reap_work: DelayedWork<Space, REAP>,
    #[pin]
    expire_work: DelayedWork<Space, EXPIRE>,
    #[pin]
    pub(crate) arenas: Arenas,
}

impl_has_work! {
    impl HasWork<Space, REVOKE> for Space { self.revoke_work }
}
impl_has_delayed_work! {
    impl HasDelayedWork<Space, REAP> for Space { self.reap_work }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Space, EXPIRE> for Space { self.expire_work }
}

impl Space {
    /// A space of `pages` pages, whose attachments are linked into `mapping`.
    fn new(pages: u64, mapping: Mapping) -> Result<Arc<Space>> {
        let arena = Arena::new()?;
        let layout = Layout::new(pages, random::get_u64());
        Arc::pin_init(
            pin_init!(Space {
                pages,
                mapping,
                zaps: Zaps::new(),
                ops <- new_mutex!(Ops::new(), "Space::ops"),
                install <- RwLock::new(Shown {
                    layout,
                    deferred: List::new(),
                    revoking: FewRanges::none(),
                    half_made: false,
                    closed: false,
                }),
                counts: Counts {
                    registered: Atomic::new(0),
                    attachments: Atomic::new(0),
                    faults: Atomic::new(0),
                    revocations: Atomic::new(0),
                    invalidations: Atomic::new(0),
                    deferred: Atomic::new(0),
                },
                failures <- Failures::new(),
                readahead: Readahead::new(),
                refusals <- Refusals::new(),
                absorbed <- Absorbed::new(),
                watch <- Watch::new(),
                spare_steps <- SpareSteps::new(),
                slots <- Slots::new(),
                handles: Atomic::new(0),
                revoke_work <- new_work!("address_space::revoke"),
                reap_work <- new_delayed_work!("address_space::reap"),
                expire_work <- new_delayed_work!("address_space::expire"),
                arenas <- Arenas::new(arena),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The last file is gone, and with it the last attachment.
    fn close(self: &Arc<Self>) {
        self.finish_deferred();
        self.install.write().closed = true;
        // The delayed work would outlive the module, which only open files pin.
        workers::cancel_delayed::<_, REAP>(self);
        workers::cancel_delayed::<_, EXPIRE>(self);
        // Notifiers are only ended with no lock held that their callbacks, or a task that waits
        // for those, might want.
        let segments = self.ops.lock().take_all();
        for segment in segments.iter().flat_map(SegmentList::iter) {
            if segment.is_lent() {
                // A worker waits for the lender, if need be; its memory is let go of here.
                self.drop_all_frames(segment);
                segment.ending.store(true, Relaxed);
                segment.have_attended();
                continue;
            }
            segment.end(|| self.install.write());
        }
        // Segments refer to the space, so all references to them are dropped here, with no lock
        // held, and none is left behind in it.
        let mut shown = self.install.write();
        let empty = Layout::new(self.pages, 0);
        let layout = core::mem::replace(&mut shown.layout, empty);
        let deferred = core::mem::replace(&mut shown.deferred, List::new());
        drop(shown);
        drop((layout, deferred));
    }

    /// Waits for what was deferred to the worker, which must still find the segments listed. With
    /// the attachments gone nothing more is deferred.
    fn finish_deferred(self: &Arc<Self>) {
        if self.install.read().deferred.is_empty() {
            return;
        }
        self.queue_revoking();
        workers::flush::<_, REVOKE>(self);
    }

    /// Has the worker drain what was deferred.
    pub(crate) fn queue_revoking(self: &Arc<Self>) {
        // An error says that it is queued already.
        let _ = workers::queue().enqueue::<Arc<Space>, REVOKE>(self.clone());
    }
}

/// The right to use a space, owned by each file that is open on it.
///
/// # Invariants
///
/// Counted in the space's `handles`.
pub(crate) struct Handle(Arc<Space>);

impl Handle {
    /// A new space and the first handle to it. Errors as for making an mm.
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

/// Bytes that a number of pages takes, or where the page of that number begins.
pub(crate) const fn bytes(pages: u64) -> u64 {
    pages << PAGE_SHIFT
}
