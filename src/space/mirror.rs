// SPDX-License-Identifier: GPL-2.0

//! Mirroring: filling frame tables from the segment's mm, by the mirror rule: a frame enters a
//! table only while that mm's own entry maps it, with at least that protection.
//!
//! Locks: that of a VMA, and for hugetlb the mmap lock, which are only tried, unless it is a
//! lender's and nothing is held; then the install lock, for reading.

use core::{
    mem::MaybeUninit,
    ops::Range, //
};

use kernel::prelude::*;

use crate::{
    layout::SegmentPage,
    segment::{
        frame::{
            HUGE_ORDER,
            HUGE_PAGES, //
        },
        frame_slots::Room,
        Segment, //
    },
    space::{
        readahead::MOST,
        Space, //
    },
    sys::mm::Locks,
};

/// What came of [`Space::mirror`].
pub(crate) enum Mirrored {
    /// Look again: the table knows the page now, or things have changed.
    Again,
    /// The page is being invalidated.
    Invalidating,
    /// A lock of the mm's is not available now, or what was begun there has to end first.
    Busy,
    /// The mm does not map the page, or not writable: it must be faulted in.
    Missing,
}

impl Space {
    /// Enters what its mm maps for page `page` of a segment into its table, and what of the
    /// pages `around` it is mapped too.
    ///
    /// Does not fault anything in; allocates, so no install lock may be held. May be called with
    /// another mm's lock held, unless locks are to be waited for, as those of lent memory can be.
    /// `ENOMEM`.
    pub(crate) fn mirror(
        &self,
        segment: &Segment,
        page: SegmentPage,
        around: &Range<SegmentPage>,
        write: bool,
        locks: Locks,
    ) -> Result<Mirrored> {
        let most = MOST as u64;
        let first = SegmentPage::new(page.get().saturating_sub(most - 1));
        let start = around.start.clamp(first, page);
        let end = around
            .end
            .clamp(page + 1, start + most)
            .min(segment.pages().end);
        let count = (end - start) as usize;
        let mut words = [const { MaybeUninit::uninit() }; MOST];
        let seen = match segment.look(page, start, &mut words[..count], locks) {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(Mirrored::Again),
            // The mm changed meanwhile.
            Err(error) if error == EBUSY => return Ok(Mirrored::Again),
            Err(error) if error == EAGAIN => return Ok(Mirrored::Busy),
            Err(_) => return Ok(Mirrored::Missing),
        };
        match seen.at((page - start) as usize) {
            Some(entry) if entry.frame.writable || !write => (),
            _ => return Ok(Mirrored::Missing),
        }
        // A file that is sparse has one here and there.
        let present = (0..seen.len()).filter(|&index| seen.at(index).is_some());
        let alone = present.take(2).count() == 1;
        let ends = if alone { [page; 2] } else { [start, end - 1] };
        for at in ends {
            let is_huge = seen
                .at((at - start) as usize)
                .is_some_and(|entry| entry.order >= HUGE_ORDER)
                && segment.frames.holds_huge(at);
            let room = match (is_huge, alone) {
                (true, _) => Room::Huge,
                (false, true) => Room::Lone,
                (false, false) => Room::Single,
            };
            if !segment.frames.has_room(at, room) {
                segment
                    .arena()
                    .charge(|| segment.frames.reserve(at, room))?;
            }
        }

        let shown = self.install.read();
        let Some(confirmed) = seen.confirm(&shown) else {
            return Ok(Mirrored::Again);
        };
        // A huge entry stands for more than the pages that were looked at.
        let reach = if seen.singles().is_some() {
            start..end
        } else {
            let before = start.get().saturating_sub(HUGE_PAGES as u64);
            SegmentPage::new(before)..end + HUGE_PAGES as u64
        };
        if segment.invalidation.overlaps(&reach, &shown) {
            return Ok(Mirrored::Invalidating);
        }
        segment.frames.mirror(start, &confirmed);
        Ok(Mirrored::Again)
    }
}
