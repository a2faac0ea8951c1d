// SPDX-License-Identifier: GPL-2.0

//! Populating: what is mapped is brought into memory, and installed in the attachments that there
//! are, so that the next access does not fault.
//!
//! Done after the change, with no lock held, and not part of it: whatever stands in its way, pages
//! that are not installed are left to faults. First the frames are mirrored ([`Space::bring_in`]),
//! which may wait for the file, as a fault may. Then they are installed, which waits for no other
//! task: the attachments are found if the asfd's `i_mmap` lock is available at once, and the page
//! table of an attached process is used if its mmap lock is.
//!
//! A page is installed as a fault for reading installs the pages around: under the install lock,
//! from what the frame table knows, with all the checks of that and with the rights that all
//! allow. So whatever revokes it later finds it.
//!
//! Where a VM may show an attachment, no entry for reading may be there where there may be one for
//! writing (`fault.rs`): what is known for reading only is left to faults then.

use core::ops::{
    ControlFlow,
    Range, //
};

use kernel::{
    mm::{
        MmWithUser,
        MmWithUserAsync, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

use crate::{
    attachment::{
        attach::attachment_of,
        install::{
            self,
            PageTable, //
        },
        vma::Attachment,
    },
    layout::{
        Pages,
        Prot,
        SpacePage, //
    },
    segment::list::Pins,
    space::{
        change::{
            Change,
            Kind, //
        },
        readahead::MOST,
        resolve::{
            Caution,
            Miss, //
        },
        Space, //
    },
    sys::{
        bindings,
        mm::fault_nowait,
        peek::peek,
        task::MemCgroup, //
    },
};

/// How many attachments are looked for at first, which need no allocation,
const FEW: usize = 8;
/// and how many in all: more are left to faults.
const MANY: usize = 128;

/// How many pages are installed with an attached process's mmap lock held: it may want to have
/// it.
const AT_ONCE: usize = 2048;

/// Where an attachment was: its mm, and an address in it.
///
/// To hold the mm's users may be to be the last to hold them: it is not to be torn down here,
/// which takes long and whatever locks.
struct Found {
    mm: ARef<MmWithUserAsync>,
    addr: usize,
}

/// How far it has got with an attachment.
#[derive(Clone, Copy)]
struct Progress {
    /// Which of the ranges,
    range: usize,
    /// and from which page of the space on.
    page: SpacePage,
}

/// The pages that a change populates.
fn populated(change: &Change) -> Option<&Range<SpacePage>> {
    match change.kind {
        Kind::Map {
            prot,
            populate: true,
            ..
        } if prot.contains(Prot::READ) => Some(&change.pages),
        _ => None,
    }
}

/// Populates what the changes, which have been made of the segments in `pins`, ask for. No lock
/// may be held.
pub(crate) fn populate<'a>(
    space: &Arc<Space>,
    changes: impl Iterator<Item = &'a Change> + Clone,
    pins: &Pins,
) {
    for change in changes.clone() {
        let Some(pages) = populated(change) else {
            continue;
        };
        if let Kind::Map {
            first,
            segment,
            prot,
            ..
        } = change.kind
        {
            let Some(pinned) = pins.get(segment as usize) else {
                continue;
            };
            let part = first..first + pages.count();
            let segment = pinned.segment();
            space.bring_in(pinned, segment.pages_of(&part), segment.populates(prot));
        }
    }
    install_all(space, changes.filter_map(populated));
}

/// Installs what is known of `pages` in the attachments that there are. No lock may be held.
pub(crate) fn install(space: &Space, pages: &Range<SpacePage>) {
    install_all(space, [pages].into_iter());
}

/// Installs what is known of all of the `ranges`.
fn install_all<'a>(space: &Space, ranges: impl Iterator<Item = &'a Range<SpacePage>> + Clone) {
    let mut all = Pages::none();
    for pages in ranges.clone() {
        all = pages.clone().hull(all);
    }
    if !all.is_empty() && peek(&space.counts.attachments) != 0 {
        install_everywhere(space, &all, ranges);
    }
}

