// SPDX-License-Identifier: GPL-2.0

//! A batch: operations that are read from user space, and made all at once or not at
//! all. Attachers and guests see the layout before or after it, never between.
//!
//! The operations are read and checked with no lock held, since user memory may be
//! anything; then, under `ops`, their files' segments are found, the changes made in
//! one go under the install lock, and what they took away is revoked. A change that is
//! refused has those before it undone, from a journal, before anybody has seen them.

use core::ops::{
    Deref,
    DerefMut,
    Range, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    },
};

use crate::{
    call::{
        request::{
            regular_file,
            MapRequest, //
        },
        uapi::{
            self,
            Arg, //
        },
    },
    layout::Layout,
    space::{
        change::{
            self,
            entered,
            hull,
            Change,
            Kind,
            Old,
            Refusal,
            Removed, //
        },
        segments::{
            Ops,
            Pins, //
        },
        Kernel,
        Space, //
    },
    sys::trace, //
};

/// How many operations are read at a time: few, since their place is cleared for each
/// batch, and most have few.
const AT_A_TIME: usize = 4;

/// How many operations need no allocation: a request of a device has about as many
/// buffers.
const FEW: usize = 4;

/// Two places are zapped as one where there are no more pages between them, and nothing
/// is shown there: each zap asks every attachment, which takes as long as this many
/// entries.
const BETWEEN: u64 = 32;

/// Which operation was refused, if it was one, and why.
pub(crate) type Refused = (Option<usize>, Error);

/// One operation.
struct Step {
    change: Change,
    /// The file to map; without meaning for others.
    fd: i32,
    /// Where what it takes away may be entered in some window; or what is zapped with
    /// it, or nothing, if it is zapped with another's.
    zap: Range<u64>,
}

impl Step {
    const NONE: Step = Step {
        change: Change {
            pages: 0..0,
            kind: Kind::Unmap,
        },
        fd: -1,
        zap: 0..0,
    };
}

/// The operations.
struct Steps {
    few: [Step; FEW],
    /// All of them, if they are more. (Not an empty list else: that is freed by a call.)
    many: Option<KVVec<Step>>,
    count: usize,
}

impl Steps {
    /// None, and room for a few.
    const fn new() -> Steps {
        Steps {
            few: [Step::NONE; FEW],
            many: None,
            count: 0,
        }
    }

    /// Makes room for so many, while there are none.
    fn reserve(&mut self, room: usize) -> Result {
        if room > FEW {
            self.many = Some(KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?);
        }
        Ok(())
    }

    /// Adds one. There must be room.
    fn push(&mut self, step: Step) -> Result {
        match &mut self.many {
            Some(many) => many.push(step, GFP_KERNEL_ACCOUNT)?,
            None => *self.few.get_mut(self.count).ok_or(EINVAL)? = step,
        }
        self.count += 1;
        Ok(())
    }
}

impl Deref for Steps {
    type Target = [Step];

    fn deref(&self) -> &[Step] {
        match &self.many {
            Some(many) => many,
            None => &self.few[..self.count],
        }
    }
}

impl DerefMut for Steps {
    fn deref_mut(&mut self) -> &mut [Step] {
        match &mut self.many {
            Some(many) => many,
            None => &mut self.few[..self.count],
        }
    }
}

/// A batch that was read.
pub(crate) struct Batch {
    steps: Steps,
    /// The operation that cannot be read, or means nothing; `steps` has those before.
    broken: Option<(usize, Error)>,
    /// Segments that the steps show.
    pins: Pins,
}

impl Batch {
    /// Nothing yet. (It is read into its place: it is large to be moved.)
    pub(crate) const fn new() -> Batch {
        Batch {
            steps: Steps::new(),
            broken: None,
            pins: Pins::new(),
        }
    }

    /// Reads a batch for a space of `limit` pages. No lock may be held.
    pub(crate) fn read(&mut self, arg: &uapi::Batch, limit: u64) -> Result {
        let count = arg.nr_ops as usize;
        let Batch { steps, broken, .. } = self;
        steps.reserve(count)?;
        let mut buffer = [uapi::Op::ZERO; AT_A_TIME];
        while steps.len() < count && broken.is_none() {
            let buffer = &mut buffer[..AT_A_TIME.min(count - steps.len())];
            let read = arg.read_ops(steps.len(), buffer);
            for op in buffer.iter().take(read) {
                match step(op, limit) {
                    Ok(step) => steps.push(step)?,
                    Err(error) => {
                        *broken = Some((steps.len(), error));
                        break;
                    }
                }
            }
            if read < buffer.len() && broken.is_none() {
                // Read alone, it tells why.
                let error = arg.read_op(steps.len()).err().unwrap_or(EFAULT);
                *broken = Some((steps.len(), error));
            }
        }
        Ok(())
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
                let found = regular_file(step.fd)
                    .and_then(|file| space.obtain(ops, file, first, pages, prot));
                let (guard, pinned) = found.map_err(|error| (Some(index), error))?;
                ops = guard;
                self.pins.push(pinned).map_err(|error| (None, error))?;
                last = Some(step.fd);
            }
            *segment = self.pins.last_place();
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
        let nodes = change::NODES * steps.len();
        let mut journal = match room {
            None | Some(0) => None,
            Some(room) => Some(Journal::new(room)?),
        };
        let mut removed = Removed::new();
        let (mut all, mut any) = (0..0, false);

