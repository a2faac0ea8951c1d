// SPDX-License-Identifier: GPL-2.0

//! Changes of the layout by its owner: map, unmap, protect, move. Several at once are in
//! `batch.rs`.
//!
//! A change is made in one go under the install lock, so that attachers and guests see the layout
//! before or after it, and then revoked with no lock held but `ops`: only where pages were
//! installed in an attachment, since nothing else can be reached. All memory that it may need is
//! allocated beforehand.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    layout::{
        self,
        Layout,
        Need,
        Prot,
        Refused,
        Spare, //
    },
    segment::{
        frames::HUGE_PAGES,
        list::{
            Ops,
            Pins, //
        },
        Segment, //
    },
    space::{
        segments::Removed,
        store::Kernel,
        Shown,
        Space, //
    },
    sys::{
        rwsem::WriteGuard,
        trace, //
    },
};

/// What a piece of the space showed.
pub(crate) type Old = layout::Range<Arc<Segment>>;

/// Nodes that one change takes at most, and as many to undo it.
pub(super) const NODES: usize = 2 * Layout::<Kernel>::REPLACE_NODES;

/// One change. Pages lie within the space.
pub(crate) struct Change {
    /// The pages that show something else afterwards; for a move, where they were.
    pub(crate) pages: Range<u64>,
    pub(crate) kind: Kind,
}

/// What is done to the pages.
pub(crate) enum Kind {
    /// Shows pages of a file from page `first` on. `EEXIST` where something is shown, unless it
    /// may be replaced.
    Map {
        first: u64,
        /// Of those that the call has pinned, the segment that has the file's pages.
        segment: u32,
        prot: Prot,
        replace: bool,
        /// Whether the pages are brought in and installed afterwards.
        populate: bool,
    },
    /// Shows nothing.
    Unmap,
    /// Changes the protection. `ENOENT` where there is a hole, `EACCES` for more than what the
    /// segment was checked for.
    Protect { prot: Prot },
    /// Shows elsewhere what is shown here, and nothing here. `ENOENT` where there is a hole;
    /// `EEXIST` as for a map.
    Move { to: u64, replace: bool },
}

/// Why a change was not made.
pub(super) enum ChangeError {
    /// The owner gets this error.
    Refused(Error),
    /// More would be removed than there is room for.
    NoRoom,
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        ChangeError::Refused(error)
    }
}

impl From<Refused> for ChangeError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Room => ChangeError::NoRoom,
            Refused::Shown => ChangeError::Refused(EEXIST),
            // Ranges lie within the space, and there are nodes enough.
            Refused::Nodes | Refused::Range => ChangeError::Refused(EINVAL),
        }
    }
}

impl Change {
    /// Where a move goes.
    fn target(&self) -> Option<Range<u64>> {
        match self.kind {
            Kind::Move { to, .. } => Some(to..to + (self.pages.end - self.pages.start)),
            _ => None,
        }
    }

    fn prot(&self) -> Prot {
        match self.kind {
            Kind::Map { prot, .. } | Kind::Protect { prot } => prot,
            _ => Prot::NONE,
        }
    }

    /// Whether anything that is shown may be shown no longer, or otherwise.
    pub(super) fn takes_away(&self) -> bool {
        !matches!(self.kind, Kind::Map { replace: false, .. })
    }

    /// Makes the change, or refuses and changes nothing; passes to `old` what is no longer shown,
    /// or with other rights, which is no more than `room` pieces.
    pub(super) fn apply(
        &self,
        layout: &mut Layout<Kernel>,
        pins: &Pins,
        room: usize,
        mut old: impl FnMut(Old),
    ) -> Result<(), ChangeError> {
        let pages = &self.pages;
        match self.kind {
            Kind::Map {
                first,
                segment,
                prot,
                replace,
                ..
            } => {
                let segment = pins.get(segment as usize).ok_or(EINVAL)?.segment();
                let range = layout::Range {
                    start: pages.start,
                    end: pages.end,
                    segment: segment.clone(),
                    offset: first - segment.first() as u64,
                    prot,
                    entered: layout::Entered::new(),
                };
                layout.replace(range, replace, room, old)?;
            }
            Kind::Unmap => layout.remove(pages.start, pages.end, room, old)?,
            Kind::Protect { prot } => {
                covered(layout, pages)?;
                let mut count = 0;
                for range in layout.ranges(pages.start, pages.end) {
                    count += 1;
                    if !range.segment.allows(prot) {
                        return Err(EACCES.into());
                    }
                }
                if count > room {
                    return Err(ChangeError::NoRoom);
                }
                parts(layout, pages, &mut old);
                layout.protect(pages.start, pages.end, prot)?;
            }
            Kind::Move { to, replace } => {
                covered(layout, pages)?;
                if !replace && layout.overlaps(to, to + (pages.end - pages.start)) {
                    return Err(EEXIST.into());
                }
                let mut at = pages.start;
                while let Some(mut part) = part(layout, at, pages) {
                    at = part.end;
                    layout.remove(part.start, part.end, room, &mut old)?;
                    part.start = part.start - pages.start + to;
                    part.end = part.end - pages.start + to;
                    // It is installed nowhere yet at its new place.
                    part.entered = layout::Entered::new();
                    layout.replace(part, true, room, &mut old)?;
                }
            }
        }
        Ok(())
    }

