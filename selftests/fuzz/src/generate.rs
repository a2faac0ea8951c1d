// SPDX-License-Identifier: GPL-2.0

//! Random steps: mostly those that make sense in the state of the model, and mostly near the
//! boundaries of huge pages, so that steps affect each other.

mod attachments;
mod holes;

use std::collections::VecDeque;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::files::kind;
use crate::model::{Model, is_hot, later_value};
use crate::op::*;

/// How many pages count as recent.
const RECENT: usize = 12;

/// The random steps of one sequence.
pub struct Generator {
    random: ChaCha8Rng,
    /// The files of this sequence, of which the first is used most.
    files: Vec<usize>,
    /// The weight of each kind of step: some sequences have many of one kind and few of
    /// another.
    weights: [u32; 6],
    /// The policy that most asfds and views of this sequence have.
    holes: u32,
    guest: bool,
    spaces: usize,
    /// Pages of spaces that the latest steps changed; the next steps mostly use them again.
    recent: VecDeque<u64>,
    /// Steps that are made next, where they are possible: what is seldom drawn in sequence.
    planned: VecDeque<Op>,
    values: u32,
}

impl Generator {
    /// Sequence `number` of the run with this seed, which may use these files.
    pub fn new(seed: u64, number: u64, files: &[usize], guest: bool) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        let mut own = files.to_vec();
        let wanted = random.random_range(1..=3).min(own.len());
        while own.len() > wanted {
            own.remove(random.random_range(0..own.len()));
        }
        let first = random.random_range(0..own.len());
        own.swap(0, first);
        // Calls, attachments, touches, files, the guest, waits and events.
        let mut weights = [26, 12, 36, 14, 12, 20];
        for weight in &mut weights {
            *weight = *weight * random.random_range(1..=4) / 2;
        }
        let guest = guest && random.random_bool(0.6);
        if !guest {
            weights[4] = 0;
        }
        let holes = match random.random_range(0..10) {
            0..=2 => 0,
            3..=4 => ABSORB,
            5 => ABSORB | HOLE_DENIED,
            6..=7 => WAIT,
            8 => WAIT | HOLE_KERNEL,
            _ => WAIT | HOLE_DENIED,
        };
        if holes & WAIT == 0 {
            weights[5] /= 3;
        }
        Generator {
            holes,
            spaces: random.random_range(1..=SPACES),
            random,
            files: own,
            weights,
            guest,
            recent: VecDeque::new(),
            planned: VecDeque::new(),
            values: 0,
        }
    }

    pub fn files(&self) -> &[usize] {
        &self.files
    }

    /// How a sequence begins: a space, and attachments of it.
    pub fn begin(&mut self) -> Vec<Op> {
        let holes = if self.chance(0.5) { self.holes } else { 0 };
        let mut ops = vec![
            Op::Create { space: 0, holes },
            Op::Attach {
                process: 0,
                source: Source::Space(0),
                at: Span::new(0, SPACE_PAGES),
                prot: RW,
                place: 0,
            },
        ];
        if self.holes & WAIT != 0 {
            ops.push(Op::Watch {
                on: Source::Space(0),
                watch: 0,
                at: None,
                timed: self.chance(0.1),
            });
        }
        if self.guest {
            ops.push(Op::Boot);
            ops.push(Op::Plug {
                source: Source::Space(0),
                slot: 0,
                at: Span::new(0, SPACE_PAGES),
                readonly: false,
                log: self.chance(0.2),
                holes: self.holes(),
            });
        }
        ops
    }

    /// The next step; it is possible.
    pub fn next(&mut self, model: &Model) -> Op {
        loop {
            let op = match self.planned.pop_front() {
                Some(op) => op,
                None => self.draw(model),
            };
            if model.possible(&op) {
                if let Some(at) = op.changed_pages() {
                    self.note(at.start);
                    self.note(at.end().saturating_sub(1));
                }
                return op;
            }
        }
    }

    fn note(&mut self, page: u64) {
        self.recent.push_front(page);
        self.recent.truncate(RECENT);
    }

    fn chance(&mut self, p: f64) -> bool {
        self.random.random_bool(p)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        later_value(self.values)
    }

    /// A page near the boundary of a huge page, below `limit`.
    fn page(&mut self, limit: u64) -> u64 {
        let base = self.below(limit.div_ceil(HUGE)) * HUGE;
        let page = match self.below(10) {
            0 => base.saturating_sub(1 + self.below(4)),
            1 => base + self.below(HUGE),
            2..=4 => base,
            _ => base + self.below(10),
        };
        page.min(limit - 1)
    }

    /// A page of a space.
    fn space_page(&mut self) -> u64 {
        if self.recent.is_empty() || self.chance(0.6) {
            return self.page(SPACE_PAGES);
        }
        let at = self.pick(self.recent.len());
        self.recent[at].min(SPACE_PAGES - 1)
    }

    /// A run of pages below `limit`; rarely past it, or empty.
    fn span(&mut self, limit: u64) -> Span {
        let start = if limit == SPACE_PAGES {
            self.space_page()
        } else {
            self.page(limit)
        };
        let count = match self.below(100) {
            0 => 0,
            1..=60 => 1 + self.below(6),
            61..=75 => 1 + self.below(40),
            76..=90 => HUGE,
            91..=93 => limit,
            _ => limit - start,
        };
        if self.chance(0.97) {
            Span::new(start, count.min(limit - start))
        } else {
            Span::new(start, count)
        }
    }

    fn prot(&mut self) -> u32 {
        match self.below(100) {
            0 => WRITE,
            1..=8 => NONE,
            9..=35 => READ,
            _ => RW,
        }
    }

    fn space(&mut self) -> usize {
        if self.chance(0.6) {
            0
        } else {
            self.pick(self.spaces)
        }
    }

    fn process(&mut self) -> usize {
        if self.chance(0.4) {
            0
        } else {
            self.pick(PROCESSES)
        }
    }

    fn file(&mut self) -> usize {
        if self.chance(0.6) {
            self.files[0]
        } else {
            let at = self.pick(self.files.len());
            self.files[at]
        }
    }

    fn handle(&mut self) -> Handle {
        Handle {
            file: self.file(),
            writable: self.chance(0.9),
        }
    }

    fn source(&mut self) -> Source {
        if self.chance(0.6) {
            Source::Space(self.space())
        } else {
            Source::View(self.pick(VIEWS))
        }
    }

    /// What a call is made on.
    fn on(&mut self) -> Source {
        if self.chance(0.85) {
            Source::Space(self.space())
        } else {
            Source::View(self.pick(VIEWS))
        }
    }

    fn map(&mut self) -> Map {
        let handle = self.handle();
        let (_, pages, _) = kind(handle.file);
        let mut at = self.span(SPACE_PAGES);
        let mut offset = self.page(pages);
        if self.chance(0.5) {
            // Huge pages are possible then.
            offset = offset / HUGE * HUGE + at.start % HUGE;
        }
        if self.chance(0.9) {
            at.count = at.count.min(pages.saturating_sub(offset));
        }
        Map {
            handle,
            offset,
            at,
            prot: self.prot(),
            replace: self.chance(0.6),
            populate: self.chance(0.25),
            private: !matches!(kind(handle.file).0, Kind::Hugetlb | Kind::Lent) && self.chance(0.3),
        }
    }

    fn change(&mut self) -> Change {
        match self.below(10) {
            0..=5 => Change::Map(self.map()),
            6..=8 => Change::Unmap(self.span(SPACE_PAGES)),
            _ => Change::Protect(self.span(SPACE_PAGES), self.prot()),
        }
    }

    fn draw(&mut self, model: &Model) -> Op {
        let mut at = self.random.random_range(0..self.weights.iter().sum());
        for (kind, weight) in self.weights.into_iter().enumerate() {
            if at < weight {
                return match kind {
                    0 => self.call(model),
                    1 => self.attachment(model),
                    2 => self.touch(model),
                    3 => self.change_file(),
                    4 => self.guest(model),
                    _ => self.wait_or_tell(model),
                };
            }
            at -= weight;
        }
        Op::Sweep(0)
    }

    fn call(&mut self, model: &Model) -> Op {
        let on = self.on();
        match self.below(100) {
            0..=4 => Op::Create {
                space: self.space(),
                holes: self.holes(),
            },
            5 => Op::Close(self.space()),
            6..=38 => Op::Map {
                on,
                map: self.map(),
            },
            39..=42 => Op::MapAnywhere {
                on,
                map: self.map(),
            },
            43..=54 => Op::Unmap {
                on,
                at: self.span(SPACE_PAGES),
            },
            55..=67 => Op::Protect {
                on,
                at: self.shown(model, on),
                prot: self.prot(),
            },
            68..=75 => Op::Move {
                on,
                at: self.shown(model, on),
                to: self.page(SPACE_PAGES),
                replace: self.chance(0.7),
            },
            76..=85 => Op::Batch {
                on,
                changes: (0..1 + self.below(5)).map(|_| self.change()).collect(),
            },
            86..=89 => {
                let handle = self.handle();
                let (_, pages, _) = kind(handle.file);
                let at = self.span(pages);
                Op::Register {
                    on,
                    handle,
                    offset: at.start,
                    pages: self.chance(0.7).then_some(at.count),
                    prot: self.prot(),
                    populate: self.chance(0.3),
                }
            }
            90 => Op::Unregister {
                on,
                handle: self.handle(),
            },
            91 => match (self.below(4), on) {
                (0, Source::Space(space)) => Op::UnregisterAll(space),
                _ => Op::Unregister {
                    on,
                    handle: self.handle(),
                },
            },
            92..=95 => Op::MakeView {
                on,
                view: self.pick(VIEWS),
                at: self.span(SPACE_PAGES),
                prot: self.prot(),
                holes: if self.chance(0.5) { 0 } else { self.holes() },
                manage: self.chance(0.5),
            },
            96 => Op::CloseView(self.pick(VIEWS)),
            97 | 98 => Op::Want {
                on,
                at: self.shown(model, on),
                want: match self.below(10) {
                    0..=3 => Want::DontNeed,
                    4 => Want::Remove,
                    5 => Want::WillNeed,
                    6 | 7 => Want::PopulateRead,
                    _ => Want::PopulateWrite,
                },
            },
            _ => Op::Fsync(self.source()),
        }
    }

    /// A run of pages, mostly few, that all show something.
    fn shown(&mut self, model: &Model, on: Source) -> Span {
        let Some(part) = model.source(on) else {
            return self.span(SPACE_PAGES);
        };
        let pages = part.at.start as usize..part.at.end() as usize;
        let shown = model.open(on).map_or(&[][..], |space| &space.shown[pages]);
        let first = part.at.start;
        let hot: Vec<u64> = (0..)
            .zip(shown)
            .filter(|(page, shown)| shown.is_some() && is_hot(first + page))
            .map(|(page, _)| page)
            .collect();
        if hot.is_empty() || self.chance(0.2) {
            return self.span(SPACE_PAGES);
        }
        let start = hot[self.pick(hot.len())];
        let most = match self.below(4) {
            0 => HUGE,
            _ => 1 + self.below(6),
        };
        let pages = shown.iter().skip(start as usize).take(most as usize);
        Span::new(start, pages.take_while(|it| it.is_some()).count() as u64)
    }

    fn change_file(&mut self) -> Op {
        let file = self.file();
        let (kind, pages, most) = kind(file);
        let huge = kind == Kind::Hugetlb;
        match self.below(100) {
            0..=34 => {
                let limit = if self.chance(0.9) { pages } else { most };
                Op::Write {
                    file,
                    cell: self.page(limit) * CELLS + self.below(CELLS),
                    value: self.value(),
                    mapped: self.chance(0.5),
                }
            }
            35..=54 => Op::Truncate {
                file,
                cells: if huge {
                    self.below(pages / HUGE + 1) * HUGE * CELLS
                } else if self.chance(0.4) {
                    pages * CELLS
                } else {
                    self.page(most) * CELLS + self.below(CELLS)
                },
            },
            55..=74 => Op::Punch {
                file,
                at: if huge {
                    Span::new(self.below(pages / HUGE) * HUGE * CELLS, HUGE * CELLS)
                } else {
                    let at = self.span(pages);
                    Span::new(
                        at.start * CELLS + self.below(CELLS),
                        (at.count * CELLS).saturating_sub(self.below(CELLS)),
                    )
                },
            },
            75..=92 => {
                let at = self.span(pages);
                Op::Advise {
                    file,
                    at: Span::new(at.start * CELLS, at.count * CELLS),
                    advice: match self.below(10) {
                        0..=3 => Advice::Sync,
                        4..=6 => Advice::PageOut,
                        7..=8 => Advice::Collapse,
                        _ => Advice::DropCaches,
                    },
                }
            }
            // Seldom: nothing of it can be reached after that.
            93 if kind == Kind::Lent => Op::TakeBack(file),
            _ => Op::Check(file),
        }
    }

    fn guest_touches(&mut self) -> Vec<GuestTouch> {
        (0..1 + self.below(8))
            .map(|_| GuestTouch {
                slot: if self.chance(0.7) {
                    0
                } else {
                    self.pick(SLOTS)
                },
                page: self.space_page(),
                cell: self.below(CELLS),
                store: self.chance(0.4).then(|| self.value()),
            })
            .collect()
    }

    fn guest(&mut self, model: &Model) -> Op {
        match self.below(100) {
            0..=2 => Op::Boot,
            3 => Op::Halt,
            4..=15 => Op::Plug {
                source: self.source(),
                slot: self.pick(SLOTS),
                at: self.span(SPACE_PAGES),
                readonly: self.chance(0.3),
                log: self.chance(0.2),
                holes: if self.chance(0.5) { 0 } else { self.holes() },
            },
            16..=22 => Op::Unplug {
                source: self.source(),
                slot: self.pick(SLOTS),
            },
            23..=27 => self.guest_wait(model),
            28..=72 => Op::Guest(self.guest_touches()),
            73..=82 => Op::GuestSweep,
            _ => Op::Vmm(self.guest_touches()),
        }
    }
}
