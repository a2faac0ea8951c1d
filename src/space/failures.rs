// SPDX-License-Identifier: GPL-2.0

//! What waits came to, kept for the next try of a fault.
//!
//! A fault that must wait releases its lock, and can then return nothing but "try again". Where the
//! wait came to nothing, the reason is kept here, from the try that waited to the next one of the
//! same task.
//!
//! Locks: a spinlock, under which nothing else is acquired.

use kernel::{
    prelude::*,
    sync::{
        new_spinlock,
        SpinLock, //
    },
    task::Task,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::{
    layout::{
        SegmentPage,
        SpacePage, //
    },
    space::policy::Refusal,
};

/// How many failures are remembered.
const FAILURES: usize = 16;

/// The errors; see the top of the file.
#[pin_data]
pub(crate) struct Failures {
    #[pin]
    failures: SpinLock<[Option<Failure>; FAILURES]>,
}

struct Failure {
    /// The task that waited; compared, never followed.
    task: usize,
    what: Awaited,
    /// Why the access is refused.
    refusal: Refusal,
    since: Instant<Monotonic>,
}

/// What was waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    Page(Waited),
    /// That the owner changes a page of the space.
    Change(SpacePage),
}

impl From<Waited> for Awaited {
    fn from(page: Waited) -> Self {
        Awaited::Page(page)
    }
}

/// A page that was waited for: a page of a segment, and whether it was to be written.
///
/// Not a page of the space: that may show another segment when the task comes back, and what the
/// one before could not give says nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waited {
    /// The segment's id.
    pub(crate) segment: u64,
    /// Page of it.
    pub(crate) page: SegmentPage,
    /// Whether it was to be written.
    pub(crate) write: bool,
}

impl Failures {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            failures <- new_spinlock!([const { None }; FAILURES]),
        })
    }

    /// Where the current task's failure is kept. Other tasks may use the same place: then one of
    /// them waits, fails and is remembered again.
    fn index() -> (usize, usize) {
        let task = Task::current_raw() as usize;
        // Tasks are large, so their low address bits hardly differ.
        (task, (task >> 12) % FAILURES)
    }

    /// Keeps what the current task's wait came to.
    pub(crate) fn put(&self, what: impl Into<Awaited>, refusal: Refusal) {
        let (task, index) = Self::index();
        if let Some(place) = self.failures.lock().get_mut(index) {
            *place = Some(Failure {
                task,
                what: what.into(),
                refusal,
                since: Instant::now(),
            });
        }
    }

    /// What the current task's wait came to, which is forgotten then.
    pub(crate) fn take(&self, what: impl Into<Awaited>) -> Option<Refusal> {
        let refusal = self.peek(what.into())?;
        if let Some(place) = self.failures.lock().get_mut(Self::index().1) {
            *place = None;
        }
        Some(refusal)
    }

    /// What the current task's wait came to.
    pub(crate) fn peek(&self, what: impl Into<Awaited>) -> Option<Refusal> {
        let what = what.into();
        let (task, index) = Self::index();
        let failures = self.failures.lock();
        let failure = failures.get(index)?.as_ref()?;
        (failure.task == task
            && failure.what == what
            // What the task did not come back for soon need not be true any more.
            && failure.since.elapsed() < Delta::from_secs(1))
        .then_some(failure.refusal)
    }
}
