// SPDX-License-Identifier: GPL-2.0

//! Which tasks zap right now, so that a notifier that a task calls back because it zaps knows so.
//!
//! Zapping an attachment calls the notifiers of the mm that has it. One of those may be that of
//! memory which the mm lends, to the space that is zapped or to another. Were it to zap in turn, it
//! could be called back for that, and so on, until the stack is full.
//!
//! A task has nothing of its own to note this in. So there is a table of tasks, of which each uses
//! one cache line, or any where that is full. It takes no lock: a task writes its own entry, and
//! looks for no other.

use kernel::{
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
    task::Task,
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::sys::peek::peek;

/// Places of a line, and lines: so many tasks can zap at once.
const PLACES: usize = 8;
const LINES: usize = 1024;

/// How long a task sleeps that finds no place.
const PAUSE: Delta = Delta::from_micros(100);

/// A place: a task's address, or 0.
type Place = Atomic<usize>;

/// A cache line of places.
#[repr(align(64))]
struct Line([Place; PLACES]);

static TASKS: [Line; LINES] = [const { Line([const { Place::new(0) }; PLACES]) }; LINES];

/// How many tasks have a place in another line than their own.
static ELSEWHERE: Atomic<usize> = Atomic::new(0);

fn current() -> usize {
    Task::current_raw() as usize
}

/// The places of the lines, those of the task's own line first.
fn lines(task: usize) -> impl Iterator<Item = &'static [Place; PLACES]> {
    let mixed = (task as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let own = (mixed >> (u64::BITS - LINES.ilog2())) as usize;
    (own..own + LINES).filter_map(|index| TASKS.get(index % LINES).map(|line| &line.0))
}

/// Takes a place in a line, if one is free.
fn take(line: &'static [Place; PLACES], task: usize) -> Option<&'static Place> {
    line.iter()
        .find(|place| peek(*place) == 0 && place.cmpxchg(0, task, Relaxed).is_ok())
}

/// Runs `zap`, in which the current task zaps. May sleep.
#[inline]
pub(crate) fn run<R>(zap: impl FnOnce() -> R) -> R {
    let task = current();
    let own = lines(task).next().and_then(|line| take(line, task));
    let place = own.unwrap_or_else(|| take_elsewhere(task));
    let result = zap();
    place.store(0, Relaxed);
    if own.is_none() {
        ELSEWHERE.fetch_sub(1, Relaxed);
    }
    result
}

#[cold]
#[inline(never)]
fn take_elsewhere(task: usize) -> &'static Place {
    ELSEWHERE.fetch_add(1, Relaxed);
    loop {
        match lines(task).find_map(|line| take(line, task)) {
            Some(place) => return place,
            None => fsleep(PAUSE),
        }
    }
}

/// Whether the current task zaps.
pub(crate) fn current_is_zapping() -> bool {
    // What the task itself has written it sees, wherever it runs by now.
    let task = current();
    let looked_at = if peek(&ELSEWHERE) == 0 { 1 } else { LINES };
    lines(task)
        .take(looked_at)
        .flatten()
        .any(|place| peek(place) == task)
}