    /// Hits the tracepoint.
    pub(super) fn trace(&self, space: &Space, revoked: bool) {
        trace::change(&space.mapping, &self.pages, self.prot().bits(), revoked);
        if let Some(target) = self.target() {
            trace::change(&space.mapping, &target, Prot::NONE.bits(), revoked);
        }
    }
}

fn covered(layout: &Layout<Kernel>, pages: &Range<u64>) -> Result {
    if layout.covered(pages.start, pages.end) {
        Ok(())
    } else {
        Err(ENOENT)
    }
}

/// The first range that is shown from page `at` on, cut to `within`.
fn part(layout: &Layout<Kernel>, at: u64, within: &Range<u64>) -> Option<Old> {
    let mut part = layout.next(at)?.clone();
    let start = part.start.max(at);
    part.offset = part.offset_of(start)?;
    part.start = start;
    part.end = part.end.min(within.end);
    (part.start < part.end).then_some(part)
}

/// Copies what is shown in `within`.
fn parts(layout: &Layout<Kernel>, within: &Range<u64>, mut each: impl FnMut(Old)) {
    let mut at = within.start;
    while let Some(part) = part(layout, at, within) {
        at = part.end;
        each(part);
    }
}

/// Where pages of a piece that is no longer shown may be installed in some attachment.
pub(super) fn installed(old: &Old) -> Range<u64> {
    let pages = old.entered.pages();
    pages.start.max(old.start)..pages.end.min(old.end)
}

/// The smallest range around both, of which any may be empty.
pub(crate) fn hull(a: Range<u64>, b: Range<u64>) -> Range<u64> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

impl Space {
    /// Memory for the layout, charged to the creator. No lock but `ops` may be held.
    fn spare(&self, need: Need) -> Result<Spare<Kernel>> {
        self.arena.charge(|| Spare::new(need))
    }

    /// Acquires the install lock for changes that take so many nodes, which are there then. The
    /// second part is to be dropped after the lock. `ENOMEM`.
    ///
    /// No lock but `ops` may be held: it keeps others from taking the nodes while they are
    /// brought. As a rule there are enough, so that is not asked beforehand.
    pub(super) fn write_with_nodes(
        &self,
        _ops: &Ops,
        nodes: usize,
    ) -> Result<(WriteGuard<'_, Shown>, Option<Spare<Kernel>>)> {
        let shown = self.install.write();
        let need = shown.layout.need(nodes);
        if need.is_none() {
            return Ok((shown, None));
        }
        drop(shown);
        let mut spare = self.spare(need)?;
        let mut shown = self.install.write();
        shown.layout.refill(&mut spare);
        Ok((shown, Some(spare)))
    }

    /// Makes one change, which may show what `pins` has; the errors are those of its kind, and
    /// `ENOMEM`.
    pub(crate) fn change(self: &Arc<Self>, ops: &Ops, change: &Change, pins: &Pins) -> Result {
        let mut removed = Removed::new();
        // Where it takes something away, and for a move where it goes.
        let mut zaps = [0..0, 0..0];
        let (mut shown, spare) = self.write_with_nodes(ops, NODES)?;
        let changed = change.apply(&mut shown.layout, pins, usize::MAX, |old| {
            let there = !change.pages.contains(&old.start);
            let zap = &mut zaps[usize::from(there)];
            *zap = hull(zap.clone(), installed(&old));
            removed.add(old.segment);
        });
        let [zap, there] = &zaps;
        let revoke = !(zap.is_empty() && there.is_empty());
        if revoke {
            // All that has changed, and not only what was installed: a process that met the new
            // there might meet the old where it was.
            let target = change.target().unwrap_or(0..0);
            shown.revoking = hull(change.pages.clone(), target);
        }
        drop(shown);
        drop(spare);
        if revoke {
            self.zap(ops, zap);
            self.zap(ops, there);
            self.install.write().revoking = 0..0;
        }
        self.release_unused(ops, removed);
        match changed {
            Ok(()) => {
                change.trace(self, revoke);
                Ok(())
            }
            Err(ChangeError::Refused(error)) => Err(error),
            // There was no limit.
            Err(ChangeError::NoRoom) => Err(EINVAL),
        }
    }

    /// Where `pages` pages of a file from page `first` on may go, so that huge pages can be used
    /// if there are any. `ENOSPC`.
    pub(crate) fn find_room(&self, _ops: &Ops, pages: u64, first: u64) -> Result<u64> {
        // A search notes what it has found out about the holes.
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
