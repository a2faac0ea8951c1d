// SPDX-License-Identifier: GPL-2.0

//! The expected result of each step: the documentation as a few arrays of single pages.
//!
//! The model answers two questions: whether a step can be made at all
//! ([`Model::possible`]), and whether the result of a step is right ([`Model::judge`]),
//! which also makes the step in the model. Where the documentation leaves a choice to the
//! kernel, the model follows the kernel's result.

mod copies;
mod events;
mod file;
mod guest;
mod holes;
mod memory;
mod space;
#[cfg(test)]
mod tests;
mod waiters;

use std::collections::{BTreeMap, BTreeSet};

use crate::op::*;

use copies::Copies;
pub use events::Watch;
pub use file::{File, first_value, later_value};
use holes::{Policy, Stale, Through};
use waiters::Waiter;

/// Why a step is wrong.
pub type Verdict = Result<(), String>;

/// Attachments keep a space when its fds are closed, so each space ever made is kept.
#[derive(Clone, Default)]
pub struct Model {
    pub files: [Option<File>; FILES],
    spaces: Vec<Space>,
    pub asfds: [Option<View>; SPACES],
    pub views: [Option<View>; VIEWS],
    pub processes: [Option<Process>; PROCESSES],
    pub guest: Option<Guest>,
    pub watches: [Option<Watch>; WATCHES],
    pub waiters: [Option<Waiter>; WAITERS + 1],
    /// The words of the pages that absorb.
    sinks: Vec<[u64; CELLS as usize]>,
    stale: BTreeSet<Stale>,
    /// The pages of private maps that were accessed.
    copies: Copies,
    /// Numbers the VMAs.
    vmas: u32,
    /// How many asfds and views were made.
    made: usize,
}

#[derive(Clone)]
pub struct Space {
    pub shown: Vec<Option<Shown>>,
    pub registered: BTreeSet<Handle>,
    /// All protections for which any part of the open file was ever checked.
    checked: BTreeMap<Handle, u32>,
    /// How many private maps were made.
    private: usize,
}

/// What a page of a space shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub handle: Handle,
    pub page: u64,
    pub prot: u32,
    /// The protection that it can be raised to in any case.
    sure: u32,
    /// Which of the private maps of the space it belongs to.
    private: Option<usize>,
}

/// What an asfd or view shows: pages of a space, for some accesses.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub space: usize,
    pub at: Span,
    pub prot: u32,
    /// Whether what it shows can be changed through it.
    pub manage: bool,
    policy: Policy,
    /// Which of all asfds and views that were ever made.
    id: usize,
}

impl View {
    /// Whether a call takes this range.
    fn has(&self, at: Span) -> bool {
        at.count > 0 && at.end() <= self.at.count
    }

    /// Pages of the space.
    fn pages(&self, at: Span) -> Span {
        Span::new(self.at.start + at.start, at.count)
    }

    fn through(&self, page: u64, sink: Option<usize>) -> Through {
        Through {
            space: self.space,
            page: self.at.start + page,
            policy: self.policy,
            id: self.id,
            sink,
        }
    }
}

/// The attachments of a process, page by page.
#[derive(Clone)]
pub struct Process {
    pub pages: Vec<Option<Attached>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub to: Through,
    pub prot: u32,
    may_write: bool,
    /// The number of the VMA: only one at a time can be moved.
    vma: u32,
}

/// The memory slots of the guest.
#[derive(Clone, Default)]
pub struct Guest {
    pub slots: [Option<Slot>; SLOTS],
}

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its first page.
    to: Through,
    pub at: Span,
    pub readonly: bool,
}

/// Whether a page is near the boundary of a huge page, where most steps are.
pub fn is_hot(page: u64) -> bool {
    !(10..HUGE - 4).contains(&(page % HUGE))
}

impl Model {
    /// A model with these files, and one process without attachments.
    pub fn new(files: [Option<File>; FILES]) -> Self {
        let mut model = Model {
            files,
            ..Default::default()
        };
        model.processes[0] = Some(Process::new());
        model
    }