/// The same, all within `all`.
fn install_everywhere<'a>(
    space: &Space,
    all: &Range<SpacePage>,
    ranges: impl Iterator<Item = &'a Range<SpacePage>> + Clone,
) {
    let install = |found: &Found| {
        let mut progress = Progress {
            range: 0,
            page: all.start,
        };
        while let Some(next) = install_some(space, found, ranges.clone(), progress) {
            progress = next;
        }
    };
    let mut few = [const { None }; FEW];
    let mut places = few.iter_mut();
    let more = find(space, all, 0, |found| match places.next() {
        Some(place) => {
            *place = Some(found);
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    });
    // Each is let go when it is done with: a process may end meanwhile.
    for place in &mut few {
        if let Some(found) = place.take() {
            install(&found);
        }
    }
    if !more {
        return;
    }
    let Ok(mut many) = KVec::with_capacity(MANY - FEW, GFP_KERNEL) else {
        return;
    };
    find(space, all, FEW, |found| {
        match many.push_within_capacity(found) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    while let Some(found) = many.pop() {
        install(&found);
    }
}

/// Calls `note` with the attachments that have any of the pages, but for the first `skipped`, until
/// it has no place for one more; says whether that was so. If the lock is not available, with none.
fn find(
    space: &Space,
    pages: &Range<SpacePage>,
    skipped: usize,
    mut note: impl FnMut(Found) -> ControlFlow<()>,
) -> bool {
    let Some(attached) = space.mapping.try_lock() else {
        return false;
    };
    let numbers = pages.start.get()..pages.end.get();
    let (mut passed, mut more) = (0, false);
    attached.visit(&numbers, |vma, addr, _| {
        passed += 1;
        if passed <= skipped {
            return ControlFlow::Continue(());
        }
        // An mm that is on its way out needs nothing.
        let Some(mm) = vma.mm().mmget_not_zero() else {
            return ControlFlow::Continue(());
        };
        let mm = MmWithUser::into_mmput_async(mm);
        let noted = note(Found { mm, addr });
        more |= noted.is_break();
        noted
    });
    more
}

/// Installs a part of the `ranges` in an attachment; returns where to go on, or
/// [`None`] when all that can be installed is.
fn install_some<'a>(
    space: &Space,
    found: &Found,
    ranges: impl Iterator<Item = &'a Range<SpacePage>>,
    from: Progress,
) -> Option<Progress> {
    let guard = found.mm.mmap_read_trylock()?;
    // It may be another by now.
    let attachment = attachment_of(guard.vma_lookup(found.addr)?, space)?;
    let flags = attachment.vma().flags();
    if flags & bindings::VM_READ == 0 {
        return None;
    }
    let mut tables = Tables {
        mm: &found.mm,
        attachment,
        writes: attachment.has_secondary_mmu() && flags & bindings::VM_WRITE != 0,
        last: None,
    };
    let shown = attachment.pages();
    let mut left = AT_ONCE;
    for (range, pages) in ranges.enumerate().skip(from.range) {
        let mut page = pages.start.max(shown.start);
        if range == from.range {
            page = page.max(from.page);
        }
        let end = pages.end.min(shown.end);
        while page < end {
            if current!().signal_pending() {
                return None;
            }
            if left == 0 {
                return Some(Progress { range, page });
            }
            let next = install_next(space, &mut tables, page..end);
            left = left.saturating_sub((next - page) as usize);
            page = next;
        }
    }
    None
}

/// Installs the first of `pages`, all of which lie in the attachment, and some that follow;
/// returns where to go on.
fn install_next(space: &Space, tables: &mut Tables<'_>, pages: Range<SpacePage>) -> SpacePage {
    let page = pages.start;
    let addr = tables.attachment.address_of(page);
    let end = pages.end.min(page + install::pages_to_end_of_table(addr));
    let writes = tables.writes;
    let Some(table) = tables.get(space, page) else {
        // A huge page, or nothing that can be installed.
        return end;
    };
    let install = |access, caution| {
        if end - page == 1 {
            return space.with_frame_if(page, access, caution, |frame| {
                table.insert_one(page, &frame);
                page + 1
            });
        }
        space.with_run::<MOST, _>(page, &(page..end), access, caution, |run| {
            table.insert(run);
            page + run.words.len() as u64
        })
    };
    let installed = match writes.then(|| install(Prot::WRITE, Caution::None)) {
        None => install(Prot::READ, Caution::None),
        // The layout does not allow writing: then reading is all that there may be; but not if it
        // does by now, since a VM would take a write to that for one to a device.
        Some(Err(Miss::Denied)) => install(Prot::READ, Caution::Writable),
        Some(installed) => installed,
    };
    match installed {
        Ok(next) => next,
        Err(Miss::Hole | Miss::Denied) => skip(space, page),
        Err(Miss::Invalidating | Miss::Unknown(..)) => page + 1,
    }
}

/// The first page after `page` that is shown for anything.
fn skip(space: &Space, page: SpacePage) -> SpacePage {
    let shown = space.install.read();
    match shown.layout.next(page) {
        Some(range) if range.prot.contains(Prot::READ) => range.start.max(page + 1),
        Some(range) => range.end,
        None => SpacePage::new(space.pages),
    }
}

/// The page tables of an attachment, with the mmap lock of its process held.
struct Tables<'a> {
    mm: &'a MmWithUser,
    attachment: Attachment<'a>,
    /// Whether only what may be written is installed, unless the layout forbids writing.
    writes: bool,
    /// The one that was used last.
    last: Option<PageTable<'a>>,
}

impl<'a> Tables<'a> {
    /// The page table that has the entry of a page of the space. It is made, if that can be done
    /// and something is shown there; [`None`] also where there is a huge page.
    ///
    /// To make one a page fault is made. It is charged as if the process itself had touched the
    /// page, and waits for nothing: one that would have to is given up. It may install a huge page
    /// where there can be one, with no race between the two.
    fn get(&mut self, space: &Space, page: SpacePage) -> Option<&PageTable<'a>> {
        let addr = self.attachment.address_of(page);
        if !self.last.as_ref().is_some_and(|table| table.covers(addr)) {
            let mut table = PageTable::find(self.attachment, addr);
            if table.is_none() && space.shown_at(page).is_some() {
                let memcg = MemCgroup::of(Some(self.mm));
                memcg.charge(|| fault_nowait(self.attachment.vma(), addr));
                table = PageTable::find(self.attachment, addr);
            }
            self.last = table;
        }
        self.last.as_ref()
    }
}
