// SPDX-License-Identifier: GPL-2.0

//! A batch: changes that are made all at once or not at all. Attachers and guests see the layout
//! before or after it, never between.
//!
//! Under `ops` the segments are found, the changes made under the install lock (`hold.rs`), and
//! what they took away is revoked. A change that is refused has those before it undone, from a
//! journal, before anybody has seen them.

use core::{
    cell::{
        Cell,
        OnceCell, //
    },
    ops::Range, //
};

use kernel::{
    prelude::*,
    sync::{
        new_spinlock,
        Arc,
        MutexGuard,
        SpinLock, //
    },
};

use crate::{
    layout::{
        FewRanges,
        Pages,
        SpacePage, //
    },
    segment::{
        list::{
            Ops,
            Pins, //
        },
        source::Backing,
    },
    space::{
        change::{
            self,
            installed,
            Change,
            ChangeError,
            Kind,
            Old, //
        },
        hold::{
            Hold,
            PIECE, //
        },
        segments::Removed,
        zapping::Zapping,
        Space, //
    },
    sys::{
        trace,
        wait::is_killed,
        warn::warn_on_once, //
    },
};

/// Two places are zapped as one where there are no more pages between them, and nothing is shown
/// there: each zap asks every attachment, which takes as long as this many entries.
const BETWEEN: u64 = 32;

/// One operation.
struct Step {
    change: Change,
    /// The file to map; without meaning for others.
    fd: i32,
    /// First page and end of where what it takes away may be installed in some attachment; or of
    /// what is zapped with it; or of nothing, if it is zapped with another's. A cell, since the
    /// steps are borrowed, to say what they touch, as long as they are made.
    zap: Cell<(SpacePage, SpacePage)>,
}

impl Step {
    fn zap(&self) -> Range<SpacePage> {
        let (start, end) = self.zap.get();
        start..end
    }

    fn set_zap(&self, pages: Range<SpacePage>) {
        self.zap.set((pages.start, pages.end));
    }
}

/// The most operations whose place is kept for the next batch.
const KEPT: usize = 128;

/// The place of a batch's operations, from one batch to the next: to allocate it is to clear it.
///
/// Locks: a spinlock, inside which there is nothing.
#[pin_data]
pub(crate) struct SpareSteps {
    #[pin]
    steps: SpinLock<Option<KVVec<Step>>>,
}

impl SpareSteps {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            steps <- new_spinlock!(None, "SpareSteps"),
        })
    }
}

/// Why a batch was not made: which operation was refused, if it was one, and the error.
pub(crate) struct BatchError {
    pub(crate) index: Option<usize>,
    pub(crate) error: Error,
}

/// Operations to be made at once.
pub(crate) struct Batch {
    steps: KVVec<Step>,
    /// The error of the operation after the last, which cannot be read, or means nothing.
    broken: Option<Error>,
    /// Segments that the steps show.
    pins: Pins,
}

