// SPDX-License-Identifier: GPL-2.0

//! The memory of a frame table: where the entry of each page is, room for entries, and the search
//! for those that are there.
//!
//! What an entry says, and under which lock it changes, is the frame table's business. Nothing here
//! takes a lock: memory is only ever added ([`Slots::reserve`], with no install lock held, since
//! that allocates), and stays as long as the table.
//!
//! Pages are counted from the segment's first.

use core::ops::Range;

use kernel::{
    alloc::{
        AllocError,
        Allocator,
        Vec, //
    },
    prelude::*,
    sync::{
        atomic::Atomic,
        SetOnce, //
    },
};

use crate::{
    layout::SegmentPage,
    segment::{
        frame::HUGE_PAGES,
        frame_entry::{
            Slot,
            Word, //
        },
    },
};

/// The entries of [`HUGE_PAGES`] single pages.
type Chunk = [Word; HUGE_PAGES];

/// What room is to be made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The huge page that a page lies in.
    Huge,
    /// A page, which may be the only one that is known around there.
    Lone,
    /// A page among others.
    Single,
}

/// The places of all entries.
///
/// A *slot* is a naturally aligned run of [`HUGE_PAGES`] pages of the arena. It is known as a huge
/// page or as single pages, not both at once, since the arena does not map both: between the two
/// there is an invalidation, which removes what was there.
///
/// So many slots are a *group*. A slot has a word for its huge page: 8 bytes for each of a group,
/// as soon as any is known so. The same word serves for a single page as long as no other of the
/// slot is known, since one page here and there is what a sparse file has. From the second on there
/// is a chunk, of 8 bytes for each page of the slot, and 16 bytes for each slot of the group; the
/// first stays where it is.
///
/// Groups are in blocks of [`BLOCK`], of which there are those in which anything was known: all of
/// a process's memory may be lent, of which it uses little, here and there.
pub(super) struct Slots {
    /// Pages between the start of slot 0 and the segment's first page, so that slots lie as huge
    /// pages lie in the arena.
    lead: usize,
    pages: usize,
    first: Group,
    /// The groups after the first, by blocks.
    more: SetOnce<KVVec<SetOnce<KVVec<Group>>>>,
}

/// How many groups there are in a block: of 64 bytes each.
const BLOCK: usize = 256;

/// [`HUGE_PAGES`] slots, or as many as there are.
struct Group {
    /// A slot each: the huge page that it is, or a single page of it.
    words: SetOnce<KVec<Word>>,
    /// A slot each: the single pages that it has.
    singles: SetOnce<KVec<SetOnce<KBox<Chunk>>>>,
}

impl Group {
    const fn new() -> Group {
        Group {
            words: SetOnce::new(),
            singles: SetOnce::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.words.as_ref().is_none() && self.singles.as_ref().is_none()
    }
}

/// How much of the table is looked at under one hold of the install lock, in slots without single
/// pages. A slot that has some takes as long as [`SINGLES`] of those.
pub(super) const LOOKS: usize = 1 << 14;
const SINGLES: usize = 64;

/// What a search has come to.
pub(super) enum Search<'a> {
    /// An entry, with the page it begins at.
    Found(&'a Word, SegmentPage),
    /// There is none.
    Nothing,
    /// None up to this page; the search was long enough.
    Unfinished(SegmentPage),
}

impl Slots {
    /// For `pages` pages that begin at page `first` of the arena. There is no room yet.
    pub(super) fn new(first: usize, pages: usize) -> Slots {
        Slots {
            lead: first % HUGE_PAGES,
            pages,
            first: Group::new(),
            more: SetOnce::new(),
        }
    }

    /// All pages.
    pub(super) fn pages(&self) -> Range<SegmentPage> {
        SegmentPage::new(0)..SegmentPage::from_usize(self.pages)
    }

    /// How many slots there are.
    fn count(&self) -> usize {
        (self.lead + self.pages).div_ceil(HUGE_PAGES)
    }

    /// The slot of a page, and which page of it that is; [`None`] past the last page.
    pub(super) fn locate(&self, page: SegmentPage) -> Option<(usize, usize)> {
        let index = page.as_usize();
        (index < self.pages).then(|| {
            let index = self.lead + index;
            (index / HUGE_PAGES, index % HUGE_PAGES)
        })
    }

    /// The group that a slot lies in, if there is memory for it.
    fn group(&self, slot: usize) -> Option<&Group> {
        match slot / HUGE_PAGES {
            0 => Some(&self.first),
            index => self.block(index)?.get((index - 1) % BLOCK),
        }
    }

    /// The block that a group lies in which is not the first, if there is memory for it.
    fn block(&self, group: usize) -> Option<&KVVec<Group>> {
        let blocks = self.more.as_ref()?;
        blocks.get((group - 1) / BLOCK)?.as_ref()
    }

    /// The first slot after `slot` of which there may be a group, if there is none of `slot`.
    fn next_group(&self, slot: usize) -> usize {
        let group = slot / HUGE_PAGES;
        let next = match group {
            0 => 1,
            _ if self.block(group).is_some() => group + 1,
            _ => (group - 1) / BLOCK * BLOCK + BLOCK + 1,
        };
        next * HUGE_PAGES
    }

    /// The entries of a slot.
    pub(super) fn get(&self, slot: usize) -> Slot<'_> {
        let Some(group) = self.group(slot) else {
            return Slot {
                word: None,
                singles: &[],
            };
        };
        let index = slot % HUGE_PAGES;
        let chunk = || group.singles.as_ref()?.get(index)?.as_ref();
        Slot {
            word: group.words.as_ref().and_then(|words| words.get(index)),
            singles: chunk().map_or(&[], |chunk| &chunk[..]),
        }
    }

