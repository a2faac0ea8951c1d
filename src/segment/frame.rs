// SPDX-License-Identifier: GPL-2.0

//! One page frame: as a word, which is what the frame table has, page tables are read as
//! and entries are made of; and as what is left of it when it has left the table.
//!
//! Takes no lock.

use crate::sys::bindings;

/// One page frame as an attachment may show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The page frame number; for a huge page that of its first page.
    pub(crate) pfn: usize,
    /// Whether it may be written: so may the arena's own entry, then.
    pub(crate) writable: bool,
}

impl Frame {
    pub(crate) const PRESENT: usize = 1;
    pub(crate) const WRITABLE: usize = 2;
    const SHIFT: u32 = 2;
    /// Set in the table for a huge frame; no frame number reaches this far.
    pub(crate) const HUGE: usize = 1 << 63;

    /// The frame as a word, which is never 0: what the table has, and what page tables
    /// are read as and written from.
    pub(crate) fn pack(self) -> usize {
        (self.pfn << Self::SHIFT) | Self::PRESENT | if self.writable { Self::WRITABLE } else { 0 }
    }

    /// The frame that was packed so; [`None`] for 0.
    pub(crate) fn unpack(raw: usize) -> Option<Frame> {
        if raw & Self::PRESENT == 0 {
            return None;
        }
        Some(Frame {
            pfn: (raw & !Self::HUGE) >> Self::SHIFT,
            writable: raw & Self::WRITABLE != 0,
        })
    }
}

/// A frame that has left the table, with the reference that the table held.
///
/// # Invariants
///
/// Owns one reference to the frame's folio, and no attachment shows the frame any more once
/// it is dropped.
pub(crate) struct Taken {
    pub(crate) frame: Frame,
    /// The page of the segment that it is, or begins at.
    pub(crate) page: usize,
}

impl Taken {
    /// The page of the segment at which the frame must be written through the arena
    /// before it is let go of, if it must.
    ///
    /// A frame that attachments may write is dirty, as the arena's entry is, until
    /// writeback cleans it; and before that they are zapped. But where that was left
    /// to the worker, they may have written to what is clean by now, and only the file
    /// system can make it dirty again.
    pub(crate) fn page_to_write(&self) -> Option<usize> {
        // SAFETY: `self` owns a reference to the frame's folio.
        let clean = unsafe { bindings::address_space_helper_frame_is_clean(self.frame.pfn) };
        (self.frame.writable && clean).then_some(self.page)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Memory that is not written back is dirty only if somebody says so: an entry
        // of the arena may be writable there without being dirty, and those of
        // attachments, through which it may have been written, are gone without a
        // trace, since PFN maps are not tracked.
        //
        // SAFETY: `self` owns one reference to the frame's folio.
        unsafe { bindings::address_space_helper_frame_put(self.frame.pfn, self.frame.writable) };
    }
}
