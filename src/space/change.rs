// SPDX-License-Identifier: GPL-2.0

//! Changes of the layout by its owner: map, unmap, protect, move. Several at once are in
//! `batch.rs`.
//!
//! A change is made under the install lock (`hold.rs`), so that attachers and guests see the layout
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
        FewRanges,
        FilePage,
        Layout,
        Need,
        Pages,
        Prot,
        SpacePage,
        Spare,
        Surplus, //
    },
    segment::{
        frame::HUGE_PAGES,
        list::{
            Ops,
            Pins, //
        },
        Segment, //
    },
    space::{
        hold::{
            Hold,
            PIECE, //
        },
        segments::{
            Removed,
            Taken, //
        },
        store::Kernel,
        Shown,
        Space, //
    },
    sys::{
        rwlock::WriteGuard,
        trace,
        warn::warn_on_once, //
    },
};

/// How many bounds a search corrects before the lock is let go.
const CORRECTIONS: usize = 1024;

/// What a piece of the space showed.
pub(crate) type Old = layout::Range<Arc<Segment>>;

/// Nodes that one change takes at most, and as many to undo it.
pub(super) const NODES: usize = 2 * Layout::<Kernel>::REPLACE_NODES;

/// One change. Pages lie within the space.
pub(crate) struct Change {
    /// The pages that show something else afterwards; for a move, where they were.
    pub(crate) pages: Range<SpacePage>,
    pub(crate) kind: Kind,
}

