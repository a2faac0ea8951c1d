// SPDX-License-Identifier: GPL-2.0

//! A batch: operations that are read from user space, and made all at once or not at
//! all. Attachers and guests see the layout before or after it, never between.
//!
//! The operations are read and checked with no lock held, since user memory may be
//! anything; then, under `ops`, their files' segments are found, the changes made in
//! one go under the install lock, and what they took away is revoked. A change that is
//! refused has those before it undone, from a journal, before anybody has seen them.

use core::ops::Range;

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{Arc, MutexGuard},
};

use crate::{
    asfd::{self, Asfd},
    change::{self, entered, hull, Change, Kind, Old, Refusal, Removed},
    file::SpaceFile,
    layout::Layout,
    segments::{Ops, Pinned},
    space::{Kernel, Space},
    trace,
    uapi::{self, Arg},
};

/// How many operations are read at a time: few, since their place is cleared for each
/// batch, and most have few.
const AT_A_TIME: usize = 4;

/// Which operation was refused, if it was one, and why.
pub(crate) type Refused = (Option<usize>, Error);

/// One operation.
struct Step {
    change: Change,
    /// The file to map; without meaning for others.
    fd: i32,
    /// Where what it takes away may be entered in some window.
    zap: Range<u64>,
}

/// A batch that was read.
pub(crate) struct Batch {
    steps: KVVec<Step>,
    /// The operation that cannot be read, or means nothing; `steps` has those before.
    broken: Option<(usize, Error)>,
    /// Segments that the steps show.
    pins: KVVec<Pinned>,
}

impl Batch {
    /// Reads a batch for `asfd`. No lock may be held.
    pub(crate) fn read(asfd: &Asfd, arg: &uapi::Batch) -> Result<Batch> {
        let count = arg.nr_ops as usize;
        let mut steps = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        let mut buffer = [uapi::Op::ZERO; AT_A_TIME];
        let mut broken = None;
        while steps.len() < count && broken.is_none() {
            let buffer = &mut buffer[..AT_A_TIME.min(count - steps.len())];
            let read = arg.read_ops(steps.len(), buffer);
            for op in buffer.iter().take(read) {
                match step(asfd, op) {
                    Ok(step) => steps.push(step, GFP_KERNEL_ACCOUNT)?,
                    Err(error) => {
                        broken = Some((steps.len(), error));
                        break;
                    }
                }
            }
            if read < buffer.len() && broken.is_none() {
                // Read alone, it tells why.
                let error = arg.read_op(steps.len()).err().unwrap_or(EFAULT);
                broken = Some((steps.len(), error));
            }
        }
        Ok(Batch {
            steps,
            broken,
            pins: KVVec::new(),
        })
    }

    /// Makes all of it, or nothing.
    pub(crate) fn run(&mut self, space: &Arc<Space>) -> Result<(), Refused> {
        let ops = self.find_segments(space, space.ops.lock())?;
        if let Some((index, error)) = self.broken {
            return Err((Some(index), error));
        }
        // What cannot be refused need not be undone. Else most take away one piece at
        // most.
        let sure = |step: &Step| matches!(step.change.kind, Kind::Unmap);
        let mut room = if self.steps.iter().all(sure) {
            None
        } else {
            let takers = self.steps.iter().filter(|step| step.change.takes_away());
            Some(takers.count())
        };
        loop {
            match self.try_make(space, &ops, room) {
                Err(Unmade::Full) => room = room.map(|room| room.max(8) * 2),
                Err(Unmade::Memory) => return Err((None, ENOMEM)),
                Err(Unmade::Of(index, error)) => return Err((Some(index), error)),
                Ok(()) => break,
            }
        }
        drop(ops);
        space.populate(self.steps.iter().map(|step| &step.change), &self.pins);
        Ok(())
    }

