// SPDX-License-Identifier: GPL-2.0

//! What becomes of accesses to what a space does not have: the policies, and the pages with
//! which attachments absorb.

use libc::EINVAL;

use super::copies::Private;
use super::memory::Reach;
use super::{Model, Watch};
use crate::op::*;

/// What becomes of accesses through an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    on_hole: OnHole,
    /// Also where something is mapped that does not allow the access.
    pub(super) denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnHole {
    Signal,
    Absorb,
    Wait { kernel: bool },
}

impl Policy {
    pub(super) const SIGNAL: Policy = Policy {
        on_hole: OnHole::Signal,
        denied: false,
    };

    /// That of these flags, or else `default`; or the errno.
    pub(super) fn of(flags: u32, default: Policy) -> Result<Policy, i32> {
        let (denied, kernel) = (flags & HOLE_DENIED != 0, flags & HOLE_KERNEL != 0);
        let on_hole = match flags & (SIGNAL | ABSORB | WAIT) {
            0 if !denied && !kernel => return Ok(default),
            SIGNAL if !denied && !kernel => OnHole::Signal,
            ABSORB if !kernel => OnHole::Absorb,
            WAIT => OnHole::Wait { kernel },
            _ => return Err(EINVAL),
        };
        Ok(Policy { on_hole, denied })
    }

    pub(super) fn absorbs(self) -> bool {
        self.on_hole == OnHole::Absorb
    }
}

/// Which page is accessed, and through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    pub space: usize,
    pub page: u64,
    pub(super) policy: Policy,
    /// Which of all asfds and views that were ever made.
    pub(super) id: usize,
    /// The page that absorbs, if there is one.
    pub(super) sink: Option<usize>,
}

/// Who makes an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    User,
    /// The kernel, in a system call.
    Kernel,
    /// The same, which does not try again what would have to wait.
    Debugger,
    Guest,
}

impl Access {
    pub(super) fn by(self) -> By {
        match self {
            Access::Load | Access::Store(_) => By::User,
            Access::CopyFrom | Access::CopyTo(_) => By::Kernel,
            Access::DebugFrom | Access::DebugTo(_) | Access::Futex => By::Debugger,
        }
    }
}

/// What an access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    Cell {
        file: usize,
        cell: u64,
        private: Option<Private>,
    },
    Absorbed {
        sink: usize,
        why: EventKind,
    },
    Waits,
    Refused(EventKind),
}

/// Pages that may still be absorbed by a sink although they are there.
pub(super) type Stale = (usize, u64, usize);

impl Model {
    pub(super) fn new_sink(&mut self, policy: Policy) -> Option<usize> {
        policy.absorbs().then(|| {
            self.sinks.push([0; CELLS as usize]);
            self.sinks.len() - 1
        })
    }

    pub(super) fn watch_of(&self, space: usize) -> Option<&Watch> {
        let mut watches = self.watches.iter().flatten();
        watches.find(|watch| watch.space == space)
    }

    pub(super) fn comes(&self, to: &Through, cell: u64, access: u32, by: By) -> Comes {
        let why = match self.reach(to.space, to.page, cell, access) {
            Reach::Cell {
                file,
                cell,
                private,
            } => {
                return Comes::Cell {
                    file,
                    cell,
                    private,
                };
            }
            Reach::Hole => EventKind::Hole,
            Reach::Denied => EventKind::Denied,
            Reach::Beyond => EventKind::PastEnd,
        };
        match (to.policy.on_hole, to.sink) {
            (OnHole::Absorb, Some(sink)) if why != EventKind::Denied || to.policy.denied => {
                Comes::Absorbed { sink, why }
            }
            (OnHole::Wait { kernel }, _) => {
                let waits = match why {
                    EventKind::Hole => true,
                    EventKind::Denied => to.policy.denied,
                    _ => false,
                };
                let may_wait = match by {
                    By::User | By::Guest => true,
                    By::Kernel => kernel,
                    By::Debugger => false,
                };
                match self.watch_of(to.space) {
                    Some(watch) if waits && may_wait && watch.at.has(to.page) => {
                        if watch.poisoned.contains(&to.page) {
                            Comes::Refused(EventKind::Poisoned)
                        } else if watch.timed {
                            Comes::Refused(EventKind::TimedOut)
                        } else {
                            Comes::Waits
                        }
                    }
                    _ => Comes::Refused(why),
                }
            }
            _ => Comes::Refused(why),
        }
    }

