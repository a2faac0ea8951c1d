// SPDX-License-Identifier: GPL-2.0

//! Changes of the layout by its owner: map, unmap, protect, move, alone or as a
//! batch.
//!
//! A change is made in one go under the install lock, so that attachers and guests
//! see the layout before or after it, and then revoked with no lock held but `ops`.
//! All memory that it may need, to be made and to be undone, is there beforehand.

use core::ops::Range;

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{atomic::ordering::*, Arc},
};

use crate::{
    frames::HUGE_PAGES,
    layout::{self, Layout, Need, Prot, Spare},
    segment::Segment,
    segments::{Ops, Pinned},
    space::{Kernel, Space},
    trace,
};

type Shown = layout::Range<Arc<Segment>>;

/// How many segments a change remembers before it looks at all instead.
const REMEMBERED: usize = 8;

/// Nodes that one change takes at most, and as many to undo it.
const NODES: usize = 2 * Layout::<Kernel>::REPLACE_NODES;

/// One change. Pages lie within the space.
pub(crate) enum Change {
    /// Shows pages of a segment from `offset` on. `EEXIST` where something is shown,
    /// unless it may be replaced.
    Map {
        pages: Range<u64>,
        segment: Pinned,
        offset: u64,
        prot: Prot,
        replace: bool,
        /// See `populate.rs`.
        populate: bool,
    },
    /// Shows nothing.
    Unmap { pages: Range<u64> },
    /// Changes the protection. `ENOENT` where there is a hole, `EACCES` for more than
    /// what the segment was checked for.
    Protect { pages: Range<u64>, prot: Prot },
    /// Shows elsewhere what is shown here, and nothing here. `ENOENT` where there is
    /// a hole; `EEXIST` as for a map.
    Move {
        pages: Range<u64>,
        to: u64,
        replace: bool,
    },
}

impl Change {
    /// The pages that show something else afterwards; for a move, where they were.
    fn pages(&self) -> &Range<u64> {
        match self {
            Change::Map { pages, .. }
            | Change::Unmap { pages }
            | Change::Protect { pages, .. }
            | Change::Move { pages, .. } => pages,
        }
    }

    /// Where a move goes.
    fn target(&self) -> Option<Range<u64>> {
        match self {
            Change::Move { pages, to, .. } => Some(*to..*to + (pages.end - pages.start)),
            _ => None,
        }
    }

    fn prot(&self) -> Prot {
        match self {
            Change::Map { prot, .. } | Change::Protect { prot, .. } => *prot,
            _ => Prot::NONE,
        }
    }

    /// Refuses what the layout as it is does not allow.
    fn check(&self, layout: &Layout<Kernel>) -> Result {
        let empty = |range: &Range<u64>| {
            if layout.overlaps(range.start, range.end) {
                Err(EEXIST)
            } else {
                Ok(())
            }
        };
        let covered = |range: &Range<u64>| {
            if layout.covered(range.start, range.end) {
                Ok(())
            } else {
                Err(ENOENT)
            }
        };
        match self {
            Change::Map {
                pages,
                replace: false,
                ..
            } => empty(pages),
            Change::Map { .. } | Change::Unmap { .. } => Ok(()),
            Change::Protect { pages, prot } => {
                covered(pages)?;
                let more = layout
                    .ranges(pages.start, pages.end)
                    .any(|range| !range.segment.allows(*prot));
                if more {
                    Err(EACCES)
                } else {
                    Ok(())
                }
            }
            Change::Move { pages, to, replace } => {
                covered(pages)?;
                if *replace {
                    Ok(())
                } else {
                    empty(&(*to..*to + (pages.end - pages.start)))
                }
            }
        }
    }

    /// Makes the change, which [`Self::check`] has allowed, handing out what is no
    /// longer shown or with other rights.
    fn apply(&self, layout: &mut Layout<Kernel>, mut old: impl FnMut(Shown)) -> Result {
        let changed: Result<(), layout::Refused> = match self {
            Change::Map {
                pages,
                segment,
                offset,
                prot,
                ..
            } => layout.replace(
                layout::Range {
                    start: pages.start,
                    end: pages.end,
                    segment: segment.segment().clone(),
                    offset: *offset,
                    prot: *prot,
                    entered: layout::Entered::new(),
                },
                true,
                usize::MAX,
                old,
            ),
            Change::Unmap { pages } => layout.remove(pages.start, pages.end, usize::MAX, old),
            Change::Protect { pages, prot } => {
                parts(layout, pages, &mut old);
                layout.protect(pages.start, pages.end, *prot)
            }
            Change::Move { pages, to, .. } => {
                let mut at = pages.start;
                let mut result = Ok(());
                while let Some(mut part) = part(layout, at, pages) {
                    at = part.end;
                    let gone = layout.remove(part.start, part.end, usize::MAX, &mut old);
                    part.start = part.start - pages.start + to;
                    part.end = part.end - pages.start + to;
                    part.entered = layout::Entered::new();
                    let shown = layout.replace(part, true, usize::MAX, &mut old);
                    result = result.and(gone).and(shown);
                }
                result
            }
        };
        // All that could be refused was: ranges lie within the space, and there are
        // nodes enough.
        changed.map_err(|_| EINVAL)
    }
}