impl Batch {
    /// Nothing yet, with room for `count` operations. May sleep. `ENOMEM`.
    pub(crate) fn new(space: &Space, count: usize) -> Result<Batch> {
        let kept = if count <= KEPT {
            space.spare_steps.steps.lock().take()
        } else {
            None
        };
        let steps = match kept {
            Some(kept) if kept.capacity() >= count => kept,
            // One that may be kept is charged to the creator and not to the caller.
            _ if count <= KEPT => {
                let make = || KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT);
                space.arenas.main().charge(make)?
            }
            _ => KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?,
        };
        Ok(Batch {
            steps,
            broken: None,
            pins: Pins::new(),
        })
    }

    /// Ends a batch, whose place may serve for another.
    pub(crate) fn end(self, space: &Space) {
        let mut place = self.steps;
        place.clear();
        if place.capacity() > KEPT {
            return;
        }
        let mut kept = space.spare_steps.steps.lock();
        let room = kept.as_ref().map_or(0, |kept| kept.capacity());
        let other = match room < place.capacity() {
            true => kept.replace(place),
            false => Some(place),
        };
        drop(kept);
        // Not under the lock.
        drop(other);
    }

    /// Adds an operation, for which there is room; `fd` is the file to map, if it is a map.
    pub(crate) fn push(&mut self, change: Change, fd: i32) {
        let pushed = self.steps.push_within_capacity(Step {
            change,
            fd,
            zap: Cell::new((SpacePage::FIRST, SpacePage::FIRST)),
        });
        warn_on_once!(pushed.is_err());
    }

    /// There is an operation more, which fails with `error` whatever those before it come to.
    pub(crate) fn break_off(&mut self, error: Error) {
        self.broken = Some(error);
    }

    /// The changes in their order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Change> + Clone {
        self.steps.iter().map(|step| &step.change)
    }

    /// The segments that they show.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Makes all of it, or nothing. `backing_of` gets what an fd stands for, or private copies of
    /// that. No lock may be held.
    pub(crate) fn run(
        &mut self,
        space: &Arc<Space>,
        backing_of: impl Fn(i32, bool) -> Result<Backing>,
    ) -> Result<(), BatchError> {
        let mut ops = self.find_segments(space, space.ops.lock(), backing_of)?;
        if let Some(error) = self.broken {
            let index = Some(self.steps.len());
            return Err(BatchError { index, error });
        }
        // What cannot be refused need not be undone. Else most take away one piece at most.
        let sure = |step: &Step| matches!(step.change.kind, Kind::Unmap);
        let mut room = if self.steps.iter().all(sure) {
            None
        } else {
            let takers = self.steps.iter().filter(|step| step.change.takes_away());
            Some(takers.count())
        };
        loop {
            match self.try_run(space, &mut ops, room) {
                Ok(()) => return Ok(()),
                Err((_, ChangeError::NoRoom)) => room = room.map(|room| room.max(8) * 2),
                Err((index, ChangeError::Refused(error))) => {
                    return Err(BatchError { index, error });
                }
            }
        }
    }

    /// Finds or makes the segments of what is to be mapped. The lock is released while one is
    /// made.
    fn find_segments<'a>(
        &mut self,
        space: &'a Arc<Space>,
        mut ops: MutexGuard<'a, Ops>,
        backing_of: impl Fn(i32, bool) -> Result<Backing>,
    ) -> Result<MutexGuard<'a, Ops>, BatchError> {
        let mut last = None;
        for (index, step) in self.steps.iter_mut().enumerate() {
            let count = step.change.pages.count();
            let Kind::Map {
                first,
                private,
                ref mut segment,
                prot,
                ..
            } = step.change.kind
            else {
                continue;
            };
            let part = first..first + count;
            // One call has one answer to what a file allows: what was checked for the operation
            // before need not be again.
            let same = !private
                && last == Some(step.fd)
                && self.pins.last().is_some_and(|pinned| {
                    let segment = pinned.segment();
                    segment.allows(prot) && segment.has(&part)
                });
            if !same {
                let found = match is_killed() {
                    true => Err(EINTR),
                    false => backing_of(step.fd, private),
                }
                .and_then(|backing| space.obtain(ops, backing, part, prot));
                let (guard, pinned) = found.map_err(|error| BatchError {
                    index: Some(index),
                    error,
                })?;
                ops = guard;
                self.pins.push(pinned).map_err(|error| BatchError {
                    index: None,
                    error: error.into(),
                })?;
                last = (!private).then_some(step.fd);
            }
            *segment = (self.pins.len() - 1) as u32;
        }
        Ok(ops)
    }

    /// Makes all of it with a journal of so many pieces that are taken away, or with none, if it
    /// cannot be refused. An error comes with the operation that met it, if it was one.
    fn try_run(
        &mut self,
        space: &Arc<Space>,
        ops: &mut Ops,
        room: Option<usize>,
    ) -> Result<(), (Option<usize>, ChangeError)> {
        let Batch { steps, pins, .. } = self;
        // What is taken away gives its nodes back, so undoing needs no more.
        let nodes = change::NODES * steps.len();
        let memory = |error: Error| (None, ChangeError::Refused(error));
        let mut journal = match room {
            None | Some(0) => None,
            Some(room) => Some(Journal::new(room).map_err(memory)?),
        };
        let mut removed = Removed::new();
        let steps = &*steps;
        // Of many they are put together before the lock is acquired, and of few when somebody needs
        // them.
        let all = OnceCell::new();
        let changes = || all.get_or_init(|| touched(steps)).clone();
        if steps.len() > PIECE {
            let _ = changes();
        }
        let mut any = false;

        let (shown, spare) = space.write_with_nodes(ops, nodes).map_err(memory)?;
        let mut hold = Hold::new(space, ops, shown, &changes);
        let mut refused = None;
        let mut changed = 0;
        for (index, step) in steps.iter().enumerate() {
            // Not after the last, which would let the lock go for nothing.
            hold.spend(changed);
            let mut zap: Range<SpacePage> = Pages::none();
            let used = journal.as_ref().map_or(0, |journal| journal.old.len());
            let left = room.map_or(usize::MAX, |room| room - used);
            let mut taken = 0;
            let made = step.change.apply(&mut hold, pins, left, |old| {
                taken += 1;
                let pages = old.offset..old.offset_end();
                zap = zap.clone().hull(installed(&old));
                match &mut journal {
                    Some(journal) => {
                        removed.add(old.segment.clone(), &pages);
                        journal.note(index, old);
                    }
                    None => removed.add(old.segment, &pages),
                }
            });
            let zap = zap.hull(space.absorbed.among(&step.change.pages));
            any |= !zap.is_empty();
            step.set_zap(zap);
            if let Err(error) = made {
                refused = Some((Some(index), error));
                break;
            }
            changed = 1 + taken;
        }
        if let Some((Some(index), _)) = refused {
            undo(&mut hold, steps, index, journal.as_mut());
        }
        // A notifier that looked while something was away has missed it, though it is back: so it
        // is zapped in its place.
        let revoke = (any && (refused.is_none() || hold.was_let_go())).then(changes);
        let revoked = revoke.is_some();
        let surplus = hold.finish(revoke.as_ref());
        drop(spare);
        drop(journal);

        if let Some(changes) = &revoke {
            join_zaps(space, ops, steps);
            let mut zapping = Zapping::new();
            for step in steps {
                zapping.add(&step.zap(), |pages| space.zap(ops, pages));
            }
            zapping.finish(|pages| space.zap(ops, pages));
            // Of a batch that was refused not all was looked at.
            let none = FewRanges::none();
            let zapped = if refused.is_none() { changes } else { &none };
            space.end_revoking(ops, zapped);
        }
        let made = if refused.is_none() { steps.len() } else { 0 };
        let made = steps.iter().take(made).map(|step| &step.change);
        space.wake(ops, made, || revoke.unwrap_or_else(changes));
        space.release_unused(ops, removed);
        if surplus {
            space.shed(ops);
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        if trace::change_is_enabled() {
            for step in steps {
                step.change.trace(space, revoked);
            }
        }
        Ok(())
    }
}