    /// Whether an access has a result without anything else happening, that is determined, and
    /// soon enough: of those that wait for their timeout, `timeouts` are.
    pub(super) fn has_result(
        &self,
        to: &Through,
        cell: u64,
        access: Access,
        by: By,
        timeouts: &mut u32,
    ) -> bool {
        match self.comes(to, cell, access.wants(), by) {
            Comes::Waits => false,
            Comes::Refused(EventKind::TimedOut) => {
                let left = *timeouts;
                *timeouts = left.saturating_sub(1);
                left > 0
            }
            // It may go to the file, or be absorbed.
            Comes::Cell { .. } => access.wants() == READ || !self.may_be_stale(to),
            _ => true,
        }
    }

    pub(super) fn may_be_stale(&self, to: &Through) -> bool {
        to.sink
            .is_some_and(|sink| self.stale.contains(&(to.space, to.page, sink)))
    }

    /// Makes an access that has a result, as far as what it reaches is concerned. What may come
    /// of it, and the results of a store that is not made: empty if that cannot be.
    pub(super) fn made(
        &mut self,
        to: &Through,
        cell: u64,
        access: u32,
        stored: Option<u64>,
        comes: Comes,
    ) -> Vec<Touched> {
        match comes {
            Comes::Cell {
                file,
                cell: of_file,
                private,
            } => {
                let mut results = self.word(file, of_file, access, stored, private);
                if let (None, Some(sink), true) = (stored, to.sink, self.may_be_stale(to)) {
                    results.push(Touched::Value(self.sinks[sink][cell as usize]));
                }
                results
            }
            Comes::Absorbed { sink, why } => {
                if why != EventKind::Hole {
                    self.stale.insert((to.space, to.page, sink));
                }
                self.tell(to, access, why, 0);
                let word = &mut self.sinks[sink][cell as usize];
                vec![match stored {
                    None => Touched::Value(*word),
                    Some(value) => {
                        *word = value;
                        Touched::Stored
                    }
                }]
            }
            Comes::Waits | Comes::Refused(_) => Vec::new(),
        }
    }

    /// Loads through attachments of a process that are to show what is there, when what is
    /// absorbed briefly is gone.
    pub fn expiring(&self, process: usize) -> Vec<(Touch, Touched)> {
        let pages = self.processes[process].iter().flat_map(|it| &it.pages);
        (0..)
            .zip(pages)
            .filter_map(|(page, attached)| {
                let attached = (*attached)?;
                if attached.prot & READ == 0 || !self.may_be_stale(&attached.to) {
                    return None;
                }
                let cell = 0;
                let touch = Touch {
                    page,
                    cell,
                    access: Access::Load,
                };
                if self.meaningful(process, &[touch]).is_empty() {
                    return None;
                }
                match self.comes(&attached.to, cell, READ, By::User) {
                    Comes::Cell {
                        file,
                        cell,
                        private: None,
                    } => Some((touch, Touched::Value(self.file(file).value(cell)))),
                    _ => None,
                }
            })
            .collect()
    }

    pub(super) fn expire(&mut self, process: usize, seen: &Seen) -> super::Verdict {
        let wanted = self.expiring(process);
        let seen = super::results(seen, wanted.len())?;
        for (index, ((touch, wanted), seen)) in wanted.iter().zip(seen).enumerate() {
            super::compare("access", index, *seen, &[*wanted])
                .map_err(|why| format!("process {process}, {touch:?}, still {why}"))?;
            let attached = self.processes[process].as_ref();
            if let Some(to) = attached.and_then(|it| it.pages[touch.page as usize]) {
                if let Some(sink) = to.to.sink {
                    self.stale.remove(&(to.to.space, to.to.page, sink));
                }
            }
        }
        Ok(())
    }

    /// A call that changes pages of a space has ended: nothing is absorbed there any more, and
    /// whoever waits has looked again.
    pub(super) fn changed(&mut self, space: usize, at: Span) {
        self.stale
            .retain(|&(of, page, _)| of != space || !at.has(page));
        for waiter in self.waiters.iter_mut().flatten() {
            if waiter.to.space == space {
                waiter.may_be_told_again = true;
            }
        }
    }
}