/// The first range that is shown from page `at` on, cut to `within`.
fn part(layout: &Layout<Kernel>, at: u64, within: &Range<u64>) -> Option<Shown> {
    let mut part = layout.next(at)?.clone();
    let start = part.start.max(at);
    part.offset = part.offset_of(start)?;
    part.start = start;
    part.end = part.end.min(within.end);
    (part.start < part.end).then_some(part)
}

/// Copies what is shown in `within`.
fn parts(layout: &Layout<Kernel>, within: &Range<u64>, mut each: impl FnMut(Shown)) {
    let mut at = within.start;
    while let Some(part) = part(layout, at, within) {
        at = part.end;
        each(part);
    }
}

/// Where a change shows something else than before.
fn touched(change: &Change) -> impl Iterator<Item = Range<u64>> + '_ {
    [Some(change.pages().clone()), change.target()]
        .into_iter()
        .flatten()
}

/// The smallest range around all that changes touch.
fn hull(changes: &[Change]) -> Range<u64> {
    changes
        .iter()
        .flat_map(touched)
        .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
        .unwrap_or(0..0)
}

/// What a change took away: the segments to look after, and what must be zapped.
struct Removed {
    segments: [Option<Arc<Segment>>; REMEMBERED],
    any: bool,
    more: bool,
}

impl Removed {
    fn new() -> Self {
        Removed {
            segments: [const { None }; REMEMBERED],
            any: false,
            more: false,
        }
    }

    /// Remembers the segment of a range. Called under the install lock; the space's
    /// own reference keeps the drop of the range's from being the last.
    fn add(&mut self, range: Shown) {
        self.any = true;
        if range.segment.suspect.xchg(true, Relaxed) {
            return;
        }
        match self.segments.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(range.segment),
            None => self.more = true,
        }
    }
}

/// Why a batch was not made.
enum Refusal {
    /// The layout does not allow the change with this index.
    Of(usize, Error),
    /// The journal is too short.
    Full,
    /// There is no memory.
    Memory,
}

impl From<AllocError> for Refusal {
    fn from(_: AllocError) -> Self {
        Refusal::Memory
    }
}

/// What a batch has changed so far, to be undone if a later change is refused.
struct Journal {
    /// What was shown, in the order in which it was taken away.
    old: KVVec<Shown>,
}

impl Journal {
    /// Takes back the changes of a batch, the last first; `marks` tells how much each
    /// had taken away. Nobody has seen them.
    fn undo(&mut self, layout: &mut Layout<Kernel>, done: &[Change], marks: &[usize]) {
        for (change, mark) in done.iter().zip(marks).rev() {
            let pages = change.pages();
            // Cannot be refused: ranges and nodes are those that there were.
            let _ = layout.remove(pages.start, pages.end, usize::MAX, drop);
            while self.old.len() > *mark {
                let Some(range) = self.old.pop() else { break };
                let _ = layout.replace(range, true, usize::MAX, drop);
            }
        }
    }
}

impl Space {
    /// Memory for the layout, charged to the creator. No lock but `ops` may be held.
    fn spare(&self, need: Need) -> Result<Spare<Kernel>> {
        let _charge = (!need.is_none()).then(|| self.arena.charge());
        Spare::new(need)
    }

    /// Makes one change.
    pub(crate) fn change(self: &Arc<Self>, ops: &Ops, change: &Change) -> Result {
        let need = {
            let shown = self.install.read();
            change.check(&shown.layout)?;
            shown.layout.need(NODES)
        };
        let mut spare = self.spare(need)?;
        let mut removed = Removed::new();
        let mut shown = self.install.write();
        shown.layout.refill(&mut spare);
        let changed = change.apply(&mut shown.layout, |range| removed.add(range));
        if removed.any {
            shown.zapping = hull(core::slice::from_ref(change));
        }
        drop(shown);
        drop(spare);
        self.revoke(ops, core::slice::from_ref(change), &removed);
        changed
    }