    /// The space behind an asfd or view that is open.
    pub fn open(&self, on: Source) -> Option<&Space> {
        self.source(on).map(|part| &self.spaces[part.space])
    }

    /// What an asfd or view shows.
    pub fn source(&self, source: Source) -> Option<View> {
        match source {
            Source::Space(space) => self.asfds[space],
            Source::View(view) => self.views[view],
        }
    }

    /// The asfds of what an asfd or view shows.
    pub fn asfds_of(&self, on: Source) -> Vec<usize> {
        let Some(part) = self.source(on) else {
            return Vec::new();
        };
        let same = |at: &usize| self.asfds[*at].is_some_and(|it| it.space == part.space);
        (0..SPACES).filter(same).collect()
    }

    fn part(&self, on: Source) -> View {
        self.source(on).expect("only possible steps are judged")
    }

    /// Whether everything that a step needs exists.
    pub fn possible(&self, op: &Op) -> bool {
        let open = |on: Source| self.source(on).is_some();
        let file = |file: usize| self.files[file].is_some();
        let runs = self.guest.is_some() && self.waiters[GUEST].is_none();
        match *op {
            Op::Create { space, .. } => self.asfds[space].is_none(),
            // Where somebody waits in it, fdinfo is to tell.
            Op::Close(space) => self.asfds[space].is_some_and(|it| {
                let waiters = self.waiters.iter().flatten();
                waiters
                    .into_iter()
                    .all(|waiter| waiter.to.space != it.space)
            }),
            Op::Map { on, ref map, .. } | Op::MapAnywhere { on, ref map } => {
                open(on) && self.mappable(map.handle, map.offset, map.at.count)
            }
            Op::Unmap { on, .. } | Op::Protect { on, .. } | Op::Move { on, .. } => open(on),
            Op::Batch { on, ref changes } => {
                open(on)
                    && !changes.is_empty()
                    && changes.iter().all(|change| match change {
                        Change::Map(map) => self.mappable(map.handle, map.offset, map.at.count),
                        _ => true,
                    })
            }
            Op::Register {
                on,
                handle,
                offset,
                pages,
                ..
            } => open(on) && pages != Some(0) && self.mappable(handle, offset, pages.unwrap_or(0)),
            Op::Want { on, at, want } => open(on) && self.can_want(on, at, want),
            Op::Unregister { on, handle } => open(on) && file(handle.file),
            Op::UnregisterAll(space) => self.asfds[space].is_some(),
            Op::MakeView { on, view, .. } => open(on) && self.views[view].is_none(),
            Op::CloseView(view) => self.views[view].is_some(),
            Op::Fsync(source) => self.source(source).is_some(),
            Op::Spawn(process) => self.processes[process].is_none(),
            Op::Fork { from, to } => self.processes[from].is_some() && self.processes[to].is_none(),
            Op::End(process) => process != 0 && self.processes[process].is_some(),
            Op::Attach {
                process,
                source,
                at,
                place,
                ..
            } => {
                self.processes[process].is_some()
                    && self.source(source).is_some()
                    && at.count > 0
                    && place + at.count <= PLACES * PLACE_PAGES
            }
            Op::Detach { process, at } => self.within(process, at),
            Op::Mprotect { process, at, .. } => self.all_attached(process, at),
            Op::Mremap { process, at, to } => {
                self.one_vma(process, at)
                    && to + at.count <= PLACES * PLACE_PAGES
                    && !at.overlaps(&Span::new(to, at.count))
            }
            Op::Touch { process, .. } | Op::Sweep(process) => self.processes[process].is_some(),
            Op::Write {
                file, cell, mapped, ..
            } => self.writable_cell(file, cell, mapped),
            Op::Truncate { file, cells } => self.truncatable(file, cells),
            Op::Punch { file, at } => self.punchable(file, at),
            Op::Advise { file: of, .. } | Op::Check(of) => file(of),
            Op::TakeBack(file) => self.is_lent(file),
            Op::Boot => self.guest.is_none(),
            Op::Vmm(_) => self.guest.is_some(),
            Op::Halt | Op::Guest(_) | Op::GuestSweep => runs,
            // KVM waits for its CPUs before it changes slots.
            Op::Plug { source, at, .. } => runs && open(source) && at.count > 0,
            Op::Unplug { source, .. } => runs && open(source),
            // The first that a length of 0 stands for all of.
            Op::Watch { on, watch, at, .. } => {
                open(on) && self.watches[watch].is_none() && at.is_none_or(|at| at.count > 0)
            }
            Op::Unwatch(watch) | Op::ReadEvents(watch) => self.watches[watch].is_some(),
            Op::Poison { on, .. } => open(on),
            Op::Wait {
                waiter,
                process,
                ref touch,
            } => self.can_wait(waiter, process, touch),
            Op::GuestWait(ref touch) => runs && self.guest_can_wait(touch),
            Op::Interrupt(waiter) => self.waiters[waiter].is_some(),
            Op::Kill(waiter) => waiter != GUEST && self.waiters[waiter].is_some(),
            Op::Expire(process) => self.processes[process].is_some(),
        }
    }

