// SPDX-License-Identifier: GPL-2.0

//! A reference to the folio of a frame: on its way into the frame table, and out of it.
//!
//! References are taken of what the notifier has confirmed, with the install lock held. They are
//! put with no lock held: that may free memory.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use core::{
    mem::ManuallyDrop,
    ops::Range, //
};

use crate::{
    layout::SegmentPage,
    segment::{
        frame::Frame,
        notifier::Confirmed, //
    },
    sys::bindings,
};

/// A reference to a frame's folio.
///
/// # Invariants
///
/// Owns one reference to the folio.
pub(crate) struct FrameRef {
    frame: Frame,
    /// The page of the segment that it is, or begins at.
    page: SegmentPage,
    /// Whether it may have been written through an attachment.
    written: bool,
}

impl FrameRef {
    /// A reference to the frame that was seen at `index`, if one was.
    pub(super) fn get<T>(confirmed: &Confirmed<'_, T>, index: usize) -> Option<Self> {
        let frame = confirmed.seen().at(index)?.frame;
        // SAFETY: What is confirmed is mapped by the arena, which so holds the folio.
        unsafe { bindings::address_space_helper_frame_get(frame.pfn) };
        // INVARIANT: The reference was just taken.
        Some(Self::new(frame))
    }

    /// References to the frames of single pages that were seen at `range`, with one call; [`None`]
    /// for each page that has no frame, and at all if not only single pages were seen.
    pub(super) fn get_all<'a, T>(
        confirmed: &'a Confirmed<'_, T>,
        range: Range<usize>,
    ) -> Option<impl Iterator<Item = Option<Self>> + 'a> {
        let words = confirmed.seen().singles()?.get(range)?;
        // SAFETY: As in `get`.
        unsafe { bindings::address_space_helper_frames_get(words.as_ptr(), words.len()) };
        // INVARIANT: The references were just taken, and each is made a `FrameRef` once: the
        // iterator is private to the caller, which goes to its end.
        Some(words.iter().map(|word| Frame::unpack(*word).map(Self::new)))
    }

    fn new(frame: Frame) -> Self {
        FrameRef {
            frame,
            page: SegmentPage::new(0),
            written: false,
        }
    }

    /// The frame.
    pub(super) fn frame(&self) -> Frame {
        self.frame
    }

    /// Leaves the reference to an entry of the frame table that has the frame's number, which is
    /// that of `frame`'s folio.
    pub(super) fn into_entry(self) {
        let _ = ManuallyDrop::new(self);
    }

    /// The reference that an entry of the frame table had, as page `page` of the segment.
    ///
    /// # Safety
    ///
    /// `word` must be what an entry had to which a reference was left, and that has it no longer.
    pub(super) unsafe fn from_entry(word: usize, page: SegmentPage) -> Option<Self> {
        let frame = Frame::unpack(word)?;
        // INVARIANT: By the caller's promise.
        Some(FrameRef {
            frame,
            page,
            written: frame.writable,
        })
    }

    /// The page of the segment at which the frame must be written through the arena before it is
    /// put, if it must.
    ///
    /// A frame that attachments may write is dirty, as the arena's entry is, until writeback
    /// cleans it; and before that they are zapped. But where the zap was deferred to the worker,
    /// they may have written to what is clean by now, and only the file system can make it dirty
    /// again.
    pub(crate) fn page_to_write(&self) -> Option<SegmentPage> {
        // SAFETY: `self` owns a reference to the frame's folio.
        let clean = unsafe { bindings::address_space_helper_frame_is_clean(self.frame.pfn) };
        (self.written && clean).then_some(self.page)
    }
}

impl Drop for FrameRef {
    fn drop(&mut self) {
        // Memory that is not written back is dirty only if it is marked so: an entry of the arena
        // may be writable there without being dirty, and those of attachments, through which it
        // may have been written, are gone without a trace, since PFN maps are not tracked.
        //
        // SAFETY: `self` owns one reference to the frame's folio.
        unsafe { bindings::address_space_helper_frame_put(self.frame.pfn, self.written) };
    }
}
