// SPDX-License-Identifier: GPL-2.0

//! The expected result of each step: the documentation as a few arrays of single pages.
//!
//! The model answers two questions: whether a step can be made at all
//! ([`Model::possible`]), and whether the result of a step is right ([`Model::judge`]),
//! which also makes the step in the model. Where the documentation leaves a choice to the
//! kernel, the model follows the kernel's result.

mod file;
mod guest;
mod memory;
mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::op::*;

pub use file::{File, first_value, later_value};

/// Why a step is wrong.
pub type Verdict = Result<(), String>;

/// Attachments keep a space when its fds are closed, so each space ever made is kept.
#[derive(Clone, Default)]
pub struct Model {
    pub files: [Option<File>; FILES],
    spaces: Vec<Space>,
    pub asfds: [Option<usize>; SPACES],
    pub views: [Option<View>; VIEWS],
    pub processes: [Option<Process>; PROCESSES],
    pub guest: Option<Guest>,
    /// Numbers the VMAs.
    vmas: u32,
}

#[derive(Clone)]
pub struct Space {
    pub shown: Vec<Option<Shown>>,
    pub registered: BTreeSet<Handle>,
    /// All protections for which any part of the open file was ever checked.
    checked: BTreeMap<Handle, u32>,
}

/// What a page of a space shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub handle: Handle,
    pub page: u64,
    pub prot: u32,
    /// The protection that it can be raised to in any case.
    sure: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct View {
    pub space: usize,
    pub at: Span,
    pub prot: u32,
}

/// The attachments of a process, page by page.
#[derive(Clone)]
pub struct Process {
    pub pages: Vec<Option<Attached>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub space: usize,
    pub page: u64,
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
    pub space: usize,
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

    /// The space behind an asfd that is open.
    pub fn open(&self, space: usize) -> Option<&Space> {
        self.asfds[space].map(|id| &self.spaces[id])
    }

    fn open_mut(&mut self, space: usize) -> &mut Space {
        let id = self.asfds[space].expect("only possible steps are judged");
        &mut self.spaces[id]
    }

    /// What an asfd or view shows: the space, and which pages of it, for which access.
    fn source(&self, source: Source) -> Option<View> {
        match source {
            Source::Space(space) => self.asfds[space].map(|space| View {
                space,
                at: Span::new(0, SPACE_PAGES),
                prot: RW,
            }),
            Source::View(view) => self.views[view],
        }
    }

    /// Whether everything that a step needs exists.
    pub fn possible(&self, op: &Op) -> bool {
        let open = |space: usize| self.asfds[space].is_some();
        let file = |file: usize| self.files[file].is_some();
        match *op {
            Op::Create(space) => !open(space),
            Op::Close(space) => open(space),
            Op::Map { space, ref map, .. } | Op::MapAnywhere { space, ref map } => {
                open(space) && self.mappable(map.handle, map.offset, map.at.count)
            }
            Op::Unmap { space, .. } | Op::Protect { space, .. } | Op::Move { space, .. } => {
                open(space)
            }
            Op::Batch { space, ref changes } => {
                open(space)
                    && !changes.is_empty()
                    && changes.iter().all(|change| match change {
                        Change::Map(map) => self.mappable(map.handle, map.offset, map.at.count),
                        _ => true,
                    })
            }
            Op::Register {
                space,
                handle,
                offset,
                pages,
                ..
            } => {
                open(space) && pages != Some(0) && self.mappable(handle, offset, pages.unwrap_or(0))
            }
            Op::Unregister { space, handle } => open(space) && file(handle.file),
            Op::MakeView { space, view, .. } => open(space) && self.views[view].is_none(),
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
            Op::Boot => self.guest.is_none(),
            Op::Halt | Op::Guest(_) | Op::GuestSweep | Op::Vmm(_) => self.guest.is_some(),
            Op::Plug { source, at, .. } => {
                self.guest.is_some() && self.source(source).is_some() && at.count > 0
            }
            Op::Unplug { source, .. } => self.guest.is_some() && self.source(source).is_some(),
        }
    }

    /// Judges the result of a step that was possible, and makes the step.
    pub fn judge(&mut self, op: &Op, seen: &Seen) -> Verdict {
        match *op {
            Op::Create(space) => {
                done(seen)?;
                self.asfds[space] = Some(self.spaces.len());
                self.spaces.push(Space::new());
                Ok(())
            }
            Op::Close(space) => {
                self.asfds[space] = None;
                done(seen)
            }
            Op::Map { space, map, .. } => self.change(space, Change::Map(map), seen),
            Op::MapAnywhere { space, map } => self.open_mut(space).map_anywhere(map, seen),
            Op::Unmap { space, at } => self.change(space, Change::Unmap(at), seen),
            Op::Protect { space, at, prot } => self.change(space, Change::Protect(at, prot), seen),
            Op::Move {
                space,
                at,
                to,
                replace,
            } => self.open_mut(space).r#move(at, to, replace, seen),
            Op::Batch { space, ref changes } => self.open_mut(space).batch(changes, seen),
            Op::Register {
                space,
                handle,
                offset,
                pages,
                prot,
                ..
            } => self.register(space, handle, offset, pages, prot, seen),
            Op::Unregister { space, handle } => {
                let known = self.open_mut(space).registered.remove(&handle);
                expect(seen, if known { Ok(()) } else { Err(libc::ENOENT) })
            }
            Op::MakeView {
                space,
                view,
                at,
                prot,
            } => {
                let wrong = !valid(prot) || prot == NONE || !Space::has(at);
                expect(seen, if wrong { Err(libc::EINVAL) } else { Ok(()) })?;
                if !wrong {
                    self.views[view] = self.asfds[space].map(|space| View { space, at, prot });
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
                self.processes[to] = self.processes[from].clone();
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
                ..
            } => self.plug(source, slot, at, readonly, seen),
            Op::Unplug { source, slot } => self.unplug(source, slot, seen),
            Op::Guest(ref touches) => self.guest_touch(touches, seen),
            Op::GuestSweep => self.guest_touch(&self.guest_sweep(), seen),
            Op::Vmm(ref touches) => self.vmm_touch(touches, seen),
        }
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

/// Compares single accesses; `what` names them.
fn compare(what: &str, index: usize, seen: Touched, wanted: Touched) -> Verdict {
    let fits = match wanted {
        Touched::NoWrite => matches!(seen, Touched::Fault | Touched::Mmio),
        wanted => seen == wanted,
    };
    if fits {
        return Ok(());
    }
    let text = |touched| match touched {
        Touched::Value(value) => format!("the value {}", file::describe(value)),
        other => format!("{other:?}"),
    };
    Err(format!(
        "{what} {index}: expected {}, got {}",
        text(wanted),
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