    /// Judges the result of a step that was possible, and makes the step.
    pub fn judge(&mut self, op: &Op, seen: &Seen) -> Verdict {
        match *op {
            Op::Create { space, holes } => {
                let policy = Policy::of(holes, Policy::SIGNAL);
                expect(seen, policy.map(|_| ()))?;
                if let Ok(policy) = policy {
                    let part = View {
                        space: self.spaces.len(),
                        at: Span::new(0, SPACE_PAGES),
                        prot: RW,
                        manage: true,
                        policy,
                        id: self.next_id(),
                    };
                    self.asfds[space] = Some(part);
                    self.spaces.push(Space::new());
                }
                Ok(())
            }
            Op::Close(space) => {
                self.asfds[space] = None;
                done(seen)
            }
            Op::Map { on, map, .. } => self.change(on, Change::Map(map), seen),
            Op::MapAnywhere { on, map } => self.map_anywhere(on, map, seen),
            Op::Unmap { on, at } => self.change(on, Change::Unmap(at), seen),
            Op::Protect { on, at, prot } => self.change(on, Change::Protect(at, prot), seen),
            Op::Move {
                on,
                at,
                to,
                replace,
            } => self.r#move(on, at, to, replace, seen),
            Op::Batch { on, ref changes } => self.batch(on, changes, seen),
            Op::Register {
                on,
                handle,
                offset,
                pages,
                prot,
                ..
            } => self.register(on, handle, offset, pages, prot, seen),
            Op::Want { on, at, want } => self.want(on, at, want, seen),
            Op::Unregister { on, handle } => self.unregister(on, handle, seen),
            Op::UnregisterAll(space) => self.unregister_all(space, seen),
            Op::MakeView {
                on,
                view,
                at,
                prot,
                holes,
                manage,
            } => {
                let part = self.part(on);
                let made = part.view(at, prot, holes, manage);
                expect(seen, made.map(|_| ()))?;
                if let Ok(made) = made {
                    let id = self.next_id();
                    self.views[view] = Some(View { id, ..made });
                }
                Ok(())
            }
            Op::CloseView(view) => {
                self.views[view] = None;
                done(seen)
            }
            Op::Fsync(_) | Op::Advise { .. } => done(seen),
            Op::Spawn(process) => {
                self.processes[process] = Some(Process::new());
                done(seen)
            }
            Op::Fork { from, to } => {
                self.fork(from, to);
                done(seen)
            }
            Op::End(process) => {
                self.processes[process] = None;
                done(seen)
            }
            Op::Attach {
                process,
                source,
                at,
                prot,
                place,
            } => self.attach(process, source, at, prot, place, seen),
            Op::Detach { process, at } => {
                self.detach(process, at);
                done(seen)
            }
            Op::Mprotect { process, at, prot } => self.mprotect(process, at, prot, seen),
            Op::Mremap { process, at, to } => {
                done(seen)?;
                self.mremap(process, at, to);
                Ok(())
            }
            Op::Touch {
                process,
                ref touches,
            } => self.touch(process, touches, seen),
            Op::Sweep(process) => self.touch(process, &self.sweep(process), seen),
            Op::Write {
                file, cell, value, ..
            } => {
                done(seen)?;
                self.write(file, cell, value);
                Ok(())
            }
            Op::Truncate { file, cells } => {
                done(seen)?;
                self.truncate(file, cells);
                Ok(())
            }
            Op::Punch { file, at } => {
                done(seen)?;
                self.punch(file, at);
                Ok(())
            }
            Op::Check(file) => self.check_file(file, seen),
            Op::TakeBack(file) => {
                self.take_back(file);
                done(seen)
            }
            Op::Boot => {
                self.guest = Some(Guest::default());
                done(seen)
            }
            Op::Halt => {
                self.guest = None;
                done(seen)
            }
            Op::Plug {
                source,
                slot,
                at,
                readonly,
                holes,
                ..
            } => self.plug(source, slot, at, readonly, holes, seen),
            Op::Unplug { source, slot } => self.unplug(source, slot, seen),
            Op::Guest(ref touches) => self.guest_touch(touches, seen),
            Op::GuestSweep => self.guest_touch(&self.guest_sweep(), seen),
            Op::Vmm(ref touches) => self.vmm_touch(touches, seen),
            Op::Watch {
                on,
                watch,
                at,
                timed,
            } => self.watch(on, watch, at, timed, seen),
            Op::Unwatch(watch) => {
                self.watches[watch] = None;
                done(seen)
            }
            Op::Poison { on, at, clear } => self.poison(on, at, clear, seen),
            Op::ReadEvents(watch) => self.read_events(watch, seen),
            Op::Wait {
                waiter,
                process,
                ref touch,
            } => {
                self.wait(waiter, process, touch);
                done(seen)
            }
            Op::GuestWait(ref touch) => {
                self.guest_wait(touch);
                done(seen)
            }
            Op::Interrupt(waiter) => {
                self.interrupt(waiter);
                done(seen)
            }
            Op::Kill(waiter) => {
                self.waiters[waiter] = None;
                done(seen)
            }
            Op::Expire(process) => self.expire(process, seen),
        }
    }

