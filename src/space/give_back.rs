// SPDX-License-Identifier: GPL-2.0

//! Giving back what a segment has for its pages: the copies of a private one, as soon as nothing
//! shows the pages they are of; and whatever the owner wants dropped.
//!
//! A page of a private segment that is not registered is never shown again once nothing shows it:
//! no other map finds the segment. So its copy can go, and the rest of the segment stays.
//!
//! Locks: `ops` is held by the caller, and so a change that removed something has zapped it; the
//! install lock; those of the arena's VMAs, which are only tried.

use core::ops::Range;

use kernel::time::{
    delay::fsleep,
    Delta, //
};

use crate::{
    layout::SegmentPage,
    segment::{
        list::Ops,
        Segment, //
    },
    space::Space,
    sys::{
        mm::{
            Locks,
            NoPage, //
        },
        wait::is_killed,
    },
};

/// How many ranges are passed with the install lock held.
const PASSED: usize = 128;

/// How long to wait for a change that is being made, before another look.
const PAUSE: Delta = Delta::from_micros(50);

impl Space {
    /// Gives back the copies that a private segment has of those of `pages` that nothing shows.
    pub(super) fn give_back(&self, ops: &Ops, segment: &Segment, pages: Range<SegmentPage>) {
        let mut rest = pages;
        while !rest.is_empty() {
            let next = {
                let mut shown = self.install.write();
                shown
                    .layout
                    .next_unshown(segment.id(), rest.clone(), PASSED)
            };
            match next {
                Ok(Some(unshown)) => {
                    rest.start = unshown.end;
                    // If the lock is not available, the copies go with the segment.
                    let _ = self.drop_pages(ops, segment, &unshown);
                }
                Ok(None) => break,
                Err(next) => rest.start = next,
            }
        }
    }

    /// Drops all that there is of some pages of a segment: when it returns, no attachment has them
    /// installed, they are not in the frame table, and copies are gone. Whoever touches them meets
    /// the file, or what its lender has. Says whether that could be done; see [`Segment::zap`].
    ///
    /// Of a file that is written back what the worker is about to zap is left to it.
    pub(super) fn drop_pages(
        &self,
        ops: &Ops,
        segment: &Segment,
        pages: &Range<SegmentPage>,
    ) -> bool {
        // As a revocation, with one difference: what was zapped comes back, so until the arena has
        // been zapped too nothing may be mirrored.
        let mut shown = self.install.write();
        let wide = segment.frames.widen(pages.clone(), &shown);
        segment.invalidation.begin(&wide, &mut shown);
        let takes = segment.is_private() || !segment.invalidation.is_deferred(&wide, &shown);
        let any = segment.frames.any(&wide, &shown);
        if any {
            shown.layout.hold_joins();
        }
        drop(shown);
        if any {
            self.zap_everywhere(ops, segment, &wide);
            self.install.write().layout.release_joins();
            if takes {
                self.take_frames(segment, &wide, false);
            }
        }
        let done = segment.zap(pages);
        segment.invalidation.end(&mut self.install.write());
        done
    }

    /// [`Segment::fault_in`] on behalf of whoever has seen that the layout shows the page, and looks
    /// at the arena again: that has settled then, which may take a while that no signal ends. Where
    /// the page is shown no longer, a copy that was made of it now is given back: nobody else will.
    pub(crate) fn fault_in(
        &self,
        segment: &Segment,
        page: SegmentPage,
        write: bool,
        locks: Locks,
    ) -> Result<(), NoPage> {
        let done = segment.fault_in(page, write, locks);
        if matches!(done, Ok(()) | Err(NoPage::Busy)) {
            // It may be for that alone that the page is not known; and to make a copy of one calls
            // the notifier.
            segment.settle();
        }
        done?;
        if write && segment.is_private() {
            let pages = page..page + 1;
            // After the copy is there: whoever removes the page from now on finds it.
            let look = || {
                let shown = self.install.read();
                let piece = shown.layout.next_showing(segment.id(), pages.clone(), None);
                match piece.is_some() {
                    true => Some(true),
                    // A change that is half made may have the page away for a moment.
                    false => (!shown.half_made).then_some(false),
                }
            };
            let is_shown = loop {
                match look() {
                    Some(is_shown) => break is_shown,
                    // Then the copy stays until the segment ends.
                    None if is_killed() => break true,
                    None => fsleep(PAUSE),
                }
            };
            if !is_shown && !segment.is_registered() {
                segment.zap(&pages);
            }
        }
        Ok(())
    }
}
