// SPDX-License-Identifier: GPL-2.0

//! Waiting that a fatal signal ends, which the kernel crate's condition variables do not know.
//!
//! Locks: the mutex of what is waited for.

use kernel::{
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::sys::safe_fns;

/// How long to sleep at a time with a signal pending that is none to die of: the condition
/// variable would not sleep at all then.
const NAP: Delta = Delta::from_millis(1);

/// Whether a fatal signal has come for the current task, so that a call that takes long is to end.
pub(crate) fn is_killed() -> bool {
    safe_fns::address_space_helper_fatal_signal_pending()
}

/// Sleeps for a moment, before another look. `EINTR`: a fatal signal came.
pub(crate) fn nap(moment: Delta) -> Result {
    if is_killed() {
        return Err(EINTR);
    }
    fsleep(moment);
    Ok(())
}

/// How a sleep has ended.
pub(crate) enum Slept {
    /// What was waited for has come.
    Done,
    Signal,
    TimedOut,
}

/// Sleeps until `is_done`, or for as long as that may take; a signal ends it, if `killable` only a
/// fatal one. Whoever makes it so must wake the task afterwards. `is_done` may take spinlocks, and
/// nothing else.
pub(crate) fn sleep(
    mut is_done: impl FnMut() -> bool,
    until: Option<Instant<Monotonic>>,
    killable: bool,
) -> Slept {
    loop {
        // From here on a wake is not lost: the task does not sleep then.
        safe_fns::address_space_helper_prepare_sleep(killable);
        let left = until.map(|until| until - Instant::now());
        let end = if is_done() {
            Some(Slept::Done)
        } else if is_killed() || !killable && current!().signal_pending() {
            Some(Slept::Signal)
        } else if left.is_some_and(|left| left.as_nanos() <= 0) {
            Some(Slept::TimedOut)
        } else {
            None
        };
        if let Some(end) = end {
            safe_fns::address_space_helper_finish_sleep();
            return end;
        }
        let jiffies = left.map_or(c_long::MAX, |left| {
            let left = left.as_millis().clamp(0, i64::from(u32::MAX)) as c_uint;
            (msecs_to_jiffies(left) as c_long).max(1)
        });
        safe_fns::schedule_timeout(jiffies);
    }
}

/// Waits until `ready` makes something of what the mutex guards; `changed` must be notified of
/// every change of that. `EINTR`: a fatal signal came; where one of several who wait is notified,
/// it may have been this one, which is to notify the next then.
pub(crate) fn wait_killable<T: Unpin, R>(
    mutex: &Mutex<T>,
    changed: &CondVar,
    mut ready: impl FnMut(&mut T) -> Option<R>,
) -> Result<R> {
    loop {
        let mut guard = mutex.lock();
        if let Some(result) = ready(&mut guard) {
            return Ok(result);
        }
        if !changed.wait_interruptible(&mut guard) {
            continue;
        }
        drop(guard);
        nap(NAP)?;
    }
}