/// All that the steps change, and not only what was installed: a process that met the new there
/// might meet the old where it was.
fn touched(steps: &[Step]) -> FewRanges {
    let mut touched = FewRanges::none();
    for step in steps {
        touched.add(&step.change.pages);
    }
    touched
}

/// Makes one zap of those that lie side by side, or nearly so; to be asked when the changes have
/// been made.
fn join_zaps(space: &Space, ops: &Ops, steps: &[Step]) {
    let mut last: Option<&Step> = None;
    for step in steps {
        if step.zap().is_empty() {
            continue;
        }
        match last {
            Some(last) if joins(space, ops, &last.zap(), &step.zap()) => {
                last.set_zap(last.zap().hull(step.zap()));
                step.set_zap(Pages::none());
            }
            _ => last = Some(step),
        }
    }
}

/// Whether nothing is shown in the little that is between two ranges.
fn joins(space: &Space, _ops: &Ops, a: &Range<SpacePage>, b: &Range<SpacePage>) -> bool {
    let start = a.end.min(b.end);
    let end = a.start.max(b.start);
    // They meet or overlap, or what is between them is in no attachment.
    end <= start || (end - start <= BETWEEN && !space.install.read().layout.overlaps(start..end))
}

/// What a batch has changed so far, to be undone if a later change is refused.
struct Journal {
    /// What was shown, in the order in which it was taken away, and by which step.
    old: KVVec<(u32, Old)>,
}

impl Journal {
    fn new(room: usize) -> Result<Journal> {
        Ok(Journal {
            old: KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?,
        })
    }

    /// Notes what a step took away; there is room, or the change would have been refused.
    fn note(&mut self, step: usize, old: Old) {
        warn_on_once!(self.old.push_within_capacity((step as u32, old)).is_err());
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

/// Undoes the steps before step `end`, the last first. Nothing was installed that shows what they
/// did.
fn undo(hold: &mut Hold<'_>, steps: &[Step], end: usize, mut journal: Option<&mut Journal>) {
    for index in (0..end).rev() {
        let Some(step) = steps.get(index) else {
            continue;
        };
        // Neither can be refused: ranges and nodes are those that there were.
        let removed = change::remove(hold, &step.change.pages, drop);
        warn_on_once!(removed.is_err());
        while let Some(old) = journal.as_mut().and_then(|journal| journal.take(index)) {
            let replaced = hold.layout().replace(old, true, usize::MAX, drop);
            warn_on_once!(replaced.is_err());
            hold.spend(1);
        }
    }
}
