// SPDX-License-Identifier: GPL-2.0

//! The module's work queue, and how to end work on it.
//!
//! A queue of its own, so that unloading the module waits for what runs on it; with a rescuer,
//! since reclaim may depend on a revocation; and unbound, so that a job stuck on a slow file
//! holds up no other.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::null_mut;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        Arc, //
    },
    workqueue::{
        HasDelayedWork,
        HasWork,
        Queue,
        Work,
        WorkItem, //
    },
};

use crate::sys::{
    bindings,
    safe_fns, //
};

static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(null_mut());

/// The queue, for as long as the module is loaded.
///
/// # Invariants
///
/// While this lives [`QUEUE`] points at a work queue.
pub(crate) struct Workers(());

impl Workers {
    /// Makes the queue. To be called once, when the module is loaded. `ENOMEM`.
    pub(crate) fn start() -> Result<Workers> {
        let queue = safe_fns::address_space_helper_alloc_workqueue();
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
        // SAFETY: The queue was made in `start`. No file of the module is open any more, so
        // nothing is queued from here on; what is queued is run.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// The queue. For code that runs on behalf of an open file or of the queue itself, which cannot
/// be gone then.
pub(crate) fn queue() -> &'static Queue {
    // SAFETY: An open file pins the module, a running work item the queue; either way
    // `Workers` lives.
    unsafe { Queue::from_raw(QUEUE.load(Acquire)) }
}

/// Waits until a work item that may be queued has run. No lock that the item takes may be held.
pub(crate) fn flush<T, const ID: u64>(item: &Arc<T>)
where
    T: HasWork<T, ID>,
{
    // SAFETY: The item is valid and its work initialised and pinned, as all in an `Arc` is that
    // was made by its pin-initialiser.
    unsafe { bindings::flush_work(Work::raw_get(T::raw_get_work(Arc::as_ptr(item).cast_mut()))) };
}

/// Makes sure that a delayed work item neither runs nor will, and drops the reference that the
/// queue had. No lock that the item takes may be held.
pub(crate) fn cancel_delayed<T, const ID: u64>(item: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: As in `flush`; `HasDelayedWork` promises that the work is that of a `delayed_work`.
    // If it was pending, queueing had turned a reference into it, which nothing will turn back now.
    unsafe {
        let work = Work::raw_get(T::raw_get_work(Arc::as_ptr(item).cast_mut()));
        let delayed = kernel::container_of!(work, bindings::delayed_work, work);
        if bindings::cancel_delayed_work_sync(delayed) {
            drop(Arc::from_raw(Arc::as_ptr(item)));
        }
    }
}
