// SPDX-License-Identifier: GPL-2.0

//! Bringing in: pages of a segment are brought into memory and mirrored before anybody touches
//! them.
//!
//! Locks: none may be held; this may wait for the file, as a fault may, or for a lender.

use core::ops::{
    ControlFlow,
    Range, //
};

use kernel::{
    prelude::*,
    time::Delta, //
};

use crate::{
    layout::{
        Prot,
        SegmentPage, //
    },
    segment::{
        list::Pinned,
        Segment, //
    },
    space::{
        mirror::Mirrored,
        readahead::{
            AROUND,
            MOST, //
        },
        resolve::Miss,
        retry::{
            Obstacle,
            Reach,
            Retry, //
        },
        Space, //
    },
    sys::{
        mm::{
            Locks,
            NoPage, //
        },
        wait::nap,
    },
};

/// How long to sleep before a page is looked at again,
const NAP: Delta = Delta::from_micros(50);
/// and how often at most, before the access is tried again.
const LOOKS: usize = 64;

impl Space {
    /// Has a page of a segment made present where it is mapped, writable if `write`: it takes as
    /// long as its file does, or its lender. See [`Space::fault_in`].
    ///
    /// What was lent is entered in the table too: when the access is tried again, the lender may be
    /// busy with something else, which may not be waited for then. So is what is of a file where the
    /// access was `tried` before, since the file may be changed without a pause. Else it is enough
    /// to wait for a change to end, if it is only for that: then the access finds what else is there.
    pub(crate) fn provide(
        &self,
        pinned: &Pinned,
        page: SegmentPage,
        write: bool,
        tried: bool,
    ) -> Result<(), NoPage> {
        let segment = pinned.segment();
        let lent = segment.is_lent();
        if !lent && !tried {
            return match segment.settle() {
                true => Ok(()),
                false => self.fault_in(segment, page, write, Locks::Wait),
            };
        }
        let around = page..page + if lent { 1 } else { AROUND };
        let access = if write { Prot::WRITE } else { Prot::READ };
        for _ in 0..LOOKS {
            match self.mirror(segment, page, &around, write, Locks::Wait) {
                Ok(Mirrored::Again) if is_known(segment, page, access) => break,
                Ok(Mirrored::Again) => (),
                Ok(Mirrored::Missing) => self.fault_in(segment, page, write, Locks::Wait)?,
                Ok(Mirrored::Invalidating | Mirrored::Busy) => {
                    nap(NAP).map_err(|_| NoPage::Interrupted)?
                }
                // Then that is what the access comes to.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Mirrors pages `part` of a segment, brought into memory where they are not there, as far as
    /// that goes. Says whether there was anything to do.
    pub(crate) fn bring_in(&self, pinned: &Pinned, part: Range<SegmentPage>, prot: Prot) -> bool {
        let segment = pinned.segment();
        if !prot.contains(Prot::READ) {
            return false;
        }
        let mut any = false;
        let mut page = part.start;
        while page < part.end {
            if !is_known(segment, page, prot) {
                any = true;
                if current!().signal_pending()
                    || self.bring_in_page(pinned, page, &part, prot).is_err()
                {
                    break;
                }
            }
            page = page + 1;
        }
        any
    }

    /// Has the table know all pages `part` of a segment for `access`, each at some moment: `EINTR`,
    /// `ENOMEM`; `EHWPOISON` for bad memory, `EACCES` where a lender may not access it so itself,
    /// and `EFAULT` for any other page that cannot be provided.
    pub(crate) fn bring_in_all(
        &self,
        pinned: &Pinned,
        part: Range<SegmentPage>,
        access: Prot,
    ) -> Result {
        let mut page = part.start;
        while page < part.end {
            if is_known(pinned.segment(), page, access) {
                page = page + 1;
                continue;
            }
            if current!().signal_pending() {
                return Err(EINTR);
            }
            self.bring_in_page(pinned, page, &part, access)?;
            if !is_known(pinned.segment(), page, access) {
                // It is being invalidated, or was each time.
                nap(NAP)?;
            }
        }
        Ok(())
    }

    /// Has the table know one page, and what is in memory of those that follow in `part`. `Ok` also
    /// where it is left to faults. Errors as for [`Space::bring_in_all`].
    fn bring_in_page(
        &self,
        pinned: &Pinned,
        page: SegmentPage,
        part: &Range<SegmentPage>,
        prot: Prot,
    ) -> Result {
        let write = prot.contains(Prot::WRITE);
        let ahead = (part.end - page).min(MOST as u64);
        Retry::new(write, Reach::ahead(ahead))
            .run(
                self,
                |_| match is_known(pinned.segment(), page, prot) {
                    true => Ok(()),
                    false => Err(Miss::Unknown(pinned.clone(), page)),
                },
                |obstacle| match obstacle {
                    Obstacle::Missing(pinned, page) | Obstacle::Busy(pinned, page) => {
                        match self.provide(pinned, page, write, false) {
                            Ok(()) => ControlFlow::Continue(()),
                            Err(no_page) => ControlFlow::Break(Err(no_page.into())),
                        }
                    }
                    Obstacle::NoMemory => ControlFlow::Break(Err(ENOMEM)),
                    // It is left to faults.
                    Obstacle::Hole | Obstacle::Denied | Obstacle::Invalidating => {
                        ControlFlow::Break(Ok(()))
                    }
                },
            )
            .err()
            .unwrap_or(Ok(()))
    }
}

/// Whether the table knows enough of a page for `prot`.
fn is_known(segment: &Segment, page: SegmentPage, prot: Prot) -> bool {
    segment
        .frames
        .get(page)
        .is_some_and(|frame| frame.allows(prot))
}
