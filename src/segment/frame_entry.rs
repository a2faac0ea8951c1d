// SPDX-License-Identifier: GPL-2.0

//! An entry of a frame table as a word, and the entries of the pages that a huge page would have.
//!
//! Nothing here takes a lock, nor changes an entry.

use core::ops::Range;

use kernel::sync::atomic::Atomic;

use crate::{
    segment::frame::{
        Frame,
        HUGE_PAGES, //
    },
    sys::peek::peek,
};

/// An entry: a packed frame with what it is the frame of ([`Of`]), or 0.
pub(super) type Word = Atomic<usize>;

/// What an entry is the frame of: the bits of its word above those of a packed frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Of(usize);

impl Of {
    /// The first bit that no frame number has: they have 40, of 52 bits of an address.
    const SHIFT: u32 = Frame::SHIFT + 40;
    const LONE: usize = 1 << Self::SHIFT;
    const INDEX_SHIFT: u32 = Self::SHIFT + 1;

    /// Of what the place of the entry is for: a huge page, or one of a slot's single pages.
    pub(super) const PLACE: Of = Of(0);

    /// In the place of a huge page, of the single page `index` of that slot.
    fn lone(index: usize) -> Of {
        const { assert!(HUGE_PAGES << Self::INDEX_SHIFT >> Self::INDEX_SHIFT == HUGE_PAGES) };
        Of(Self::LONE | index << Self::INDEX_SHIFT)
    }

    /// What the entry `word` is of.
    pub(super) fn entry(word: usize) -> Of {
        Of(word & !(Self::LONE - 1))
    }

    /// The single page, if the place is not for it.
    pub(super) fn lone_index(self) -> Option<usize> {
        (self.0 & Self::LONE != 0).then_some(self.0 >> Self::INDEX_SHIFT)
    }

    /// The entry of such a frame.
    pub(super) fn pack(self, frame: Frame) -> usize {
        frame.pack() | self.0
    }

    /// The packed frame of an entry.
    pub(super) fn frame(word: usize) -> usize {
        word & (Self::LONE - 1)
    }
}

/// The entries of one slot, as far as there is room for them: a naturally aligned run of
/// [`HUGE_PAGES`] pages of the arena.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    /// Of the huge page that it is, or of a single page of it.
    pub(super) word: Option<&'a Word>,
    /// Of its single pages, but for one that may be in the word.
    pub(super) singles: &'a [Word],
}

impl<'a> Slot<'a> {
    /// The place for a single page, and how it is entered there.
    pub(super) fn place(self, index: usize) -> Option<(&'a Word, Of)> {
        let lone = Of::lone(index);
        let word = self.word.filter(|word| match peek(word) {
            0 => self.singles.is_empty(),
            known => Of::entry(known) == lone,
        });
        match word {
            Some(word) => Some((word, lone)),
            None => Some((self.singles.get(index)?, Of::PLACE)),
        }
    }

    /// The packed frame of the huge page, if it is known as one.
    pub(super) fn huge(self) -> Option<usize> {
        let word = peek(self.word?);
        (word != 0 && Of::entry(word) == Of::PLACE).then_some(word)
    }

    /// The single page whose entry is in the word, and its packed frame.
    pub(super) fn lone(self) -> Option<(usize, usize)> {
        let word = peek(self.word?);
        Some((Of::entry(word).lone_index()?, Of::frame(word)))
    }

    /// The packed frame of a single page, or 0. If two faults at once have entered it in both
    /// places, it is the same frame, with the rights of either.
    pub(super) fn single(self, index: usize) -> usize {
        let single = self.singles.get(index).map_or(0, peek);
        match self.lone() {
            Some((lone, frame)) if lone == index => frame | single,
            _ => single,
        }
    }

    /// The first page of `pages` that is known, where single pages are, and its entry.
    pub(super) fn first(self, pages: Range<usize>) -> Option<(usize, &'a Word)> {
        let lone = self.lone().map(|(lone, _)| lone);
        let lone = lone.filter(|lone| pages.contains(lone));
        let end = lone.unwrap_or(pages.end).min(self.singles.len());
        let before = self.singles.get(pages.start..end).unwrap_or(&[]);
        let mut before = (pages.start..).zip(before);
        before
            .find(|(_, single)| peek(single) != 0)
            .or_else(|| lone.zip(self.word))
    }

    /// The last page of `pages` that is known, where single pages are.
    pub(super) fn last(self, pages: Range<usize>) -> Option<usize> {
        let end = pages.end.min(self.singles.len());
        let among = self.singles.get(pages.start..end).unwrap_or(&[]);
        let last = among.iter().rposition(|single| peek(single) != 0);
        let lone = self.lone().map(|(lone, _)| lone);
        let lone = lone.filter(|lone| pages.contains(lone));
        last.map(|last| pages.start + last).max(lone)
    }
}
