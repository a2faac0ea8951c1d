// SPDX-License-Identifier: GPL-2.0

//! How a task waits at a hole until the owner has changed something there.
//!
//! A fault that waits has released its lock, and holds no other. It enters itself in the list
//! (`watch.rs`), looks at the layout once more, and sleeps. A change wakes the tasks that wait at
//! its pages after it has been made and zapped. So no wake is lost: a task that has not seen the
//! change was entered before it was made. What has been woken looks again, and may wait again.
//!
//! Locks: that of the list, and `install` for a moment, one after the other.

use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::*,
        CondVarTimeoutResult, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::{
    space::{
        events::Event,
        failures::Awaited,
        policy::Refusal,
        resolve::lookup,
        watch::{
            Wait,
            Waiter, //
        },
        Space, //
    },
    sys::wait::nap,
};

/// How long to sleep at a time with a signal pending that does not end the wait.
const NAP: Delta = Delta::from_millis(1);

/// How a wait has ended.
enum Ended {
    /// The task is to look again.
    Woken,
    /// It waits no longer for this time.
    Signalled,
    TimedOut,
}

impl Space {
    /// Whether an access that was refused still is; or a change is being made, which will wake
    /// whoever waits there, whatever it comes to.
    fn is_still_refused(&self, event: &Event, refusal: Refusal) -> bool {
        match lookup(&self.install.read(), event.page) {
            Err(_) => true,
            Ok(range) => refusal == Refusal::Denied && !range.prot.contains(event.access),
        }
    }

    /// Waits until the pages have been changed, or are no longer watched, or a signal comes: after
    /// all of which the access is to be tried again. No lock may be held.
    pub(crate) fn wait_for_change(&self, wait: Wait) {
        let Wait {
            waiter,
            place,
            untold,
            refusal,
            patient,
        } = wait;
        let page = waiter.event.page;
        // What an earlier wait of the task has come to is not what this one does.
        let _ = self.failures.take(Awaited::Change(page));
        let mut inner = self.watch.inner.lock();
        let Some(watcher) = inner
            .watcher
            .as_mut()
            .filter(|watcher| watcher.refusal(page).is_none())
        else {
            return;
        };
        let until = watcher.timeout.map(|timeout| Instant::now() + timeout);
        watcher.untold.insert(untold);
        watcher.reader().changed.notify_all();
        inner.waiters.insert(place);
        self.watch.waiting.fetch_add(1, Relaxed);
        drop(inner);

        if !self.is_still_refused(&waiter.event, refusal) {
            self.watch.remove(&waiter);
            return;
        }
        match self.sleep(&waiter, until, patient) {
            Ended::Woken => return,
            Ended::Signalled => (),
            // Told to the fault when it is tried again.
            Ended::TimedOut => self.failures.put(Awaited::Change(page), Refusal::TimedOut),
        }
        self.watch.remove(&waiter);
    }

    /// Sleeps until the task is taken off the list.
    fn sleep(&self, waiter: &Waiter, until: Option<Instant<Monotonic>>, patient: bool) -> Ended {
        let key = waiter.key();
        let mut inner = self.watch.inner.lock();
        while inner.waiters.get(&key).is_some() {
            let signal = match until {
                None => waiter.woken.wait_interruptible(&mut inner),
                Some(until) => {
                    let left = (until - Instant::now()).as_millis();
                    if left <= 0 {
                        return Ended::TimedOut;
                    }
                    let left = msecs_to_jiffies(left.min(i64::from(u32::MAX)) as c_uint);
                    let woken = &waiter.woken;
                    let end = woken.wait_interruptible_timeout(&mut inner, left.max(1));
                    matches!(end, CondVarTimeoutResult::Signal { .. })
                }
            };
            if !signal {
                continue;
            }
            drop(inner);
            if !patient || nap(NAP).is_err() {
                return Ended::Signalled;
            }
            inner = self.watch.inner.lock();
        }
        Ended::Woken
    }
}
