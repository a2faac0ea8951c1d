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
        Delta, //
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

/// Waits until `ready` makes something of what the mutex guards; `changed` must be notified of
/// every change of that. `EINTR`: a fatal signal came.
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