    /// The first page of a slot that is not the first.
    pub(super) fn first_of(&self, slot: usize) -> SegmentPage {
        SegmentPage::from_usize(slot * HUGE_PAGES - self.lead)
    }

    /// Whether a huge page can begin at `page`.
    pub(super) fn can_be_huge(&self, page: SegmentPage) -> bool {
        (self.lead + page.as_usize()) % HUGE_PAGES == 0 && self.holds_huge(page)
    }

    /// Whether the huge page's worth of pages around `page` is all the segment's.
    pub(super) fn holds_huge(&self, page: SegmentPage) -> bool {
        let start = (self.lead + page.as_usize()) / HUGE_PAGES * HUGE_PAGES;
        // The arena may have merged the VMAs of two segments of one file, and have a huge page
        // across the seam.
        start >= self.lead && start + HUGE_PAGES <= self.lead + self.pages
    }

    /// Makes room for the entry of `page`. Allocates if there is none: no install lock may be
    /// held. `ENOMEM`.
    pub(super) fn reserve(&self, page: SegmentPage, room: Room) -> Result<(), AllocError> {
        let Some((slot, _)) = self.locate(page) else {
            return Ok(());
        };
        // Where another task is faster, what it has made is as good, as soon as it is there.
        if let Some(index) = (slot / HUGE_PAGES).checked_sub(1) {
            let groups = self.count().div_ceil(HUGE_PAGES) - 1;
            if self.more.as_ref().is_none() {
                let blocks = many(groups.div_ceil(BLOCK), SetOnce::new)?;
                self.more.populate(blocks);
            }
            let block = index / BLOCK;
            let place = self.more.as_ref().and_then(|blocks| blocks.get(block));
            if let Some(place) = place.filter(|place| place.as_ref().is_none()) {
                let groups = (groups - block * BLOCK).min(BLOCK);
                place.populate(many(groups, Group::new)?);
            }
        }
        let Some(group) = self.group(slot) else {
            return Ok(());
        };
        let slots = (self.count() - slot / HUGE_PAGES * HUGE_PAGES).min(HUGE_PAGES);
        if room != Room::Single {
            if group.words.as_ref().is_none() {
                group.words.populate(many(slots, || Atomic::new(0))?);
            }
            if self.has_room(page, room) {
                return Ok(());
            }
        }
        if group.singles.as_ref().is_none() {
            group.singles.populate(many(slots, SetOnce::new)?);
        }
        let place = group
            .singles
            .as_ref()
            .and_then(|slots| slots.get(slot % HUGE_PAGES));
        if let Some(place) = place.filter(|place| place.as_ref().is_none()) {
            let zeroed = KBox::<[usize; HUGE_PAGES]>::zeroed(GFP_KERNEL_ACCOUNT)?;
            // SAFETY: An atomic has the layout of what it holds.
            let chunk = unsafe { KBox::from_raw(KBox::into_raw(zeroed).cast::<Chunk>()) };
            place.populate(chunk);
        }
        Ok(())
    }

    /// Whether [`Slots::reserve`] has nothing to do.
    pub(super) fn has_room(&self, page: SegmentPage, room: Room) -> bool {
        let Some((slot, index)) = self.locate(page) else {
            return true;
        };
        let slot = self.get(slot);
        match room {
            Room::Huge => slot.word.is_some(),
            Room::Lone => slot.place(index).is_some(),
            Room::Single => !slot.singles.is_empty(),
        }
    }

    /// The end of the last entry before `end` that lies in the slot of `page`, which has one.
    pub(super) fn end_of_last(&self, page: SegmentPage, end: SegmentPage) -> SegmentPage {
        let Some((slot, index)) = self.locate(page) else {
            return end;
        };
        let last = (end - page).min((HUGE_PAGES - index) as u64);
        let entries = self.get(slot);
        if entries.huge().is_some() {
            return page + last;
        }
        let last = entries.last(index..index + last as usize);
        page + (last.unwrap_or(index) - index) as u64 + 1
    }

    /// Looks for the first entry in `pages`, as long as there are looks left.
    pub(super) fn find(&self, pages: &Range<SegmentPage>, looks: &mut usize) -> Search<'_> {
        let mut page = pages.start;
        while page < pages.end {
            let Some((slot, index)) = self.locate(page) else {
                break;
            };
            let next = match self.group(slot).filter(|group| !group.is_empty()) {
                None => self.first_of(self.next_group(slot)),
                Some(_) => {
                    let entries = self.get(slot);
                    let last = (pages.end - page).min((HUGE_PAGES - index) as u64) as usize;
                    if let Some(word) = entries.word.filter(|_| entries.huge().is_some()) {
                        return Search::Found(word, page);
                    }
                    if let Some((found, word)) = entries.first(index..index + last) {
                        return Search::Found(word, page + (found - index) as u64);
                    }
                    *looks = looks.saturating_sub(entries.singles.len() * SINGLES / HUGE_PAGES);
                    self.first_of(slot + 1)
                }
            };
            page = next;
            *looks = looks.saturating_sub(1);
            if *looks == 0 && page < pages.end {
                return Search::Unfinished(page);
            }
        }
        Search::Nothing
    }
}

/// So many values.
fn many<A: Allocator, T>(count: usize, value: impl Fn() -> T) -> Result<Vec<T, A>, AllocError> {
    let mut all = Vec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..count {
        all.push(value(), GFP_KERNEL_ACCOUNT)?;
    }
    Ok(all)
}
