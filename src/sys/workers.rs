// SPDX-License-Identifier: GPL-2.0

//! The module's work queues, and how to end work on them.
//!
//! Queues of its own, so that unloading the module waits for what runs on them; with a rescuer
//! each, since reclaim may depend on a revocation; and unbound, so that a job that takes its time
//! holds up no other. Three, since the kernel runs so many jobs of a queue at a time and no more:
//! what may wait for a file must keep neither revocations nor the mapping of other files from
//! running.
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

type Pointer = Atomic<*mut bindings::workqueue_struct>;

static QUEUES: [Pointer; 3] = [const { Atomic::new(null_mut()) }; 3];

/// The queues, for as long as the module is loaded.
///
/// # Invariants
///
/// While this lives [`QUEUES`] point at work queues.
pub(crate) struct Workers(());

impl Workers {
    /// Makes the queues. To be called once, when the module is loaded. `ENOMEM`.
    pub(crate) fn start() -> Result<Workers> {
        let names = [
            c"address_space",
            c"address_space_files",
            c"address_space_jobs",
        ];
        // INVARIANT: Set below, or it is dropped at once; unset only in drop.
        let workers = Workers(());
        for (queue, name) in QUEUES.iter().zip(names) {
            let made = safe_fns::address_space_helper_alloc_workqueue(name);
            if made.is_null() {
                return Err(ENOMEM);
            }
            queue.store(made, Release);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Work may queue more of it on its own queue, and on those before it in the list: of an
        // arena that is about to go, what clears it on what takes down its files, and what waits
        // for a file on what revokes. None does the other way round.
        for place in QUEUES.iter().rev() {
            let queue = place.load(Acquire);
            if !queue.is_null() {
                // SAFETY: The queue was made in `start`. No file of the module is open any more,
                // so nothing is queued from here on; what is queued is run.
                unsafe { bindings::destroy_workqueue(queue) };
                place.store(null_mut(), Release);
            }
        }
    }
}

/// The queue for what waits for no file. For code that runs on behalf of an open file or of a queue
/// itself, which cannot be gone then.
pub(crate) fn queue() -> &'static Queue {
    get(&QUEUES[0])
}

/// The queue for what maps and unmaps files that need not be waited for.
pub(crate) fn jobs() -> &'static Queue {
    get(&QUEUES[2])
}

/// The queue for what may wait for as long as a file takes.
pub(crate) fn files() -> &'static Queue {
    get(&QUEUES[1])
}

fn get(queue: &Pointer) -> &'static Queue {
    // SAFETY: An open file pins the module, a running work item the queue; either way
    // `Workers` lives.
    unsafe { Queue::from_raw(queue.load(Acquire)) }
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
