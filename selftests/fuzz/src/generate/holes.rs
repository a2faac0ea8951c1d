// SPDX-License-Identifier: GPL-2.0

//! Policies, those that wait, and those that are told.

use super::Generator;
use crate::model::Model;
use crate::op::*;

impl Generator {
    /// Flags of a policy, rarely such as do not go together.
    pub(super) fn holes(&mut self) -> u32 {
        match self.below(20) {
            0..=9 => self.holes,
            10 => 0,
            11..=12 => SIGNAL,
            13..=14 => ABSORB,
            15 => ABSORB | HOLE_DENIED,
            16..=17 => WAIT,
            18 => WAIT | HOLE_DENIED | HOLE_KERNEL,
            _ => {
                let bits = [SIGNAL, ABSORB, WAIT, HOLE_DENIED, HOLE_KERNEL];
                let flags = bits.into_iter().filter(|_| self.chance(0.4));
                flags.sum()
            }
        }
    }

    pub(super) fn wait_or_tell(&mut self, model: &Model) -> Op {
        let waiter = self.pick(WAITERS + 1);
        let watch = self.pick(WATCHES);
        match self.below(100) {
            0..=14 => Op::Watch {
                on: self.on(),
                watch,
                at: self.chance(0.4).then(|| self.span(SPACE_PAGES)),
                timed: self.chance(0.1),
            },
            15..=17 => Op::Unwatch(watch),
            18..=23 => self.poison(),
            24..=41 => Op::ReadEvents(watch),
            42..=86 => self.wait(model),
            87..=89 => Op::Interrupt(waiter),
            90..=92 => Op::Kill(waiter),
            _ => Op::Expire(self.process()),
        }
    }

    /// Poison, or its end; often mapped over, and made a hole again, after which accesses wait.
    fn poison(&mut self) -> Op {
        let (on, at) = (self.on(), self.span(SPACE_PAGES));
        let clear = self.chance(0.4);
        if !clear && self.chance(0.5) {
            self.note(at.start);
            let map = Map {
                at,
                replace: true,
                private: false,
                ..self.map()
            };
            self.planned.push_back(Op::Map { on, map });
            self.planned.push_back(Op::Unmap { on, at });
        }
        Op::Poison { on, at, clear }
    }

    /// An access that waits, if there can be one.
    fn wait(&mut self, model: &Model) -> Op {
        let waiter = self.pick(WAITERS);
        let access = match self.below(8) {
            0 => Access::CopyFrom,
            1 => Access::CopyTo(self.value()),
            2..=4 => Access::Load,
            _ => Access::Store(self.value()),
        };
        let first = self.process();
        for process in (first..PROCESSES).chain(0..first) {
            let wait = |(page, shown)| {
                let touch = Touch {
                    page,
                    cell: 0,
                    access,
                };
                let wait = Op::Wait {
                    waiter,
                    process,
                    touch,
                };
                model.possible(&wait).then_some((wait, shown))
            };
            let hot = model.hot_pages(process);
            let mut waits: Vec<_> = hot.into_iter().filter_map(wait).collect();
            if self.chance(0.5) {
                let recent: Vec<_> = waits
                    .iter()
                    .filter(|(_, shown)| self.recent.contains(shown))
                    .cloned()
                    .collect();
                if !recent.is_empty() {
                    waits = recent;
                }
            }
            if !waits.is_empty() {
                let (wait, shown) = waits[self.pick(waits.len())].clone();
                self.note(shown);
                return wait;
            }
        }
        Op::ReadEvents(self.pick(WATCHES))
    }

    /// An access of the guest that waits, if one is found.
    pub(super) fn guest_wait(&mut self, model: &Model) -> Op {
        for _ in 0..4 {
            for touch in self.guest_touches() {
                let touch = GuestTouch { cell: 0, ..touch };
                if model.possible(&Op::GuestWait(touch)) {
                    self.note(touch.page);
                    return Op::GuestWait(touch);
                }
            }
        }
        Op::GuestSweep
    }
}
