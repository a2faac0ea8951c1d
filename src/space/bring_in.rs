// SPDX-License-Identifier: GPL-2.0

//! Bringing in: pages of a segment are brought into memory and mirrored before anybody touches
//! them.
//!
//! Locks: none may be held; this may wait for the file, as a fault may.

use core::ops::{
    ControlFlow,
    Range, //
};

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    layout::{
        Prot,
        SegmentPage, //
    },
    segment::Segment,
    space::{
        readahead::MOST,
        resolve::Miss,
        retry::{
            Obstacle,
            Retry, //
        },
        Space, //
    },
};

impl Space {
    /// Mirrors pages `part` of a segment, brought into memory where they are not there, as far as
    /// that goes. Says whether there was anything to do.
    pub(crate) fn bring_in(
        &self,
        segment: &Arc<Segment>,
        part: Range<SegmentPage>,
        prot: Prot,
    ) -> bool {
        if !prot.contains(Prot::READ) {
            return false;
        }
        let mut any = false;
        let mut page = part.start;
        while page < part.end {
            if !is_known(segment, page, prot) {
                any = true;
                if current!().signal_pending() || !self.bring_in_page(segment, page, &part, prot) {
                    break;
                }
            }
            page = page + 1;
        }
        any
    }

    /// The same for one page, and what is in memory of those that follow in `part`. Whether it is
    /// worth going on.
    fn bring_in_page(
        &self,
        segment: &Arc<Segment>,
        page: SegmentPage,
        part: &Range<SegmentPage>,
        prot: Prot,
    ) -> bool {
        let write = prot.contains(Prot::WRITE);
        let ahead = (part.end - page).min(MOST as u64);
        Retry::new(write, 0, ahead)
            .run(
                self,
                || match is_known(segment, page, prot) {
                    true => Ok(()),
                    false => Err(Miss::Unknown(segment.clone(), page)),
                },
                |obstacle| match obstacle {
                    Obstacle::Missing(segment, page) | Obstacle::Busy(segment, page) => {
                        match self.arena.fault_in(segment.addr_of(page), write) {
                            Ok(()) => ControlFlow::Continue(()),
                            Err(_) => ControlFlow::Break(false),
                        }
                    }
                    Obstacle::NoMemory => ControlFlow::Break(false),
                    // It is left to faults.
                    Obstacle::Hole | Obstacle::Denied | Obstacle::Invalidating => {
                        ControlFlow::Break(true)
                    }
                },
            )
            .err()
            .unwrap_or(true)
    }
}

/// Whether the table knows enough of a page for `prot`.
fn is_known(segment: &Segment, page: SegmentPage, prot: Prot) -> bool {
    segment
        .frames
        .get(page)
        .is_some_and(|frame| frame.allows(prot))
}