/// What is done to the pages.
pub(crate) enum Kind {
    /// Shows pages of a file from page `first` on. `EEXIST` where something is shown, unless it
    /// may be replaced.
    Map {
        first: FilePage,
        /// Whether what is written is written to copies of this mapping's own.
        private: bool,
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
    Move { to: SpacePage, replace: bool },
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

impl From<layout::Error> for ChangeError {
    fn from(error: layout::Error) -> Self {
        match error {
            layout::Error::NoRoom => ChangeError::NoRoom,
            layout::Error::Exists => ChangeError::Refused(EEXIST),
            layout::Error::NoNodes | layout::Error::BadRange => {
                // Ranges lie within the space, and there are nodes enough.
                warn_on_once!(true);
                ChangeError::Refused(EINVAL)
            }
        }
    }
}

impl Change {
    /// Where a move goes.
    fn target(&self) -> Option<Range<SpacePage>> {
        match self.kind {
            Kind::Move { to, .. } => Some(to..to + self.pages.count()),
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
        hold: &mut Hold<'_>,
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
                let part = first..first + pages.count();
                let range = || layout::Range {
                    start: pages.start,
                    end: pages.end,
                    segment: segment.clone(),
                    offset: segment.pages_of(&part).start,
                    prot,
                    installed: layout::Installed::new(),
                };
                let layout = hold.layout();
                match layout.replace(range(), replace, room.min(PIECE), &mut old) {
                    Err(layout::Error::NoRoom) if room > PIECE => {
                        hold.count(pages, room).ok_or(ChangeError::NoRoom)?;
                        remove(hold, pages, &mut old)?;
                        hold.layout().replace(range(), false, 0, old)?;
                    }
                    replaced => replaced?,
                }
            }
            Kind::Unmap => match hold
                .layout()
                .remove(pages.clone(), room.min(PIECE), &mut old)
            {
                Err(layout::Error::NoRoom) if room > PIECE => {
                    hold.count(pages, room).ok_or(ChangeError::NoRoom)?;
                    remove(hold, pages, old)?;
                }
                removed => removed?,
            },
            Kind::Protect { prot } => {
                let mut left = room;
                in_pieces(hold, pages, |hold, piece, count| {
                    let layout = hold.layout();
                    if !layout.covered(piece.clone()) {
                        return Err(ENOENT.into());
                    }
                    if layout
                        .ranges(piece)
                        .any(|range| !range.segment.allows(prot))
                    {
                        return Err(EACCES.into());
                    }
                    left = left.checked_sub(count).ok_or(ChangeError::NoRoom)?;
                    hold.look(count);
                    Ok(())
                })?;
                in_pieces(hold, pages, |hold, piece, count| {
                    let layout = hold.layout();
                    parts(layout, &piece, &mut old);
                    layout.protect(piece, prot)?;
                    hold.spend(count);
                    Ok(())
                })?;
            }
            Kind::Move { to, replace } => {
                let target = to..to + pages.count();
                in_pieces(hold, pages, |hold, piece, count| {
                    if !hold.layout().covered(piece) {
                        return Err(ENOENT.into());
                    }
                    hold.look(count);
                    Ok(())
                })?;
                if !replace && hold.layout().overlaps(target.clone()) {
                    return Err(EEXIST.into());
                }
                if room != usize::MAX {
                    let from = hold.count(pages, room).ok_or(ChangeError::NoRoom)?;
                    hold.count(&target, room - from)
                        .ok_or(ChangeError::NoRoom)?;
                }
                remove(hold, &target, &mut old)?;
                let mut at = pages.start;
                while let Some(mut part) = part(hold.layout(), at, pages) {
                    at = part.end;
                    let layout = hold.layout();
                    layout.remove(part.start..part.end, usize::MAX, &mut old)?;
                    part.start = to + (part.start - pages.start);
                    part.end = to + (part.end - pages.start);
                    // It is installed nowhere yet at its new place.
                    part.installed = layout::Installed::new();
                    layout.replace(part, false, 0, &mut old)?;
                    hold.spend(2);
                }
            }
        }
        Ok(())
    }

    /// What it maps, if nothing is done to that afterwards.
    pub(super) fn mapped(&self) -> Option<Range<SpacePage>> {
        match self.kind {
            Kind::Map { .. } => Some(self.pages.clone()),
            Kind::Move { .. } => self.target(),
            _ => None,
        }
    }

    /// Hits the tracepoint.
    pub(super) fn trace(&self, space: &Space, revoked: bool) {
        let numbers = |pages: &Range<SpacePage>| pages.start.get()..pages.end.get();
        let (mapping, pages) = (&space.mapping, numbers(&self.pages));
        trace::change(mapping, &pages, self.prot().bits(), revoked);
        if let Some(target) = self.target() {
            trace::change(mapping, &numbers(&target), Prot::NONE.bits(), revoked);
        }
    }
}

/// Calls `each` with the pieces in which `pages` are changed, and how many ranges each has.
fn in_pieces(
    hold: &mut Hold<'_>,
    pages: &Range<SpacePage>,
    mut each: impl FnMut(&mut Hold<'_>, Range<SpacePage>, usize) -> Result<(), ChangeError>,
) -> Result<(), ChangeError> {
    let mut rest = pages.clone();
    while !rest.is_empty() {
        let (piece, count) = hold.piece(&rest);
        rest.start = piece.end;
        each(hold, piece, count)?;
    }
    Ok(())
}

/// Removes what is shown in `pages`.
pub(super) fn remove(
    hold: &mut Hold<'_>,
    pages: &Range<SpacePage>,
    mut old: impl FnMut(Old),
) -> Result<(), ChangeError> {
    in_pieces(hold, pages, |hold, piece, count| {
        hold.layout().remove(piece, usize::MAX, &mut old)?;
        hold.spend(count);
        Ok(())
    })
}

/// The first range that is shown from page `at` on, cut to `within`.
fn part(layout: &Layout<Kernel>, at: SpacePage, within: &Range<SpacePage>) -> Option<Old> {
    let mut part = layout.next(at)?.clone();
    let start = part.start.max(at);
    part.offset = part.offset_of(start)?;
    part.start = start;
    part.end = part.end.min(within.end);
    (part.start < part.end).then_some(part)
}

/// Copies what is shown in `within`.
fn parts(layout: &Layout<Kernel>, within: &Range<SpacePage>, mut each: impl FnMut(Old)) {
    let mut at = within.start;
    while let Some(part) = part(layout, at, within) {
        at = part.end;
        each(part);
    }
}

/// Where pages of a piece that is no longer shown may be installed in some attachment.
pub(super) fn installed(old: &Old) -> Range<SpacePage> {
    old.installed.pages().intersect(&(old.start..old.end))
}

impl Space {
    /// Memory for the layout, charged to the creator. No lock but `ops` may be held.
    fn spare(&self, need: Need) -> Result<Spare<Kernel>> {
        self.arenas.main().charge(|| Spare::new(need))
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

    /// Frees memory of the layout that nothing is in any more, without the install lock. To be
    /// called when a change has reached everybody, so that no revocation waits for it; other
    /// changes of the owner's do.
    #[cold]
    pub(super) fn shed(&self, _ops: &Ops) {
        let mut surplus = Surplus::new();
        while self.install.write().layout.shed(&mut surplus) {
            surplus.free();
        }
    }

    /// Makes one change, which may show what `pins` has; the errors are those of its kind, and
    /// `ENOMEM`.
    pub(crate) fn change(self: &Arc<Self>, ops: &mut Ops, change: &Change, pins: &Pins) -> Result {
        let mut removed = Removed::new();
        let made = self.make(ops, change, pins, &mut removed);
        self.release_unused(ops, removed);
        made
    }

    /// As [`Space::change`], but segments of which nothing is shown any more are the caller's: they
    /// are on no list from the moment that the worker could find them idle, so it ends none. To be
    /// ended with nothing held.
    pub(crate) fn change_and_take(
        self: &Arc<Self>,
        ops: &mut Ops,
        change: &Change,
    ) -> Result<Taken> {
        let mut removed = Removed::new();
        let made = self.make(ops, change, &Pins::new(), &mut removed);
        let taken = self.take_unused(ops, removed);
        made.map(|()| taken)
    }

    /// Makes one change; what is `removed` is for [`Space::release_unused`].
    fn make(
        self: &Arc<Self>,
        ops: &Ops,
        change: &Change,
        pins: &Pins,
        removed: &mut Removed,
    ) -> Result {
        // Where it takes something away, and for a move where it goes.
        let mut zaps: [Range<SpacePage>; 2] = [Pages::none(), Pages::none()];
        // All that has changed, and not only what was installed: a process that met the new there
        // might meet the old where it was.
        let changes = || {
            let mut changes = FewRanges::none();
            changes.add(&change.pages);
            if let Some(target) = change.target() {
                changes.add(&target);
            }
            changes
        };
        let (shown, spare) = self.write_with_nodes(ops, NODES)?;
        let mut hold = Hold::new(self, ops, shown, &changes);
        let changed = change.apply(&mut hold, pins, usize::MAX, |old| {
            let there = !change.pages.contains(&old.start);
            let zap = &mut zaps[usize::from(there)];
            *zap = zap.clone().hull(installed(&old));
            let pages = old.offset..old.offset_end();
            removed.add(old.segment, &pages);
        });
        let places = [Some(change.pages.clone()), change.target()];
        for (zap, pages) in zaps.iter_mut().zip(places.iter().flatten()) {
            *zap = zap.clone().hull(self.absorbed.among(pages));
        }
        let [zap, there] = &zaps;
        let revoke = (!(zap.is_empty() && there.is_empty())).then(changes);
        let revoked = revoke.is_some();
        let surplus = hold.finish(revoke.as_ref());
        drop(spare);
        if let Some(changes) = &revoke {
            self.zap(ops, zap);
            self.zap(ops, there);
            self.end_revoking(ops, changes);
        }
        let made = changed.is_ok().then_some(change);
        self.wake(ops, made.into_iter(), || revoke.unwrap_or_else(changes));
        if surplus {
            self.shed(ops);
        }
        match changed {
            Ok(()) => {
                change.trace(self, revoked);
                Ok(())
            }
            Err(ChangeError::Refused(error)) => Err(error),
            // There was no limit.
            Err(ChangeError::NoRoom) => Err(EINVAL),
        }
    }

    /// What was being revoked has been zapped: all that was installed, and absorbed, in `zapped`.
    pub(super) fn end_revoking(&self, _ops: &Ops, zapped: &FewRanges) {
        let mut shown = self.install.write();
        self.absorbed.forget(zapped, &mut shown);
        shown.revoking = FewRanges::none();
    }

    /// Where pages `part` of a file may go, so that huge pages can be used if there are any.
    /// `ENOSPC`.
    pub(crate) fn find_room(&self, _ops: &Ops, part: &Range<FilePage>) -> Result<SpacePage> {
        let pages = part.count();
        let huge = HUGE_PAGES as u64;
        let aligned = (pages >= huge).then(|| self.search(pages, huge, part.start));
        aligned
            .flatten()
            .or_else(|| self.search(pages, 1, part.start))
            .ok_or(ENOSPC)
    }

    /// Searches a hole for `pages` pages; see [`Layout::find_hole`].
    fn search(&self, pages: u64, align: u64, first: FilePage) -> Option<SpacePage> {
        loop {
            // A search notes what it has found out about the holes, so it is further next time.
            let mut shown = self.install.write();
            if let Ok(found) = shown.layout.find_hole(pages, align, first, CORRECTIONS) {
                return found;
            }
        }
    }
}