    /// Finds or makes the segments of what is to be mapped. The lock is let go of
    /// while one is made.
    fn find_segments<'a>(
        &mut self,
        space: &'a Arc<Space>,
        mut ops: MutexGuard<'a, Ops>,
    ) -> Result<MutexGuard<'a, Ops>, Refused> {
        let mut last = None;
        for (index, step) in self.steps.iter_mut().enumerate() {
            let pages = (step.change.pages.end - step.change.pages.start) as usize;
            let Kind::Map {
                first,
                ref mut segment,
                prot,
                ..
            } = step.change.kind
            else {
                continue;
            };
            let first = first as usize;
            // One call has one answer to what a file allows: what was checked for the
            // operation before need not be again.
            let same = last == Some(step.fd)
                && self.pins.last().is_some_and(|pinned| {
                    let segment = pinned.segment();
                    segment.allows(prot) && segment.has(first, pages)
                });
            if !same {
                let found = asfd::regular_file(step.fd)
                    .and_then(|file| space.obtain(ops, file, first, pages, prot));
                let (guard, pinned) = found.map_err(|error| (Some(index), error))?;
                ops = guard;
                self.pins
                    .push(pinned, GFP_KERNEL_ACCOUNT)
                    .map_err(|error| (None, error.into()))?;
                last = Some(step.fd);
            }
            *segment = self.pins.len() as u32 - 1;
        }
        Ok(ops)
    }

    /// Makes all of it with a journal of so many pieces that are taken away, or with
    /// none, if it cannot be refused.
    fn try_make(
        &mut self,
        space: &Arc<Space>,
        ops: &Ops,
        room: Option<usize>,
    ) -> Result<(), Unmade> {
        let Batch { steps, pins, .. } = self;
        // What is taken away gives its nodes back, so undoing needs no more.
        let need = space
            .install
            .read()
            .layout
            .need(change::NODES * steps.len());
        let mut spare = space.spare(need).map_err(|_| Unmade::Memory)?;
        let mut journal = Journal {
            old: KVVec::with_capacity(room.unwrap_or(0), GFP_KERNEL_ACCOUNT)?,
        };
        let mut removed = Removed::new();
        let (mut all, mut any) = (0..0, false);

        let mut shown = space.install.write();
        shown.layout.refill(&mut spare);
        let mut refused = None;
        for (index, step) in steps.iter_mut().enumerate() {
            step.zap = 0..0;
            let left = room.map_or(usize::MAX, |room| room - journal.old.len());
            let made = step.change.apply(&mut shown.layout, pins, left, |old| {
                removed.add(&old);
                step.zap = hull(step.zap.clone(), entered(&old));
                // There is room, or it would have been refused; or none is needed, and
                // the space's own reference keeps the drop from being the last.
                let _ = journal.old.push_within_capacity((index as u32, old));
            });
            any |= !step.zap.is_empty();
            all = hull(all, step.change.pages.clone());
            if let Err(refusal) = made {
                refused = Some(match refusal {
                    Refusal::Full => Unmade::Full,
                    Refusal::Of(error) => Unmade::Of(index, error),
                });
                journal.undo(&mut shown.layout, &steps[..index]);
                break;
            }
        }
        let revoke = refused.is_none() && any;
        if revoke {
            // All that has changed, and not only what was entered: whoever met the new
            // there might meet the old where it was.
            shown.zapping = all;
        }
        drop(shown);
        drop(spare);
        drop(journal);

        if revoke {
            zap(space, steps);
            space.install.write().zapping = 0..0;
        }
        space.retire(ops, &removed);
        if let Some(refused) = refused {
            return Err(refused);
        }
        if trace::hears_changes() {
            for step in steps.iter() {
                step.change.trace(space, revoke);
            }
        }
        Ok(())
    }
}

/// Checks one operation as far as it can be without its file.
fn step(asfd: &Asfd, op: &uapi::Op) -> Result<Step> {
    let pages = || uapi::range_within(op.addr, op.length, asfd.pages());
    let change = match op.opcode {
        uapi::OP_MMAP => {
            let request = asfd.check_map(op, uapi::MAP_REPLACE | uapi::MAP_POPULATE)?;
            request.change()
        }
        uapi::OP_MUNMAP => {
            uapi::only(op.flags, 0)?;
            Change {
                pages: pages()?,
                kind: Kind::Unmap,
            }
        }
        uapi::OP_PROTECT => {
            uapi::only(op.flags, 0)?;
            let prot = uapi::prot(op.prot)?;
            Change {
                pages: pages()?,
                kind: Kind::Protect { prot },
            }
        }
        _ => return Err(EOPNOTSUPP),
    };
    Ok(Step {
        change,
        fd: op.fd,
        zap: 0..0,
    })
}

/// Zaps what the steps took away and may be entered. Where steps lie side by side it
/// is done in one: each zap asks every attachment.
fn zap(space: &Space, steps: &[Step]) {
    let mut end = 0;
    let mut run = 0..0;
    for step in steps {
        let pages = &step.change.pages;
        if pages.start != end {
            space.zap(&run);
            run = 0..0;
        }
        end = pages.end;
        run = hull(run, step.zap.clone());
    }
    space.zap(&run);
}

/// Why a batch was not made.
enum Unmade {
    /// The layout does not allow the change with this index.
    Of(usize, Error),
    /// The journal is too short.
    Full,
    /// There is no memory.
    Memory,
}

impl From<AllocError> for Unmade {
    fn from(_: AllocError) -> Self {
        Unmade::Memory
    }
}

/// What a batch has changed so far, to be undone if a later change is refused.
struct Journal {
    /// What was shown, in the order in which it was taken away, and by which step.
    old: KVVec<(u32, Old)>,
}

impl Journal {
    /// Takes back steps, the last first. Nobody has seen what they did.
    fn undo(&mut self, layout: &mut Layout<Kernel>, done: &[Step]) {
        for (index, step) in done.iter().enumerate().rev() {
            let pages = &step.change.pages;
            // Cannot be refused: ranges and nodes are those that there were.
            let _ = layout.remove(pages.start, pages.end, usize::MAX, drop);
            while self.old.last().is_some_and(|(by, _)| *by == index as u32) {
                if let Some((_, range)) = self.old.pop() {
                    let _ = layout.replace(range, true, usize::MAX, drop);
                }
            }
        }
    }
}