    /// Makes all of `changes`, or none: then it is told why, and which was refused, if
    /// it was one. No change may be a move.
    pub(crate) fn change_all(
        self: &Arc<Self>,
        ops: &Ops,
        changes: &[Change],
    ) -> Result<(), (Option<usize>, Error)> {
        // What is shown now can be taken away, and be cut at the borders of every
        // change; and so can what the batch itself shows, again and again.
        let now: usize = {
            let shown = self.install.read();
            let count = |change: &Change| {
                let pages = change.pages();
                shown.layout.ranges(pages.start, pages.end).count()
            };
            changes.iter().map(count).sum()
        };
        let mut room = now + 4 * changes.len();
        loop {
            match self.try_changes(ops, changes, room) {
                Err(Refusal::Full) => room *= 2,
                Err(Refusal::Memory) => return Err((None, ENOMEM)),
                Err(Refusal::Of(index, error)) => return Err((Some(index), error)),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// The same with a journal of a certain length.
    fn try_changes(
        self: &Arc<Self>,
        ops: &Ops,
        changes: &[Change],
        room: usize,
    ) -> Result<(), Refusal> {
        // What is taken away gives its nodes back, so undoing needs no more.
        let need = self.install.read().layout.need(NODES * changes.len());
        let mut spare = self.spare(need).map_err(|_| Refusal::Memory)?;
        let mut journal = Journal {
            old: KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?,
        };
        let mut marks: KVVec<usize> = KVVec::with_capacity(changes.len(), GFP_KERNEL_ACCOUNT)?;

        let mut shown = self.install.write();
        shown.layout.refill(&mut spare);
        let mut refused = None;
        for (index, change) in changes.iter().enumerate() {
            let layout = &mut shown.layout;
            let pages = change.pages();
            let taken = layout.ranges(pages.start, pages.end).count();
            if journal.old.len() + taken > room {
                refused = Some(Refusal::Full);
                break;
            }
            let made = change.check(layout).and_then(|()| {
                let mark = journal.old.len();
                let made = change.apply(layout, |range| {
                    // There is room: it was just counted.
                    let _ = journal.old.push_within_capacity(range);
                });
                let _ = marks.push_within_capacity(mark);
                made
            });
            if let Err(error) = made {
                refused = Some(Refusal::Of(index, error));
                break;
            }
        }
        if refused.is_some() {
            journal.undo(&mut shown.layout, &changes[..marks.len()], &marks);
        } else if !journal.old.is_empty() {
            shown.zapping = hull(changes);
        }
        drop(shown);
        drop(spare);

        if let Some(refused) = refused {
            return Err(refused);
        }
        let mut removed = Removed::new();
        while let Some(range) = journal.old.pop() {
            removed.add(range);
        }
        self.revoke(ops, changes, &removed);
        Ok(())
    }

    /// Revokes what changes have taken away.
    fn revoke(self: &Arc<Self>, ops: &Ops, changes: &[Change], removed: &Removed) {
        if removed.any {
            let mut run: Option<Range<u64>> = None;
            for range in changes.iter().flat_map(touched) {
                // Ranges that meet are zapped as one: each zap asks every attachment.
                run = match run {
                    Some(run) if range.start <= run.end && run.start <= range.end => {
                        Some(run.start.min(range.start)..run.end.max(range.end))
                    }
                    run => {
                        run.inspect(|run| self.zap(run));
                        Some(range)
                    }
                };
            }
            run.inspect(|run| self.zap(run));
            self.install.write().zapping = 0..0;
            self.retire(ops, removed);
        }
        for change in changes {
            for range in touched(change) {
                trace::change(&self.mapping, &range, change.prot(), removed.any);
            }
        }
    }

    /// Looks after the segments of which something was removed: where nothing is
    /// shown any more, lets go of the frames at once (a held frame keeps a memfd
    /// from being sealed) and of the rest in a while.
    fn retire(self: &Arc<Self>, ops: &Ops, removed: &Removed) {
        let mut idle = false;
        let mut look = |segment: &Arc<Segment>| {
            if !segment.suspect.xchg(false, Relaxed)
                || segment.registered.load(Relaxed)
                || self.install.read().layout.shows(segment.id())
            {
                return;
            }
            self.forget_frames(segment);
            idle = true;
        };
        if removed.more {
            ops.segments().iter().for_each(&mut look);
        } else {
            removed.segments.iter().flatten().for_each(&mut look);
        }
        if idle {
            self.reap_later();
        }
    }

    /// Where `pages` pages of a file from page `first` on may go, so that huge pages
    /// can be used if there are any. `ENOSPC`. The ops lock must be held.
    pub(crate) fn find_room(&self, pages: u64, first: u64) -> Result<u64> {
        let mut shown = self.install.write();
        let huge = HUGE_PAGES as u64;
        let aligned = if pages >= huge {
            shown.layout.find_hole(pages, huge, first % huge)
        } else {
            None
        };
        aligned
            .or_else(|| shown.layout.find_hole(pages, 1, 0))
            .ok_or(ENOSPC)
    }
}
