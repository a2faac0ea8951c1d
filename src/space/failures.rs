// SPDX-License-Identifier: GPL-2.0

//! Errors of waits, kept for the next try of a fault.
//!
//! A fault that must wait lets its lock go, and can then return nothing but "try
//! again". Where the wait ended in an error, that is kept here, from the try that
//! waited to the next one of the same task.
//!
//! A spinlock of its own, under which nothing else is taken.

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

/// How many failures are remembered.
const FAILURES: usize = 16;

/// The errors; see the top of the file.
#[pin_data]
pub(crate) struct Failures {
    #[pin]
    inner: SpinLock<Remembered>,
}

struct Remembered {
    failures: [Option<Failure>; FAILURES],
    /// Where in the space a hole was last met.
    hole: Option<u64>,
}

struct Failure {
    /// Who waited; compared, never followed.
    task: usize,
    what: Waited,
    error: Error,
    since: Instant<Monotonic>,
}

/// What was waited for: a page of a segment, and whether it was to be written.
///
/// Not a page of the space: that may show another segment when the task comes back,
/// and what the one before could not give says nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waited {
    /// The segment's id.
    pub(crate) segment: u64,
    /// Page of it.
    pub(crate) page: usize,
    /// Whether it was to be written.
    pub(crate) write: bool,
}

impl Failures {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(Remembered {
                failures: [const { None }; FAILURES],
                hole: None,
            }),
        })
    }

    /// The place of the current task. Others may use the same: then one of them
    /// waits, fails and is remembered again.
    fn place() -> (usize, usize) {
        let task = Task::current_raw() as usize;
        // Tasks are large, so their low address bits tell them apart badly.
        (task, (task >> 12) % FAILURES)
    }

    /// Keeps an error of the current task's wait.
    pub(crate) fn put(&self, what: Waited, error: Error) {
        let (task, place) = Self::place();
        if let Some(slot) = self.inner.lock().failures.get_mut(place) {
            *slot = Some(Failure {
                task,
                what,
                error,
                since: Instant::now(),
            });
        }
    }

    /// The error of the current task's wait, which is forgotten then.
    pub(crate) fn take(&self, what: Waited) -> Option<Error> {
        let error = self.peek(what)?;
        if let Some(slot) = self.inner.lock().failures.get_mut(Self::place().1) {
            *slot = None;
        }
        Some(error)
    }

    /// The error of the current task's wait.
    pub(crate) fn peek(&self, what: Waited) -> Option<Error> {
        let (task, place) = Self::place();
        let inner = self.inner.lock();
        let failure = inner.failures.get(place)?.as_ref()?;
        (failure.task == task
            && failure.what == what
            // What nobody came back for soon need not be true any more.
            && failure.since.elapsed() < Delta::from_secs(1))
        .then_some(failure.error)
    }

    /// A hole was met.
    pub(crate) fn note_hole(&self, page: u64) {
        self.inner.lock().hole = Some(page);
    }

    /// The page at which a hole was last met.
    pub(crate) fn last_hole(&self) -> Option<u64> {
        self.inner.lock().hole
    }
}