    fn next_id(&mut self) -> usize {
        self.made += 1;
        self.made - 1
    }
}

/// Whether a call takes this protection.
pub fn valid(prot: u32) -> bool {
    matches!(prot, NONE | READ | RW)
}

fn done(seen: &Seen) -> Verdict {
    expect(seen, Ok(()))
}

fn expect(seen: &Seen, wanted: Result<(), i32>) -> Verdict {
    let wanted = match wanted {
        Ok(()) => Seen::Done,
        Err(errno) => Seen::Errno(errno),
    };
    if *seen == wanted {
        return Ok(());
    }
    Err(format!("expected {wanted:?}, got {seen:?}"))
}

/// Compares single accesses, which may come to any of `wanted`; `what` names them.
fn compare(what: &str, index: usize, seen: Touched, wanted: &[Touched]) -> Verdict {
    let fits = |wanted: &Touched| match wanted {
        Touched::NoWrite => matches!(seen, Touched::Fault | Touched::Mmio),
        wanted => seen == *wanted,
    };
    if wanted.iter().any(fits) {
        return Ok(());
    }
    let text = |touched| match touched {
        Touched::Value(value) => format!("the value {}", file::describe(value)),
        other => format!("{other:?}"),
    };
    let wanted: Vec<_> = wanted.iter().map(|wanted| text(*wanted)).collect();
    Err(format!(
        "{what} {index}: expected {}, got {}",
        wanted.join(" or "),
        text(seen)
    ))
}

/// The results of single accesses, of which there must be `count`.
fn results(seen: &Seen, count: usize) -> Result<&[Touched], String> {
    match seen {
        Seen::Touched(touched) if touched.len() == count => Ok(touched),
        other => Err(format!("expected {count} results, got {other:?}")),
    }
}
