// SPDX-License-Identifier: GPL-2.0

//! What processes do with their attachments and through them.

use super::Generator;
use crate::model::Model;
use crate::op::*;

impl Generator {
    /// A part of the attachments of a process: often the beginning or end of one.
    fn part(&mut self, model: &Model, process: usize) -> Span {
        let pages = PLACES * PLACE_PAGES;
        let hot = model.hot_pages(process);
        if hot.is_empty() || self.chance(0.1) {
            return self.span(pages);
        }
        let (start, _) = hot[self.pick(hot.len())];
        let count = match self.below(10) {
            0..=6 => 1 + self.below(6),
            7 => HUGE,
            _ => 1 + self.below(40),
        };
        Span::new(start, count.min(pages - start))
    }

    pub(super) fn attachment(&mut self, model: &Model) -> Op {
        let process = self.process();
        match self.below(100) {
            0..=4 => Op::Spawn(process),
            5..=13 => Op::Fork {
                from: self.process(),
                to: 1 + self.pick(PROCESSES - 1),
            },
            14..=17 => Op::End(process),
            18..=52 => {
                let source = self.source();
                let at = self.span(SPACE_PAGES);
                let place = self.below(PLACES) * PLACE_PAGES;
                // Mostly so that huge pages are possible.
                let skew = if self.chance(0.8) {
                    at.start % HUGE
                } else {
                    self.below(10)
                };
                Op::Attach {
                    process,
                    source,
                    at,
                    prot: match self.below(10) {
                        0 => NONE,
                        1..=2 => READ,
                        _ => RW,
                    },
                    place: place + skew,
                }
            }
            53..=64 => Op::Detach {
                process,
                at: self.part(model, process),
            },
            65..=82 => {
                let at = self.part(model, process);
                let prot = self.prot() & RW;
                Op::Mprotect {
                    process,
                    at,
                    prot: if prot == WRITE { RW } else { prot },
                }
            }
            _ => {
                let at = self.part(model, process);
                let same = if self.chance(0.6) {
                    at.start % HUGE
                } else {
                    self.below(10)
                };
                Op::Mremap {
                    process,
                    at,
                    to: self.below(PLACES * PLACE_PAGES / HUGE) * HUGE + same,
                }
            }
        }
    }

    pub(super) fn touch(&mut self, model: &Model) -> Op {
        let process = self.process();
        if self.chance(0.15) {
            return Op::Sweep(process);
        }
        let hot = model.hot_pages(process);
        let near: Vec<_> = hot
            .iter()
            .filter(|(_, shown)| self.recent.contains(shown))
            .copied()
            .collect();
        let count = 1 + self.below(16);
        let mut page = 0;
        let touches = (0..count)
            .map(|_| {
                page = match self.below(20) {
                    _ if hot.is_empty() => self.below(PLACES * PLACE_PAGES),
                    0 => self.below(PLACES * PLACE_PAGES),
                    // As a program that reads on would.
                    1..=4 => (page + 1) % (PLACES * PLACE_PAGES),
                    _ => {
                        let from = if near.is_empty() || self.chance(0.4) {
                            &hot
                        } else {
                            &near
                        };
                        let (page, shown) = from[self.pick(from.len())];
                        self.note(shown);
                        page
                    }
                };
                Touch {
                    page,
                    cell: self.below(CELLS),
                    access: match self.below(24) {
                        0 => Access::CopyFrom,
                        1 => Access::CopyTo(self.value()),
                        2 => Access::DebugFrom,
                        3 => Access::DebugTo(self.value()),
                        4 => Access::Futex,
                        5..=14 => Access::Load,
                        _ => Access::Store(self.value()),
                    },
                }
            })
            .collect();
        Op::Touch { process, touches }
    }
}
