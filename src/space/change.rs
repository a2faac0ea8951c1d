// SPDX-License-Identifier: GPL-2.0

//! Changes of the layout by its owner: map, unmap, protect, move. Several at once are
//! in `batch.rs`.
//!
//! A change is made in one go under the install lock, so that attachers and guests
//! see the layout before or after it, and then revoked with no lock held but `ops`:
//! only where pages were entered in a window, since nothing else can be reached.
//! All memory that it may need is there beforehand.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::*,
        Arc, //
    },
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
        Segment, //
    },
    space::{
        segments::{
            Ops,
            Pins, //
        },
        Kernel,
        Shown,
        Space, //
    },
    sys::{
        rwsem::Exclusive,
        trace, //
    },
};

/// What a piece of the space showed.
pub(crate) type Old = layout::Range<Arc<Segment>>;

/// How many segments a change remembers before it looks at all instead.
const REMEMBERED: usize = 8;

/// Nodes that one change takes at most, and as many to undo it.
pub(crate) const NODES: usize = 2 * Layout::<Kernel>::REPLACE_NODES;

/// One change. Pages lie within the space.
pub(crate) struct Change {
    /// The pages that show something else afterwards; for a move, where they were.
    pub(crate) pages: Range<u64>,
    pub(crate) kind: Kind,
}

/// What is done to the pages.
pub(crate) enum Kind {
    /// Shows pages of a file from page `first` on. `EEXIST` where something is shown,
    /// unless it may be replaced.
    Map {
        first: u64,
        /// Of those that the call has pinned, the segment that has the file's pages.
        segment: u32,
        prot: Prot,
        replace: bool,
        /// See `populate.rs`.
        populate: bool,
    },
    /// Shows nothing.
    Unmap,
    /// Changes the protection. `ENOENT` where there is a hole, `EACCES` for more than
    /// what the segment was checked for.
    Protect { prot: Prot },
    /// Shows elsewhere what is shown here, and nothing here. `ENOENT` where there is
    /// a hole; `EEXIST` as for a map.
    Move { to: u64, replace: bool },
}

impl Change {
    /// Where a move goes.
    fn target(&self) -> Option<Range<u64>> {
        match self.kind {
            Kind::Move { to, .. } => Some(to..to + (self.pages.end - self.pages.start)),
            _ => None,
        }
    }

    pub(crate) fn prot(&self) -> Prot {
        match self.kind {
            Kind::Map { prot, .. } | Kind::Protect { prot } => prot,
            _ => Prot::NONE,
        }
    }

    /// Whether anything that is shown may be shown no longer, or otherwise.
    pub(crate) fn takes_away(&self) -> bool {
        !matches!(self.kind, Kind::Map { replace: false, .. })
    }

    /// Makes the change, or refuses and changes nothing; hands out what is no longer
    /// shown, or with other rights, which is no more than `room` pieces.
    pub(crate) fn apply(
        &self,
        layout: &mut Layout<Kernel>,
        pins: &Pins,
        room: usize,
        mut old: impl FnMut(Old),
    ) -> Result<(), Refusal> {
        let pages = &self.pages;
        match self.kind {
            Kind::Map {
                first,
                segment,
                prot,
                replace,
                ..
            } => {
                let segment = pins.get(segment).ok_or(EINVAL)?.segment();
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
                    return Err(Refusal::Full);
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
                    // There it was seen by nobody.
                    part.entered = layout::Entered::new();
                    layout.replace(part, true, room, &mut old)?;
                }
            }
        }
        Ok(())
    }

    /// Tells who listens that the change was made.
    pub(crate) fn trace(&self, space: &Space, revoked: bool) {
        trace::change(&space.mapping, &self.pages, self.prot(), revoked);
        if let Some(target) = self.target() {
            trace::change(&space.mapping, &target, Prot::NONE, revoked);
        }
    }
}

