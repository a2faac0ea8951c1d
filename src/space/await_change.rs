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
    sync::atomic::ordering::*,
    time::Instant, //
};

use crate::{
    space::{
        events::Event,
        failures::Awaited,
        policy::Refusal,
        resolve::lookup,
        watch::Wait,
        Space, //
    },
    sys::wait::{
        self,
        Slept, //
    },
};

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
            id,
            event,
            place,
            untold,
            refusal,
            patient,
        } = wait;
        let key = (event.page, id);
        // What an earlier wait of the task has come to is not what this one does.
        let _ = self.failures.take(Awaited::Change(event.page));
        let mut inner = self.watch.inner.lock();
        let Some(watcher) = inner
            .watcher
            .as_mut()
            .filter(|watcher| watcher.refusal(event.page).is_none())
        else {
            return;
        };
        let until = watcher.timeout.map(|timeout| Instant::now() + timeout);
        watcher.untold.insert(untold);
        watcher.reader().changed.notify_all();
        inner.waiters.insert(place);
        self.watch.waiting.fetch_add(1, Relaxed);
        drop(inner);

        if self.is_still_refused(&event, refusal) {
            match wait::sleep(|| !self.watch.is_listed(&key), until, patient) {
                Slept::Done => return,
                Slept::Signal => (),
                // Told to the fault when it is tried again.
                Slept::TimedOut => {
                    let refusal = Refusal::TimedOut;
                    self.failures.put(Awaited::Change(event.page), refusal);
                }
            }
        }
        self.watch.remove(key);
    }
}
