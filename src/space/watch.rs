// SPDX-License-Identifier: GPL-2.0

//! Watching: the list of tasks that wait at a hole until the owner has mapped something there, and
//! the reader of events, who is told of them.
//!
//! How a task waits is in `await_change.rs`.
//!
//! Only what is watched is waited for: as long as there is an events file, in its range, where it
//! has not poisoned the pages. Else the access is refused.
//!
//! What a task that waits needs is allocated beforehand, and charged to it: its place in the list,
//! and one among those that have not been told of. So there is no limit beyond which that would be
//! lost. Whoever reads of a task takes it out from among those, so nobody else does.
//!
//! Locks: a spinlock, inside which that of the reader's wait queue is acquired. It is acquired with
//! none of the module's locks held but `ops`. However many tasks wait, it is held for a few of them
//! at a time.

use core::ops::Range;

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        aref::ARef,
        atomic::{
            ordering::*,
            Atomic, //
        },
        new_spinlock,
        poll::PollCondVar,
        Arc,
        SpinLock, //
    },
    task::Task,
    time::Delta,
};

use crate::{
    layout::{
        FewRanges,
        RangeSet,
        SpacePage, //
    },
    space::{
        events::{
            Event,
            Queue, //
        },
        policy::Refusal, //
    },
    sys::peek::peek,
};

/// How many ranges can be poisoned.
pub(crate) const POISONED: usize = 64;

/// How many tasks are woken in one hold of the lock.
const WOKEN: usize = 16;

/// The tasks that wait at pages of a space, and who is told.
#[pin_data]
pub(crate) struct Watch {
    /// How many tasks wait. Changed with the lock held.
    pub(super) waiting: Atomic<usize>,
    /// Whether there is a watcher. Changed with the lock held.
    watched: Atomic<bool>,
    /// The number of the last wait.
    last: Atomic<u64>,
    #[pin]
    pub(super) inner: SpinLock<Inner>,
}

/// Where a waiting task is found: the page, and the number of its wait.
pub(super) type Key = (SpacePage, u64);

pub(super) struct Inner {
    pub(super) watcher: Option<KBox<Watcher>>,
    /// The tasks that wait. One that is not there any more has been woken.
    pub(super) waiters: RBTree<Key, Waiter>,
}

/// What an events file has.
pub(crate) struct Watcher {
    pages: Range<SpacePage>,
    /// After which a task waits no longer.
    pub(super) timeout: Option<Delta>,
    reader: Arc<Reader>,
    /// The tasks that wait and have not been told of, by the numbers of their waits: at which page
    /// each does.
    pub(super) untold: RBTree<u64, SpacePage>,
    queue: Queue,
    /// Whether the queue is next, after a wait: so that neither holds the other back.
    queue_is_next: bool,
    poisoned: RangeSet<POISONED>,
}

/// Who reads the events.
#[pin_data]
pub(crate) struct Reader {
    /// Notified when there is something to read.
    #[pin]
    pub(crate) changed: PollCondVar,
}

/// A task that waits.
pub(super) struct Waiter {
    event: Event,
    task: ARef<Task>,
}

/// A wait that is about to begin, with all that it needs.
pub(crate) struct Wait {
    /// Its number.
    pub(super) id: u64,
    pub(super) event: Event,
    pub(super) place: RBTreeNode<Key, Waiter>,
    pub(super) untold: RBTreeNode<u64, SpacePage>,
    pub(super) refusal: Refusal,
    /// Whether no signal but a fatal one ends it.
    pub(super) patient: bool,
}

