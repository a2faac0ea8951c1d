// SPDX-License-Identifier: GPL-2.0

//! Which tasks zap right now, so that a notifier that a task calls back because it zaps knows so.
//!
//! Zapping an attachment calls the notifiers of the mm that has it. One of those may be that of
//! memory which the mm lends, to the space that is zapped or to another. Were it to zap in turn, it
//! could be called back for that, and so on, until the stack is full.
//!
//! A task has nothing of its own to note this in. So there is a table of tasks. It takes no lock:
//! each task writes its own entry, and only looks for its own.

use kernel::{
    sync::atomic::{
        ordering::*,
        Atomic, //
    },
    task::Task, //
};

use crate::sys::peek::peek;

/// Places of a line, and lines.
const PLACES: usize = 8;
const LINES: usize = 128;

/// A cache line of places: a task's address, or 0.
#[repr(align(64))]
struct Line([Atomic<usize>; PLACES]);

/// A task's place is in the line that its address says, or, where that is full, in any.
static TASKS: [Line; LINES] = [const { Line([const { Atomic::new(0) }; PLACES]) }; LINES];

/// How many have a place in another line,
static ELSEWHERE: Atomic<usize> = Atomic::new(0);
/// and how many have none.
static NOWHERE: Atomic<usize> = Atomic::new(0);

/// A task that zaps, from its making on until it is dropped, by the same task.
pub(crate) struct Zapping {
    place: Option<&'static Atomic<usize>>,
    elsewhere: bool,
}

/// Whether the current task zaps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsZapping {
    No,
    Yes,
    /// More tasks zap than there are places.
    Perhaps,
}

fn current() -> usize {
    Task::current_raw() as usize
}

/// The lines, that of a task first.
fn lines(task: usize) -> impl Iterator<Item = &'static Line> {
    let mixed = (task as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let own = (mixed >> (u64::BITS - LINES.ilog2())) as usize;
    TASKS.iter().cycle().skip(own).take(LINES)
}

impl Zapping {
    /// The current task begins to zap, which it does not yet.
    pub(crate) fn begin() -> Zapping {
        let task = current();
        for (index, line) in lines(task).enumerate() {
            let free = line
                .0
                .iter()
                .find(|place| peek(place) == 0 && place.cmpxchg(0, task, Relaxed).is_ok());
            if let Some(place) = free {
                let elsewhere = index > 0;
                if elsewhere {
                    ELSEWHERE.fetch_add(1, Relaxed);
                }
                return Zapping {
                    place: Some(place),
                    elsewhere,
                };
            }
        }
        NOWHERE.fetch_add(1, Relaxed);
        Zapping {
            place: None,
            elsewhere: false,
        }
    }
}

impl Drop for Zapping {
    fn drop(&mut self) {
        match self.place {
            Some(place) => place.store(0, Relaxed),
            None => {
                NOWHERE.fetch_sub(1, Relaxed);
            }
        }
        if self.elsewhere {
            ELSEWHERE.fetch_sub(1, Relaxed);
        }
    }
}

/// Whether the current task has begun to zap, and has not ended.
pub(crate) fn current_is_zapping() -> IsZapping {
    // What the task itself has written it sees, wherever it runs by now.
    let task = current();
    let has = |line: &Line| line.0.iter().any(|place| peek(place) == task);
    let looked_at = if peek(&ELSEWHERE) == 0 { 1 } else { LINES };
    if lines(task).take(looked_at).any(has) {
        IsZapping::Yes
    } else if peek(&NOWHERE) == 0 {
        IsZapping::No
    } else {
        IsZapping::Perhaps
    }
}
