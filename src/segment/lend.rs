// SPDX-License-Identifier: GPL-2.0

//! Memory that a process has lent: a range of its own mm, of which segments show what is mapped
//! there, whatever that is at the moment.
//!
//! The range is the mm's, and not a copy of what it maps: the VMA is looked up and checked at every
//! look and every fault (`sys/lent.c`). What can be shown is what the kernel maps anywhere, and has
//! unmapped when it goes: no device memory, and no attachment.
//!
//! Nothing here keeps the lender's memory. The mm_struct is held, and a user of it only for as long
//! as a look or a fault takes that waits for nobody: one that would have to gives up (at once, or
//! where userfaultfd is to serve it within moments), lets go of the user, and tries again. The
//! lender's end comes as the last event of its notifiers ([`Event::ends`](super::notifier::Event));
//! a worker then lets go of the mm_struct.
//!
//! What is brought into the lender's memory by others is charged to the lender, as if it had
//! touched it itself.
//!
//! Locks: the mutex of whoever takes it back, with no other lock held; the mutex of the segments,
//! under which a notifier is registered; that of those that are to be ended, and a spinlock around
//! the mm, inside which there is nothing. A fault waits for the lender's mmap lock, with no other
//! lock held, or else only tries it.

use kernel::{
    list::{
        List,
        ListArc, //
    },
    mm::{
        Mm,
        MmWithUser,
        MmWithUserAsync, //
    },
    page::PAGE_SIZE,
    prelude::*,
    rbtree::RBTree,
    sync::{
        aref::ARef,
        atomic::{
            ordering::*,
            Atomic, //
        },
        new_mutex,
        new_spinlock,
        Arc,
        Mutex,
        SpinLock, //
    },
    time::Delta,
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

use crate::{
    layout::{
        FilePage,
        Prot, //
    },
    segment::{
        notifier::Notifier,
        settled::Settled,
        Segment,
        ATTENDED, //
    },
    sys::{
        mm::{
            self,
            Locks,
            NoPage, //
        },
        wait::{
            is_killed,
            nap, //
        },
        workers, //
    },
};

/// How long to sleep before what could not be had at once is tried for again: at first, and at
/// most.
const NAP: Delta = Delta::from_micros(50);
const LONGEST_NAP_US: i64 = 10_000;

/// A range of a process's memory.
#[pin_data]
pub(crate) struct Lend {
    /// First address.
    addr: usize,
    pages: u64,
    prot: Prot,
    /// The mm, until its owner has ended, or nothing shows any more what was taken back.
    #[pin]
    mm: SpinLock<Option<ARef<Mm>>>,
    /// Of the notifiers there of its segments.
    settled: Settled,
    /// Whether it is being taken back, or was. Becomes true under the lock of the segments.
    taken_back: Atomic<bool>,
    /// Had by whoever takes it back.
    #[pin]
    taking: Mutex<()>,
    /// The segments that show some of it, by where they are.
    #[pin]
    segments: Mutex<RBTree<usize, Arc<Segment>>>,
    /// Those that are to be ended.
    #[pin]
    ending: Mutex<List<Segment, ATTENDED>>,
    #[pin]
    work: Work<Lend>,
}

impl_has_work! {
    impl HasWork<Self> for Lend { self.work }
}

impl Lend {
    /// `pages` pages from `addr` on of the calling task's memory, for `prot` at most. Takes its
    /// mmap lock. `ENOMEM`; `EINVAL` for a task without memory of its own.
    pub(crate) fn new(addr: usize, pages: u64, prot: Prot) -> Result<Arc<Lend>> {
        let current = current!();
        let mm: &MmWithUser = current.mm().ok_or(EINVAL)?;
        // Notifiers are registered by others, who must not have to wait for the mmap lock.
        mm::prepare_notifiers(mm)?;
        let mm: ARef<Mm> = ARef::from(&**mm);
        Arc::pin_init(
            pin_init!(Lend {
                addr,
                pages,
                prot,
                mm <- new_spinlock!(Some(mm), "Lend::mm"),
                settled: Settled::new(),
                taken_back: Atomic::new(false),
                taking <- new_mutex!((), "Lend::taking"),
                segments <- new_mutex!(RBTree::new(), "Lend::segments"),
                ending <- new_mutex!(List::new(), "Lend::ending"),
                work <- new_work!("address_space::Lend"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// First address.
    pub(crate) fn addr(&self) -> usize {
        self.addr
    }

    /// How many pages there are.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The most that may be done with it.
    pub(crate) fn prot(&self) -> Prot {
        self.prot
    }

    /// Where a page of it is in the lender's memory.
    pub(super) fn addr_of(&self, page: FilePage) -> usize {
        self.addr + page.get() as usize * PAGE_SIZE
    }

    /// The mm, which may have no users any more. [`None`] where it is no longer lent.
    fn mm(&self) -> Option<ARef<Mm>> {
        self.mm.lock().clone()
    }

    /// A user of the mm, for as long as it takes to do what waits for nobody. To let go of it may
    /// be to let go of all of the lender's memory, which is left to the kernel's worker.
    fn user(&self) -> Option<ARef<MmWithUserAsync>> {
        let user = self.mm.lock().as_ref()?.mmget_not_zero()?;
        Some(MmWithUser::into_mmput_async(user))
    }

    /// Whether it is the calling task's own memory, unless that is known to be lent no longer.
    pub(crate) fn is_callers(&self) -> bool {
        let current = current!();
        let lent = self.mm.lock();
        match (current.mm(), lent.as_ref()) {
            (Some(own), Some(lent)) => core::ptr::eq(own.as_raw(), lent.as_raw()),
            _ => false,
        }
    }

    /// Whether it is still lent.
    pub(crate) fn is_lent(&self) -> bool {
        !self.taken_back.load(Relaxed) && self.user().is_some()
    }

    /// Begins to watch for a segment of it. `ESRCH` where it is no longer lent, `ENOMEM`.
    pub(super) fn enter(&self, segment: &Arc<Segment>) -> Result {
        let mut segments = self.segments.lock();
        if self.taken_back.load(Relaxed) {
            return Err(ESRCH);
        }
        let user = self.user().ok_or(ESRCH)?;
        let (addr, length) = segment.area();
        let key = Arc::as_ptr(segment) as usize;
        segments.try_create_and_insert(key, segment.clone(), GFP_KERNEL_ACCOUNT)?;
        Notifier::insert(segment, &user, addr, length).inspect_err(|_| drop(segments.remove(&key)))
    }

    /// Forgets a segment, which has ended.
    pub(crate) fn leave(&self, segment: &Segment) {
        let removed = self
            .segments
            .lock()
            .remove(&(core::ptr::from_ref(segment) as usize));
        drop(removed);
    }

    /// Nothing shows any of it from here on, when this returns. No lock may be held.
    pub(crate) fn take_back(&self) {
        let taking = self.taking.lock();
        self.cut_off();
        drop(taking);
    }

    /// The same, by whoever has `taking`.
    fn cut_off(&self) {
        {
            let _segments = self.segments.lock();
            // No more of them from here on. The mm stays: what was written is written there.
            self.taken_back.store(true, Relaxed);
        }
        let mut next = 0;
        loop {
            let segment = {
                let segments = self.segments.lock();
                let cursor = segments.cursor_lower_bound(&next);
                cursor.map(|cursor| cursor.current().1.clone())
            };
            let Some(segment) = segment else { break };
            next = Arc::as_ptr(&segment) as usize + 1;
            segment.cut_off();
        }
        let mm = self.mm.lock().take();
        // With the lock released: it may be the last reference.
        drop(mm);
    }

    /// The mm has ended: has a worker let go of it. May be called in a notifier.
    pub(super) fn end_later(self: &Arc<Self>) {
        // An error says that it is queued already.
        let _ = workers::files().enqueue(self.clone());
    }

    /// Has a worker attend to the end of a segment. That waits for what the lender has under way,
    /// which keeps nothing waiting but the ends of other segments of it.
    pub(super) fn attend(self: &Arc<Self>, segment: &Arc<Segment>) {
        if let Ok(segment) = ListArc::try_from_arc(segment.clone()) {
            self.ending.lock().push_back(segment);
        }
        self.end_later();
    }

    /// Calls `look` with the mm and a user of it; [`None`] where it is no longer lent.
    pub(super) fn with_mm<R>(&self, look: impl FnOnce(&MmWithUser) -> R) -> Option<R> {
        Some(look(&*self.user()?))
    }

    /// Waits until nothing is under way that a segment of it was called back for. What it waits
    /// for is done by the kernel for the lender, and by nobody else; no lock should be held.
    pub(super) fn settle(&self, segment: &Segment) {
        if Notifier::begin(segment).is_none() {
            if let Some(mm) = self.mm() {
                Notifier::settle(segment, &mm);
            }
        }
    }

    /// What is known of the mm's notifiers.
    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Has the page at `addr` made present, writable if `write`; if locks may only be tried, gives
    /// up where it has to be waited for.
    pub(super) fn fault_in(&self, addr: usize, write: bool, locks: Locks) -> Result<(), NoPage> {
        let mut pause = NAP;
        loop {
            let mm = self.mm().ok_or(NoPage::Gone)?;
            match mm::fault_in_lent(&mm, addr, write, locks) {
                Err(NoPage::Busy) if locks == Locks::Wait => (),
                // Or whoever has it tried again, and may not release its own lock, would do so
                // for ever.
                Err(NoPage::Busy) if is_killed() => return Err(NoPage::Interrupted),
                done => return done,
            }
            // With no user of the mm: it takes as long as a disk, or as whoever serves the
            // lender's page faults.
            nap(pause).map_err(|_| NoPage::Interrupted)?;
            if current!().signal_pending() {
                return Err(NoPage::Interrupted);
            }
            pause = Delta::from_micros((2 * pause.as_micros_ceil()).min(LONGEST_NAP_US));
        }
    }
}

impl WorkItem for Lend {
    type Pointer = Arc<Lend>;

    fn run(lend: Arc<Lend>) {
        if !lend.is_lent() {
            // Somebody else who is at it needs no help: the mm is put by whoever began.
            if let Some(_taking) = lend.taking.try_lock() {
                lend.cut_off();
            }
        }
        loop {
            let Some(segment) = lend.ending.lock().pop_front() else {
                break;
            };
            segment.into_arc().attend();
        }
    }
}