/// Why a change was not made.
pub(crate) enum Refusal {
    /// The layout does not allow it.
    Of(Error),
    /// There is no room for what it would take away.
    Full,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Of(error)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Room => Refusal::Full,
            Refused::Shown => Refusal::Of(EEXIST),
            // Ranges lie within the space, and there are nodes enough.
            Refused::Nodes | Refused::Range => Refusal::Of(EINVAL),
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

/// Where pages of a piece that is no longer shown may be entered in some window.
pub(crate) fn entered(old: &Old) -> Range<u64> {
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

/// The segments of which something was taken away, to be looked after.
pub(crate) struct Removed {
    segments: [Option<Arc<Segment>>; REMEMBERED],
    any: bool,
    more: bool,
}

impl Removed {
    pub(crate) fn new() -> Self {
        Removed {
            segments: [const { None }; REMEMBERED],
            any: false,
            more: false,
        }
    }

    /// Remembers the segment of a range. Called under the install lock.
    pub(crate) fn add(&mut self, range: &Old) {
        self.any = true;
        let suspect = &range.segment.suspect;
        // The ops lock is held, so nobody changes it in between.
        if suspect.load(Relaxed) {
            return;
        }
        suspect.store(true, Relaxed);
        match self.segments.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(range.segment.clone()),
            None => self.more = true,
        }
    }
}

impl Space {
    /// Memory for the layout, charged to the creator. No lock but `ops` may be held.
    fn spare(&self, need: Need) -> Result<Spare<Kernel>> {
        let _charge = (!need.is_none()).then(|| self.arena.charge());
        Spare::new(need)
    }

    /// Takes the install lock for changes that take so many nodes, which are there then.
    /// The second is to be dropped after the lock.
    ///
    /// No lock but `ops` may be held: it keeps others from taking the nodes while they
    /// are brought. As a rule there are enough, so that is not asked beforehand.
    pub(crate) fn write(
        &self,
        nodes: usize,
    ) -> Result<(Exclusive<'_, Shown>, Option<Spare<Kernel>>)> {
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

    /// Makes one change, which may show what `pins` has.
    pub(crate) fn change(self: &Arc<Self>, ops: &Ops, change: &Change, pins: &Pins) -> Result {
        let mut removed = Removed::new();
        // Where it takes something away, and for a move where it goes.
        let mut zaps = [0..0, 0..0];
        let (mut shown, spare) = self.write(NODES)?;
        let changed = change.apply(&mut shown.layout, pins, usize::MAX, |old| {
            // The space's own reference keeps the drop from being the last.
            removed.add(&old);
            let there = !change.pages.contains(&old.start);
            let zap = &mut zaps[usize::from(there)];
            *zap = hull(zap.clone(), entered(&old));
        });
        let [zap, there] = &zaps;
        let revoke = !(zap.is_empty() && there.is_empty());
        if revoke {
            // All that has changed, and not only what was entered: whoever met the new
            // there might meet the old where it was.
            let target = change.target().unwrap_or(0..0);
            shown.zapping = hull(change.pages.clone(), target);
        }
        drop(shown);
        drop(spare);
        if revoke {
            self.zap(zap);
            self.zap(there);
            self.install.write().zapping = 0..0;
        }
        self.retire(ops, &removed);
        match changed {
            Ok(()) => {
                change.trace(self, revoke);
                Ok(())
            }
            Err(Refusal::Of(error)) => Err(error),
            Err(Refusal::Full) => Err(EINVAL),
        }
    }

    /// Looks after the segments of which something was removed: where nothing is
    /// shown any more, lets go of the frames at once (a held frame keeps a memfd
    /// from being sealed) and of the rest in a while.
    pub(crate) fn retire(self: &Arc<Self>, ops: &Ops, removed: &Removed) {
        if !removed.any {
            return;
        }
        let mut idle = false;
        let mut look = |segment: &Arc<Segment>| {
            if !segment.suspect.load(Relaxed) {
                return;
            }
            segment.suspect.store(false, Relaxed);
            if segment.registered.load(Relaxed) || self.install.read().layout.shows(segment.id()) {
                return;
            }
            self.forget_frames(segment);
            idle = true;
        };
        if removed.more {
            ops.segments().for_each(&mut look);
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
        // A search leaves what it has learned of the holes.
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
