// SPDX-License-Identifier: GPL-2.0

//! The work queue of the module: arena jobs, and revocations that the notifier
//! could not finish.
//!
//! A queue of its own, so that unloading the module waits for what runs on it;
//! with a rescuer, since reclaim may depend on a revocation; and unbound, so that
//! a job stuck on a slow file holds up no other.

use core::ptr::null_mut;

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
    workqueue::Queue, //
};

use crate::sys::bindings;

static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(null_mut());

/// The queue, for as long as the module is loaded.
///
/// # Invariants
///
/// While this lives [`QUEUE`] points at a work queue.
pub(crate) struct Workers(());

impl Workers {
    /// Makes the queue. To be called once, when the module is loaded.
    pub(crate) fn start() -> Result<Workers> {
        // SAFETY: The name is a C string, and copied.
        let queue = unsafe {
            bindings::address_space_helper_alloc_workqueue(c"address_space".as_char_ptr())
        };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Set here and unset only in drop.
        QUEUE.store(queue, Release);
        Ok(Workers(()))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let queue = QUEUE.xchg(null_mut(), Full);
        // SAFETY: The queue was made in `start`. No file of the module is open
        // any more, so nothing is queued from here on; what is queued is run.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// The queue. For code that runs on behalf of an open file or of the queue
/// itself, which cannot be gone then.
pub(crate) fn queue() -> &'static Queue {
    // SAFETY: An open file pins the module, a running work item the queue; either
    // way `Workers` lives.
    unsafe { Queue::from_raw(QUEUE.load(Acquire)) }
}
