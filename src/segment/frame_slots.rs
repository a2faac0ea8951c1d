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
    segment::frame::HUGE_PAGES, //
};

/// An entry: a packed frame, or 0.
pub(super) type Word = Atomic<usize>;
/// The entries of [`HUGE_PAGES`] single pages.
type Chunk = [Word; HUGE_PAGES];

/// A relaxed load. The kernel crate's own is a call, which costs as much as all else that is
/// done for a page.
pub(super) fn peek(word: &Word) -> usize {
    // SAFETY: Valid and aligned for as long as it is borrowed; a volatile load of a word is what
    // the kernel's atomics make of a relaxed one.
    unsafe { word.as_ptr().read_volatile() }
}

/// The places of all entries.
///
/// A *slot* is a naturally aligned run of [`HUGE_PAGES`] pages of the arena. It is known as a huge
/// page or as single pages, not both at once, since the arena does not map both: between the two
/// there is an invalidation, which removes what was there. So many slots are a *group*. The memory
/// for either kind is there as soon as any slot of the group is known so: 8 bytes a slot for huge
/// pages, and for single pages 16 bytes a slot and 8 bytes a page of those slots of which any was
/// known.
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
    /// A slot each: the huge page that it is.
    huge: SetOnce<KVec<Word>>,
    /// A slot each: the single pages that it has.
    singles: SetOnce<KVec<SetOnce<KBox<Chunk>>>>,
}

impl Group {
    const fn new() -> Group {
        Group {
            huge: SetOnce::new(),
            singles: SetOnce::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.huge.as_ref().is_none() && self.singles.as_ref().is_none()
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

    /// Where the huge page is entered that a slot is.
    pub(super) fn huge(&self, slot: usize) -> Option<&Word> {
        self.group(slot)?.huge.as_ref()?.get(slot % HUGE_PAGES)
    }

    /// Where the single pages of a slot are entered; none where there is no memory for them.
    pub(super) fn singles(&self, slot: usize) -> &[Word] {
        let chunk = self
            .group(slot)
            .and_then(|group| group.singles.as_ref()?.get(slot % HUGE_PAGES)?.as_ref());
        chunk.map_or(&[], |chunk| &chunk[..])
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

    /// Makes room for the entry of `page`: of the huge page that it lies in, or of itself.
    /// Allocates if there is none: no install lock may be held. `ENOMEM`.
    pub(super) fn reserve(&self, page: SegmentPage, huge: bool) -> Result<(), AllocError> {
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
        if huge {
            if group.huge.as_ref().is_none() {
                group.huge.populate(many(slots, || Atomic::new(0))?);
            }
            return Ok(());
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
    pub(super) fn has_room(&self, page: SegmentPage, huge: bool) -> bool {
        match self.locate(page) {
            Some((slot, _)) if huge => self.huge(slot).is_some(),
            Some((slot, _)) => !self.singles(slot).is_empty(),
            None => true,
        }
    }

    /// The end of the last entry before `end` that lies in the slot of `page`, which has one.
    pub(super) fn end_of_last(&self, page: SegmentPage, end: SegmentPage) -> SegmentPage {
        let Some((slot, index)) = self.locate(page) else {
            return end;
        };
        if self.huge(slot).is_some_and(|word| peek(word) != 0) {
            return end.min(self.first_of(slot + 1));
        }
        let singles = self.singles(slot);
        let last = (end - page).min(singles.len().saturating_sub(index) as u64) as usize;
        let mut among = singles.iter().skip(index).take(last);
        page + among.rposition(|single| peek(single) != 0).unwrap_or(0) as u64 + 1
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
                    if let Some(word) = self.huge(slot).filter(|word| peek(word) != 0) {
                        return Search::Found(word, page);
                    }
                    let singles = self.singles(slot);
                    let last = (pages.end - page).min((HUGE_PAGES - index) as u64);
                    let among = singles.iter().skip(index).take(last as usize);
                    for (step, single) in among.enumerate() {
                        if peek(single) != 0 {
                            return Search::Found(single, page + step as u64);
                        }
                    }
                    *looks = looks.saturating_sub(singles.len() * SINGLES / HUGE_PAGES);
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
