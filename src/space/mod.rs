// SPDX-License-Identifier: GPL-2.0

//! The address space: the object behind an asfd and its views.
//!
//! It owns the arena, the segments, and the layout that attachments and VMs are
//! shown. `segments.rs` keeps the segments, `change.rs` changes the layout.
//!
//! # Lock order
//!
//! Outer first. Nothing is waited for while a lock further down is held.
//!
//! 1. `ops`, a mutex: one change of the layout at a time, from the check to the
//!    end of the zap. Also taken by the worker, never by a fault or a notifier.
//! 2. An attached process's mmap lock, which a fault comes with; populating only
//!    tries it, with nothing held.
//! 3. The asfd inode's `i_mmap_rwsem` (see `mapping.rs`): the kernel takes it under
//!    2; the module waits for it under `ops` only, with neither 2 nor 4, and
//!    elsewhere, above all inside another file's, only tries it.
//! 4. The arena's mmap lock, and whatever a file takes under it: under 2 it is only
//!    tried.
//! 5. `install` (see `install.rs`): held for moments; nothing is allocated and
//!    nothing slept for under it, but page table locks are taken.
//!
//! A notifier is called under 4 or under a file's own locks and takes 5, and tries
//! 3. The layout is read under `install` held shared, or under `ops`, and changed
//! under both, `install` exclusively.

pub(crate) mod batch;
pub(crate) mod change;
pub(crate) mod failures;
pub(crate) mod readahead;
pub(crate) mod resolve;
pub(crate) mod revoke;
pub(crate) mod segments;

use core::ops::Range;

use kernel::{
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
    call::kvm::Slots,
    layout::{
        self,
        Layout, //
    },
    segment::{
        arena::Arena,
        invalidation::Stale,
        list::Listed,
        Segment, //
    },
    space::{
        failures::Failures,
        readahead::Streaks,
        segments::Ops, //
    },
    sys::{
        bindings,
        mapping::Mapping,
        rwsem::InstallLock,
        workers, //
    },
};

/// The work item that revokes what the notifier could not.
pub(crate) const REVOKE: u64 = 1;
/// The work item that unmaps segments which nothing shows.
pub(crate) const REAP: u64 = 2;

/// Memory of the layout, accounted to whom the task charges at the moment.
pub(crate) struct Kernel;

impl layout::Store for Kernel {
    type Segment = Arc<Segment>;
    type Chunk = KBox<layout::Chunk<Arc<Segment>>>;
    type Directory = KVVec<Self::Chunk>;
    type Error = Error;

    fn chunk() -> Result<Self::Chunk> {
        KBox::init(
            pin_init::init_array_from_fn(|_| layout::Node::vacant()),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn directory(slots: usize) -> Result<Self::Directory> {
        Ok(KVVec::with_capacity(slots, GFP_KERNEL_ACCOUNT)?)
    }

    fn slots(directory: &Self::Directory) -> usize {
        directory.capacity()
    }

    fn push(directory: &mut Self::Directory, chunk: Self::Chunk) {
        // By our caller there is room.
        let _ = directory.push_within_capacity(chunk);
    }

    fn pop(directory: &mut Self::Directory) -> Option<Self::Chunk> {
        directory.pop()
    }
}

/// What the install lock guards.
pub(crate) struct Shown {
    pub(crate) layout: Layout<Kernel>,
    /// What is being revoked behind the owner's back.
    pub(crate) stale: Stale,
    /// Where the owner has removed something that may not be zapped yet; empty where
    /// nothing. Nothing is installed there meanwhile, or an attacher could meet the
    /// new in one place and after that the old in another.
    pub(crate) zapping: Range<u64>,
    /// Whether no file of the space is open any more.
    pub(crate) closed: bool,
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
    /// How many pages a fault enters.
    pub(crate) streaks: Streaks,
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
                ops <- new_mutex!(Ops::new(), "Space::ops"),
                install <- InstallLock::new(Shown {
                    layout,
                    stale: Stale::new(),
                    zapping: 0..0,
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
                streaks: Streaks::new(),
                slots <- Slots::new(),
                handles: Atomic::new(0),
                revoke_work <- new_work!("address_space::revoke"),
                reap_work <- new_delayed_work!("address_space::reap"),
                arena,
            }),
            GFP_KERNEL_ACCOUNT,
        )
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

    /// The last file is gone, and with it the last attachment.
    fn close(self: &Arc<Self>) {
        self.finish_revoking();
        self.install.write().closed = true;
        self.cancel_reaping();
        // Notifiers are only ended with no lock held that their callbacks, or who
        // waits for those, might want.
        let segments = self.ops.lock().take_all();
        for segment in segments.iter().flat_map(Listed::iter) {
            segment.end(self);
        }
        // The layout's references are the last ones now.
    }

    /// Waits for what was left to the worker: it is to know the segments still. With
    /// the attachments gone nothing more is left to it.
    fn finish_revoking(self: &Arc<Self>) {
        if self.install.read().stale.task().is_none() {
            return;
        }
        // An error says that it is queued already.
        let _ = workers::queue().enqueue::<Arc<Space>, REVOKE>(self.clone());
        // SAFETY: The field is an initialised work item in pinned memory, and no lock is
        // held that it takes.
        unsafe { bindings::flush_work(Work::raw_get(&raw const self.revoke_work)) };
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
