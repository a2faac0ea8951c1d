// SPDX-License-Identifier: GPL-2.0

//! What calls on a file learn of the layout by walking over it: fsync(), lseek(), and whoever reads
//! fdinfo.
//!
//! They see no change half made: where one is under way, they look again until it is done, and wait
//! for it without a lock, since whoever waits may be of the lowest priority.
//!
//! Locks: the install lock, for reading, for a few ranges at a time.

use core::ops::Range;

use kernel::{
    prelude::*,
    time::Delta, //
};

use crate::{
    layout::SpacePage,
    space::{
        change::Old,
        Shown,
        Space, //
    },
    sys::{
        small_vec::SmallVec,
        wait::{
            is_killed,
            nap, //
        },
    },
};

/// How long to sleep before looking again at what is being changed.
const NAP: Delta = Delta::from_micros(50);

/// How many ranges are looked at in one moment.
const AT_A_TIME: usize = 128;

/// How many ranges are copied at a time, which are so of one moment, where there is memory for
/// them.
const COPIED: usize = 256;

/// Copies of ranges: some, where there is memory for no more.
pub(crate) type Copies = SmallVec<Old, 8>;

/// Room for copies of ranges, of which no more than `most` are wanted.
pub(crate) fn room_for_copies(most: usize) -> Copies {
    let mut copies = Copies::new();
    // There is no error to report: with less memory it takes more steps.
    let _ = copies.reserve(COPIED.min(most));
    copies
}

impl Space {
    /// Has `look` look at the layout. `None`: a change is under way in the pages that it says it
    /// has seen.
    fn try_look<R>(&self, look: impl FnOnce(&Shown) -> (Range<SpacePage>, R)) -> Option<R> {
        let shown = self.install.read();
        let (seen, result) = look(&shown);
        let settled = !shown.revoking.overlaps(&seen);
        // Before what was found, the last reference to a segment perhaps, may be dropped.
        drop(shown);
        settled.then_some(result)
    }

    /// The same, until no change is under way.
    pub(super) fn look<R>(
        &self,
        mut look: impl FnMut(&Shown) -> (Range<SpacePage>, R),
    ) -> Result<R> {
        loop {
            match self.try_look(&mut look) {
                Some(result) => return Ok(result),
                None => nap(NAP)?,
            }
        }
    }

    /// The first range that has pages among `range`.
    fn next_range(&self, range: &Range<SpacePage>) -> Result<Option<Old>> {
        self.look(|shown| match shown.layout.next(range.start) {
            Some(next) if next.start < range.end => (range.start..next.end, Some(next.clone())),
            _ => (range.clone(), None),
        })
    }

    /// Has the files that are shown in `range` write what was changed in them to where they are
    /// kept; the first error of any. May take as long as the files do, and holds no lock
    /// meanwhile. `EINTR`: a fatal signal came.
    pub(crate) fn sync(&self, mut range: Range<SpacePage>, datasync: bool) -> Result {
        let mut result = Ok(());
        while let Some(shown) = self.next_range(&range)? {
            if is_killed() {
                return Err(EINTR);
            }
            range.start = shown.end;
            if shown.segment.is_private() {
                // What is written there does not get into the file.
                continue;
            }
            let pages = shown.offset..shown.offset_end();
            if let Err(error) = shown.segment.sync(pages, datasync) {
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Copies what is shown from `page` on, as much as `into` has room for; says whether there is
    /// more. `EINTR`: a fatal signal came.
    pub(crate) fn copy_ranges(&self, page: SpacePage, into: &mut Copies) -> Result<bool> {
        let end = SpacePage::new(self.pages);
        let copy = |shown: &Shown, into: &mut Copies| {
            for range in shown.layout.ranges(page..end) {
                if into.push_within_capacity(range.clone()).is_err() {
                    return (page..range.start, true);
                }
            }
            (page..end, false)
        };
        loop {
            // With no lock held.
            into.clear();
            match self.try_look(|shown| copy(shown, into)) {
                Some(more) => return Ok(more),
                None => nap(NAP)?,
            }
        }
    }

    /// The first page of `range` that is shown, if any is. `EINTR`: a fatal signal came.
    pub(crate) fn next_shown(&self, range: &Range<SpacePage>) -> Result<Option<SpacePage>> {
        let next = self.next_range(range)?;
        Ok(next.map(|next| next.start.max(range.start)))
    }

    /// The first page of `range` that is not shown, or its end. `EINTR`: a fatal signal came.
    pub(crate) fn next_hole(&self, range: &Range<SpacePage>) -> Result<SpacePage> {
        let mut page = range.start;
        loop {
            let (hole, found) = self.look(|shown| {
                let mut end = page;
                for next in shown.layout.ranges(page..range.end).take(AT_A_TIME) {
                    if next.start > end {
                        break;
                    }
                    end = next.end;
                }
                let found = end >= range.end || shown.layout.lookup(end).is_none();
                (page..end + 1, (end.min(range.end), found))
            })?;
            if found {
                return Ok(hole);
            }
            if is_killed() {
                return Err(EINTR);
            }
            page = hole;
        }
    }
}
