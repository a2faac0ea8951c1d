// SPDX-License-Identifier: GPL-2.0

//! Advice by the owner: what is wanted of the pages that are shown, which changes nothing about
//! which are.
//!
//! All of the range is checked first. Then it is done range by range, with what is shown at that
//! moment: another change may come in between, as it may between an advice and the next access.
//!
//! Locks: `ops`, for a piece at a time; or none, where a file or a lender may have to be waited
//! for.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    layout::{
        Pages,
        Prot,
        SegmentPage,
        SpacePage, //
    },
    segment::list::Pinned,
    space::{
        change::Old,
        Space, //
    },
    sys::{
        errno::EOPNOTSUPP,
        wait::is_killed, //
    },
};

/// How many pages are dropped with `ops` held.
const DROPPED: u64 = 1 << 16;

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Drop what there is of the pages: private copies, frames.
    DontNeed,
    /// Make a hole of what the file has there.
    Remove,
    /// Begin to read.
    WillNeed,
    /// Have the pages in memory to be read, or
    PopulateRead,
    /// to be written.
    PopulateWrite,
}

impl Advice {
    /// What is accessed, if the pages are to be in memory.
    pub(crate) fn access(self) -> Option<Prot> {
        match self {
            Advice::PopulateRead => Some(Prot::READ),
            Advice::PopulateWrite => Some(Prot::WRITE),
            _ => None,
        }
    }

    /// Whether it can be given about a range by someone who may do no more than `limit`: `EACCES`
    /// for what would change what is not to be written; `EOPNOTSUPP`.
    fn check(self, range: &Old, limit: Prot) -> Result {
        let segment = &range.segment;
        let may = |access| (range.prot & limit).contains(access);
        let allowed = match self {
            Advice::DontNeed => !segment.is_private() || limit.contains(Prot::WRITE),
            Advice::Remove if segment.is_lent() => return Err(EOPNOTSUPP.into()),
            Advice::Remove => !segment.is_private() && may(Prot::WRITE),
            Advice::WillNeed => true,
            Advice::PopulateRead => may(Prot::READ),
            Advice::PopulateWrite => may(Prot::WRITE),
        };
        allowed.then_some(()).ok_or(EACCES)
    }
}

impl Space {
    /// Does what is wanted of `pages`, all of which are shown, for someone who may do no more than
    /// `limit`. The checks are made before anything is done. No lock may be held.
    ///
    /// `ENOENT` for a hole, `EACCES`, `EOPNOTSUPP`; those of the file; those of
    /// [`Space::bring_in_all`]; `EAGAIN` where the memory is busy; `EINTR`.
    pub(crate) fn advise(
        self: &Arc<Self>,
        pages: &Range<SpacePage>,
        advice: Advice,
        limit: Prot,
    ) -> Result {
        let mut rest = pages.clone();
        while !rest.is_empty() {
            let (range, pinned) = self.next_pinned(&rest)?.ok_or(ENOENT)?;
            drop(pinned);
            if range.start > rest.start {
                return Err(ENOENT);
            }
            advice.check(&range, limit)?;
            rest.start = range.end;
        }
        let mut rest = pages.clone();
        while !rest.is_empty() {
            if is_killed() {
                return Err(EINTR);
            }
            let Some((range, pinned)) = self.next_pinned(&rest)? else {
                break;
            };
            rest.start = range.end;
            let Some(shown) = part(&range, pages) else {
                continue;
            };
            // It may be another than the one that was checked.
            advice.check(&range, limit)?;
            let segment = pinned.segment();
            match advice {
                Advice::DontNeed => self.drop_shown(&range.pages_within(pages))?,
                Advice::Remove => segment.punch_hole(&shown)?,
                Advice::WillNeed if segment.is_lent() => (),
                Advice::WillNeed => segment.read_ahead(&shown)?,
                Advice::PopulateRead | Advice::PopulateWrite => {
                    let access = advice.access().unwrap_or(Prot::READ);
                    self.bring_in_all(&pinned, shown, access)?;
                }
            }
        }
        Ok(())
    }

    /// Drops what there is of `pages`, a piece at a time, with what is shown there.
    fn drop_shown(&self, pages: &Range<SpacePage>) -> Result {
        let mut rest = pages.clone();
        while !rest.is_empty() {
            if is_killed() {
                return Err(EINTR);
            }
            let ops = self.ops.lock();
            // Nobody else changes it.
            let next = self.install.read().layout.next(rest.start).cloned();
            let Some(range) = next.filter(|range| range.start < rest.end) else {
                break;
            };
            let mut piece = range.pages_within(&rest);
            piece.end = piece.end.min(piece.start + DROPPED);
            rest.start = piece.end;
            let Some(shown) = part(&range, &piece) else {
                continue;
            };
            if !self.drop_pages(&ops, &range.segment, &shown) {
                return Err(EAGAIN);
            }
        }
        Ok(())
    }

    /// The first range that has pages among `pages`, with its segment pinned.
    fn next_pinned(&self, pages: &Range<SpacePage>) -> Result<Option<(Old, Pinned)>> {
        self.look(|shown| match shown.layout.next(pages.start) {
            // The layout shows the segment, with the install lock held, so it has not ended.
            Some(next) if next.start < pages.end => (
                pages.start..next.end,
                Some((next.clone(), Pinned::new(next.segment.clone()))),
            ),
            _ => (pages.clone(), None),
        })
    }
}

impl Old {
    fn pages_within(&self, pages: &Range<SpacePage>) -> Range<SpacePage> {
        (self.start..self.end).intersect(pages)
    }
}

/// Which pages of its segment a range shows in `pages`; [`None`] for none.
fn part(range: &Old, pages: &Range<SpacePage>) -> Option<Range<SegmentPage>> {
    let pages = range.pages_within(pages);
    let first = range.offset_of(pages.start)?;
    (!pages.is_empty()).then(|| first..first + pages.count())
}
