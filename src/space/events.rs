// SPDX-License-Identifier: GPL-2.0

//! What is told of refused accesses: events, and the queue in which they wait to be read. Pure
//! data, whose lock is that of `watch.rs`.

use kernel::prelude::*;

use crate::{
    layout::{
        Prot,
        SpacePage, //
    },
    space::policy::Refusal,
};

/// How many events are kept.
pub(crate) const KEPT: usize = 256;

/// What an event tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A task waits for the page to be changed.
    Waits,
    /// An access was refused.
    Refused(Refusal),
    /// So many events were not kept.
    Lost(u64),
}

/// An event.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) what: What,
    /// The page of the space that was accessed, and how.
    pub(crate) page: SpacePage,
    pub(crate) access: Prot,
    /// The task, as its own PID namespace numbers it.
    pub(crate) tid: u32,
    /// The file through which it was: see [`Terms::id`](crate::space::terms::Terms::id).
    pub(crate) view: u64,
    /// Whose share of the queue it takes: see [`Terms`](crate::space::terms::Terms).
    pub(crate) share_of: u64,
}

impl Event {
    /// That events were not kept.
    fn lost(count: u64) -> Self {
        Event {
            what: What::Lost(count),
            page: SpacePage::FIRST,
            access: Prot::NONE,
            tid: 0,
            view: 0,
            share_of: 0,
        }
    }
}

/// Events that have not been read.
///
/// One view, with those that were made through it, cannot keep those of others out: it has a place
/// only as long as it has fewer than are free. So of `n` views that tell as much as they can each
/// has a share of `n + 1`, and as much is free for the next.
pub(super) struct Queue {
    /// A ring, all of it there.
    ring: KVec<Option<Event>>,
    /// Where the oldest is, and how many there are.
    first: usize,
    len: usize,
    /// How many found no place.
    lost: u64,
}

impl Queue {
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Queue {
            ring: KVec::from_elem(None, KEPT, GFP_KERNEL_ACCOUNT)?,
            first: 0,
            len: 0,
            lost: 0,
        })
    }

    /// Whether there is anything to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.lost == 0
    }

    /// Adds an event, or counts it as lost.
    pub(super) fn push(&mut self, event: Event) {
        let same = |kept: &&Event| kept.share_of == event.share_of;
        let own = self.ring.iter().flatten().filter(same).count();
        let place = (self.first + self.len) % KEPT;
        match self.ring.get_mut(place) {
            Some(place) if own < KEPT - self.len => {
                *place = Some(event);
                self.len += 1;
            }
            _ => self.lost += 1,
        }
    }

    /// The oldest event; those that were lost come after all that were not.
    pub(super) fn pop(&mut self) -> Option<Event> {
        if self.len == 0 {
            let lost = core::mem::take(&mut self.lost);
            return (lost != 0).then(|| Event::lost(lost));
        }
        let event = self.ring.get_mut(self.first)?.take();
        self.first = (self.first + 1) % KEPT;
        self.len -= 1;
        event
    }

    /// Takes back what could not be told: an event has lost its place.
    pub(super) fn put_back(&mut self, event: Event) {
        self.lost += match event.what {
            What::Lost(count) => count,
            _ => 1,
        };
    }
}
