// SPDX-License-Identifier: GPL-2.0

//! One page frame as a word, which is what the frame table has, page tables are read as and
//! entries are made of. Pure data.

use crate::{
    layout::Prot,
    sys::bindings, //
};

/// Pages in a huge page.
pub(crate) const HUGE_PAGES: usize = 512;
/// The order of a huge page.
pub(crate) const HUGE_ORDER: u32 = 9;

/// One page frame as an attachment may show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The page frame number; for a huge page that of its first page.
    pub(crate) pfn: usize,
    /// Whether it may be written: then the arena's own entry may be, too.
    pub(crate) writable: bool,
}

impl Frame {
    pub(crate) const PRESENT: usize = bindings::ADDRESS_SPACE_FRAME_PRESENT as usize;
    pub(crate) const WRITABLE: usize = bindings::ADDRESS_SPACE_FRAME_WRITABLE as usize;
    const HUGE: usize = bindings::ADDRESS_SPACE_FRAME_HUGE as usize;
    /// How far the number is shifted in a word.
    pub(super) const SHIFT: u32 = bindings::ADDRESS_SPACE_FRAME_SHIFT;

    /// The frame as a word, which is never 0; `sys/helpers.h` has the format.
    pub(crate) fn pack(self) -> usize {
        (self.pfn << Self::SHIFT) | Self::PRESENT | if self.writable { Self::WRITABLE } else { 0 }
    }

    /// The frame that was packed so; [`None`] for 0.
    pub(crate) fn unpack(word: usize) -> Option<Frame> {
        (word & Self::PRESENT != 0).then_some(Frame {
            pfn: word >> Self::SHIFT,
            writable: word & Self::WRITABLE != 0,
        })
    }

    /// Whether what was read from a page table is part of a huge page.
    pub(crate) fn is_part_of_huge(word: usize) -> bool {
        word & Self::HUGE != 0
    }

    /// Whether it is good enough for `access`: reading and executing want only that it is known.
    pub(crate) fn allows(self, access: Prot) -> bool {
        self.writable || !access.contains(Prot::WRITE)
    }
}