        let (mut shown, spare) = space.write(nodes).map_err(|_| Unmade::Memory)?;
        let mut refused = None;
        for (index, step) in steps.iter_mut().enumerate() {
            step.zap = 0..0;
            let used = journal.as_ref().map_or(0, |journal| journal.old.len());
            let left = room.map_or(usize::MAX, |room| room - used);
            let made = step.change.apply(&mut shown.layout, pins, left, |old| {
                removed.add(&old);
                step.zap = hull(step.zap.clone(), entered(&old));
                if let Some(journal) = &mut journal {
                    // There is room, or it would have been refused.
                    let _ = journal.old.push_within_capacity((index as u32, old));
                }
                // Else the space's own reference keeps the drop from being the last.
            });
            any |= !step.zap.is_empty();
            all = hull(all, step.change.pages.clone());
            if let Err(refusal) = made {
                refused = Some(match refusal {
                    Refusal::Full => Unmade::Full,
                    Refusal::Of(error) => Unmade::Of(index, error),
                });
                undo(&mut shown.layout, &steps[..index], journal.as_mut());
                break;
            }
        }
        let revoke = refused.is_none() && any;
        if revoke {
            // All that has changed, and not only what was entered: whoever met the new
            // there might meet the old where it was.
            shown.zapping = all;
            join_zaps(steps, &shown.layout);
        }
        drop(shown);
        drop(spare);
        drop(journal);

        if revoke {
            for step in steps.iter() {
                space.zap(&step.zap);
            }
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
fn step(op: &uapi::Op, limit: u64) -> Result<Step> {
    let pages = || uapi::range_within(op.addr, op.length, limit);
    let change = match op.opcode {
        uapi::OP_MMAP => {
            let request = MapRequest::check(op, uapi::MAP_REPLACE | uapi::MAP_POPULATE, limit)?;
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

/// Makes one zap of those that lie side by side, or nearly so; to be asked with the
/// install lock held, when the changes have been made.
fn join_zaps(steps: &mut [Step], layout: &Layout<Kernel>) {
    let mut into = 0;
    for at in 1..steps.len() {
        let Some((before, [step, ..])) = steps.split_at_mut_checked(at) else {
            break;
        };
        let Some(last) = before.get_mut(into) else {
            break;
        };
        if step.zap.is_empty() {
            continue;
        }
        if last.zap.is_empty() || !joins(&last.zap, &step.zap, layout) {
            into = at;
            continue;
        }
        last.zap = hull(last.zap.clone(), step.zap.clone());
        step.zap = 0..0;
    }
}

/// Whether nothing is shown in the little that is between two ranges.
fn joins(a: &Range<u64>, b: &Range<u64>, layout: &Layout<Kernel>) -> bool {
    let start = a.end.min(b.end);
    let end = a.start.max(b.start);
    // They meet or overlap, or what is between them is in no window.
    end <= start || (end - start <= BETWEEN && !layout.overlaps(start, end))
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
    fn new(room: usize) -> Result<Journal, AllocError> {
        Ok(Journal {
            old: KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?,
        })
    }

    /// Takes what was noted last, if it was by this step.
    fn take(&mut self, step: usize) -> Option<Old> {
        let (by, _) = self.old.last()?;
        if *by != step as u32 {
            return None;
        }
        self.old.pop().map(|(_, old)| old)
    }
}

/// Takes back steps, the last first. Nobody has seen what they did.
fn undo(layout: &mut Layout<Kernel>, done: &[Step], mut journal: Option<&mut Journal>) {
    for (index, step) in done.iter().enumerate().rev() {
        let pages = &step.change.pages;
        // Cannot be refused: ranges and nodes are those that there were.
        let _ = layout.remove(pages.start, pages.end, usize::MAX, drop);
        while let Some(old) = journal.as_mut().and_then(|journal| journal.take(index)) {
            let _ = layout.replace(old, true, usize::MAX, drop);
        }
    }
}