impl Watcher {
    /// A watcher of `pages`. `ENOMEM`.
    pub(crate) fn new(pages: Range<SpacePage>, timeout: Option<Delta>) -> Result<KBox<Self>> {
        let reader = Arc::pin_init(
            pin_init!(Reader {
                changed <- kernel::new_poll_condvar!("address_space::events"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let watcher = Watcher {
            pages,
            timeout,
            reader,
            untold: RBTree::new(),
            queue: Queue::new()?,
            queue_is_next: false,
            poisoned: RangeSet::none(),
        };
        Ok(KBox::new(watcher, GFP_KERNEL_ACCOUNT)?)
    }

    /// Its reader.
    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Why nobody can wait for a page.
    pub(super) fn refusal(&self, page: SpacePage) -> Option<Refusal> {
        if !self.pages.contains(&page) {
            return Some(Refusal::Hole);
        }
        let poisoned = self.poisoned.overlaps(&(page..page + 1));
        poisoned.then_some(Refusal::Poisoned)
    }

    fn has_something(&self) -> bool {
        !self.untold.is_empty() || !self.queue.is_empty()
    }
}

/// What is to be told next.
pub(crate) struct Next {
    pub(crate) event: Event,
    /// The wait that it tells of, with its place among the untold ones.
    wait: Option<(Key, RBTreeNode<u64, SpacePage>)>,
}

impl Wait {
    /// A wait of the current task for what `event` tells to change. `ENOMEM`.
    pub(crate) fn new(
        watch: &Watch,
        event: Event,
        refusal: Refusal,
        patient: bool,
    ) -> Result<Self> {
        let id = watch.last.fetch_add(1, Relaxed);
        let task = ARef::from(&**current!());
        let waiter = Waiter { event, task };
        Ok(Wait {
            place: RBTreeNode::new((event.page, id), waiter, GFP_KERNEL_ACCOUNT)?,
            untold: RBTreeNode::new(id, event.page, GFP_KERNEL_ACCOUNT)?,
            id,
            event,
            refusal,
            patient,
        })
    }
}

impl Inner {
    /// Takes a waiting task off the list; says whether it was there.
    fn remove(&mut self, key: Key) -> Option<Waiter> {
        let waiter = self.waiters.remove(&key)?;
        if let Some(watcher) = &mut self.watcher {
            watcher.untold.remove(&key.1);
        }
        Some(waiter)
    }

    /// The first task from `from` on that waits at a page before `end`.
    fn first(&self, from: Key, end: SpacePage) -> Option<Key> {
        let cursor = self.waiters.cursor_lower_bound(&from)?;
        let (key, _) = cursor.current();
        (key.0 < end).then_some(*key)
    }
}

impl Watch {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            waiting: Atomic::new(0),
            watched: Atomic::new(false),
            last: Atomic::new(0),
            inner <- new_spinlock!(Inner {
                watcher: None,
                waiters: RBTree::new(),
            }, "Watch"),
        })
    }

    /// Whether anybody watches, without whom nobody waits.
    pub(super) fn is_watched(&self) -> bool {
        peek(&self.watched)
    }

    /// How many tasks wait.
    pub(crate) fn waiting(&self) -> usize {
        peek(&self.waiting)
    }

    /// Why nobody can wait for a page now; [`None`] if one can.
    pub(crate) fn refusal(&self, page: SpacePage) -> Option<Refusal> {
        if !peek(&self.watched) {
            return Some(Refusal::Hole);
        }
        match &self.inner.lock().watcher {
            Some(watcher) => watcher.refusal(page),
            None => Some(Refusal::Hole),
        }
    }

    /// Begins to watch. `EBUSY` where somebody does.
    pub(crate) fn begin(&self, watcher: KBox<Watcher>) -> Result {
        let mut inner = self.inner.lock();
        if inner.watcher.is_some() {
            drop(inner);
            return Err(EBUSY);
        }
        inner.watcher = Some(watcher);
        self.watched.store(true, Relaxed);
        Ok(())
    }

    /// Ends it: all tasks that wait find that nobody watches.
    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock();
        let watcher = inner.watcher.take();
        self.watched.store(false, Relaxed);
        drop(inner);
        self.wake_range(&(SpacePage::FIRST..SpacePage::END));
        drop(watcher);
    }

    /// Poisons pages: who waits there is refused, until they are mapped. `ENOENT` where nobody
    /// watches, `ENOSPC` for too many ranges.
    pub(crate) fn poison(&self, pages: &Range<SpacePage>) -> Result {
        let mut inner = self.inner.lock();
        let watcher = inner.watcher.as_mut().ok_or(ENOENT)?;
        if !watcher.poisoned.add(pages) {
            return Err(ENOSPC);
        }
        drop(inner);
        self.wake_range(pages);
        Ok(())
    }

    /// Whether any of these pages is poisoned.
    pub(super) fn is_poisoned(&self, pages: &Range<SpacePage>) -> bool {
        let inner = self.inner.lock();
        let watcher = inner.watcher.as_ref();
        watcher.is_some_and(|watcher| watcher.poisoned.overlaps(pages))
    }

