// SPDX-License-Identifier: GPL-2.0

//! Mirroring: filling frame tables from the arena, by the mirror rule: a frame enters a table only
//! while the arena's own entry maps it, with at least that protection.
//!
//! Locks: that of the arena's VMA, and for hugetlb its mmap lock, which are only tried; then the
//! install lock, for reading.

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
        Segment, //
    },
    space::{
        readahead::MOST,
        Space, //
    },
};

/// What came of [`Space::mirror`].
pub(crate) enum Mirrored {
    /// Look again: the table knows the page now, or things have changed.
    Again,
    /// The page is being invalidated.
    Invalidating,
    /// The arena's lock is not available now.
    Busy,
    /// The arena does not map the page, or not writable: it must be faulted in.
    Missing,
}

impl Space {
    /// Enters what the arena maps for page `page` of a segment into its table, and what of the
    /// pages `around` it is mapped too.
    ///
    /// Does not fault anything in; allocates, so no install lock may be held. May be called with
    /// another mm's lock held. `ENOMEM`.
    pub(crate) fn mirror(
        &self,
        segment: &Segment,
        page: SegmentPage,
        around: &Range<SegmentPage>,
        write: bool,
    ) -> Result<Mirrored> {
        let most = MOST as u64;
        let first = SegmentPage::new(page.get().saturating_sub(most - 1));
        let start = around.start.clamp(first, page);
        let end = around
            .end
            .clamp(page + 1, start + most)
            .min(segment.pages().end);
        let count = (end - start) as usize;
        let Some(look) = segment.notifier.begin() else {
            return Ok(Mirrored::Again);
        };
        let (arena, addr) = (segment.arena(), segment.addr_of(start));
        let Some(vma) = arena.try_lock_vma(addr) else {
            return Ok(Mirrored::Busy);
        };
        let mut words = [const { MaybeUninit::uninit() }; MOST];
        let looked = look.read(arena.mm(), &vma, addr, &mut words[..count]);
        drop(vma);
        let seen = match looked {
            Ok(seen) => seen,
            // The mm changed meanwhile.
            Err(error) if error == EBUSY => return Ok(Mirrored::Again),
            Err(error) if error == EAGAIN => return Ok(Mirrored::Busy),
            Err(_) => return Ok(Mirrored::Missing),
        };
        match seen.at((page - start) as usize) {
            Some(entry) if entry.frame.writable || !write => (),
            _ => return Ok(Mirrored::Missing),
        }
        for page in [start, end - 1] {
            let huge = seen
                .at((page - start) as usize)
                .is_some_and(|entry| entry.order >= HUGE_ORDER)
                && segment.frames.holds_huge(page);
            if !segment.frames.has_room(page, huge) {
                arena.charge(|| segment.frames.reserve(page, huge))?;
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