    /// Ends that. `ENOENT` where nobody watches, `ENOSPC` where that would leave too many ranges:
    /// nothing is changed then.
    pub(crate) fn unpoison(&self, pages: &Range<SpacePage>) -> Result {
        if !peek(&self.watched) {
            return Err(ENOENT);
        }
        let mut inner = self.inner.lock();
        let watcher = inner.watcher.as_mut().ok_or(ENOENT)?;
        match watcher.poisoned.remove(pages) {
            true => Ok(()),
            false => Err(ENOSPC),
        }
    }

    /// Tells of a refused access.
    pub(crate) fn tell(&self, event: Event) {
        if !peek(&self.watched) {
            return;
        }
        if let Some(watcher) = &mut self.inner.lock().watcher {
            if watcher.pages.contains(&event.page) {
                watcher.queue.push(event);
                watcher.reader.changed.notify_all();
            }
        }
    }

    /// Pages have been changed, and what was there has been zapped: whoever waits there looks
    /// again.
    pub(super) fn wake(&self, pages: &FewRanges) {
        // Whoever has seen the layout as it was has counted itself before, under the install lock.
        if peek(&self.waiting) == 0 {
            return;
        }
        for pages in pages.iter() {
            self.wake_range(pages);
        }
    }

    /// Wakes the tasks that wait at any of `pages` by now. Not those that begin meanwhile, or who
    /// is woken only to wait again could keep this from ending: they see what has been changed.
    fn wake_range(&self, pages: &Range<SpacePage>) {
        let mut inner = self.inner.lock();
        // The numbers of all that are in the list are smaller.
        let begun = self.last.load(Relaxed);
        let mut from = (pages.start, 0);
        loop {
            for _ in 0..WOKEN {
                let Some(key) = inner.first(from, pages.end) else {
                    return;
                };
                if key.1 >= begun {
                    // So are all behind it at the page.
                    from = (key.0 + 1, 0);
                } else if let Some(waiter) = inner.remove(key) {
                    self.waiting.fetch_sub(1, Relaxed);
                    waiter.task.wake_up();
                }
            }
            drop(inner);
            inner = self.inner.lock();
        }
    }

    /// Whether a task is in the list: whoever takes it off wakes it.
    pub(super) fn is_listed(&self, key: &Key) -> bool {
        self.inner.lock().waiters.get(key).is_some()
    }

    /// Takes a task that waits no longer off the list.
    pub(super) fn remove(&self, key: Key) {
        let mut inner = self.inner.lock();
        if inner.remove(key).is_some() {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// What is to be told next to the reader: nobody else is told.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut inner = self.inner.lock();
        let Inner { watcher, waiters } = &mut *inner;
        let watcher = watcher.as_mut()?;
        if core::mem::take(&mut watcher.queue_is_next) {
            if let Some(event) = watcher.queue.pop() {
                return Some(Next { event, wait: None });
            }
        }
        while let Some(cursor) = watcher.untold.cursor_front_mut() {
            let (id, page) = cursor.current();
            let key = (*page, *id);
            let (_, place) = cursor.remove_current();
            if let Some(waiter) = waiters.get(&key) {
                watcher.queue_is_next = true;
                return Some(Next {
                    event: waiter.event,
                    wait: Some((key, place)),
                });
            }
        }
        let event = watcher.queue.pop()?;
        Some(Next { event, wait: None })
    }

    /// It has been told, or could not be: then another may be, as long as the task waits.
    pub(crate) fn end_telling(&self, next: Next, told: bool) {
        if told {
            return;
        }
        let mut inner = self.inner.lock();
        let Inner { watcher, waiters } = &mut *inner;
        let Some(watcher) = watcher else { return };
        match next.wait {
            Some((key, place)) if waiters.get(&key).is_some() => {
                watcher.untold.insert(place);
                watcher.reader.changed.notify_all();
            }
            Some(_) => (),
            None => watcher.queue.put_back(next.event),
        }
    }

    /// Whether there is something to be told.
    pub(crate) fn has_something(&self) -> bool {
        let inner = self.inner.lock();
        let watcher = inner.watcher.as_ref();
        watcher.is_some_and(|watcher| watcher.has_something())
    }

    /// Waits for that. `ERESTARTSYS`: a signal came.
    pub(crate) fn wait_for_something(&self, reader: &Reader) -> Result {
        let mut inner = self.inner.lock();
        loop {
            let watcher = inner.watcher.as_ref();
            if watcher.is_some_and(|watcher| watcher.has_something()) {
                return Ok(());
            }
            if reader.changed.wait_interruptible(&mut inner) {
                return Err(ERESTARTSYS);
            }
        }
    }
}
