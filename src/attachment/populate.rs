// SPDX-License-Identifier: GPL-2.0

//! Populating: what is mapped is brought into memory, and entered in the windows that
//! there are, so that who touches it next does not fault.
//!
//! Done after the change, with no lock held, and not part of it: whatever stands in the
//! way of it, pages that are not entered are left to faults. First the frames are made
//! known ([`Space::bring_in`]), which may wait for the file, as a fault may. Then they are
//! entered, which waits for nobody: the windows are found if the asfd's `i_mmap` lock can
//! be had at once, and an attached process's page table is made use of if its mmap lock
//! can.
//!
//! A page is entered as a fault for reading enters the pages around: under the install
//! lock, from what the frame table knows, with all the checks of that and what rights all
//! allow. So whatever revokes it later finds it.
//!
//! Windows of VMs are left alone: no entry for reading may stand there where there may
//! be one for writing (`Fault::enter_for_slot`).

use core::ops::Range;

use kernel::{
    mm::{
        virt::VmaRef,
        Mm,
        MmWithUser,
        MmWithUserAsync, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::ordering::*,
        Arc, //
    },
};

use crate::{
    attachment::{
        fault::HUGE_SIZE,
        install::enter_frames,
        vma::{
            is_attachment_of,
            is_slot_window, //
        },
    },
    layout::Prot,
    segment::{
        arena::Charge,
        Segment, //
    },
    space::{
        change::{
            Change,
            Kind, //
        },
        readahead::MOST,
        resolve::{
            Learned,
            Miss,
            Run,
            TRIES, //
        },
        segments::Pins,
        Space, //
    },
    sys::bindings, //
};

/// How many windows are looked for at a time,
const WINDOWS: usize = 8;
/// and how often: more are left to faults.
const ROUNDS: usize = 16;

/// How many pages are entered with an attached process's mmap lock held: it may want
/// to have it.
const AT_ONCE: usize = 2048;

/// A window, by an address in it.
///
/// To hold the mm's users may be to be the last to hold them: it is not to be torn down
/// here, which takes long, and what locks it likes.
struct Window {
    mm: ARef<MmWithUserAsync>,
    addr: usize,
}

/// How far it has got with a window.
#[derive(Clone, Copy)]
struct Place {
    /// Which of the changes,
    change: usize,
    /// and from which page of the space on.
    page: u64,
}

/// A page table, known to be there as long as the mmap lock is held.
struct Table {
    /// The first address of which it has the entry.
    addr: usize,
    pmd: *mut bindings::pmd_t,
}

/// An attachment, with the mmap lock of its process held.
struct Held<'a> {
    mm: &'a MmWithUser,
    vma: &'a VmaRef,
    /// The page of the space that it begins with.
    first: u64,
    table: Option<Table>,
}

impl Change {
    /// The pages that are to be populated.
    fn populated(&self) -> Option<&Range<u64>> {
        match self.kind {
            Kind::Map {
                prot,
                populate: true,
                ..
            } if prot.contains(Prot::READ) => Some(&self.pages),
            _ => None,
        }
    }
}

impl Space {
    /// Populates what the changes, which have been made of the segments in `pins`, ask
    /// for. No lock may be held.
    pub(crate) fn populate<'a>(
        self: &Arc<Self>,
        changes: impl Iterator<Item = &'a Change> + Clone,
        pins: &Pins,
    ) {
        let mut hull: Option<Range<u64>> = None;
        let mut waited = false;
        for change in changes.clone() {
            let Some(pages) = change.populated() else {
                continue;
            };
            if let Kind::Map {
                first,
                segment,
                prot,
                ..
            } = change.kind
            {
                let Some(segment) = pins.get(segment) else {
                    continue;
                };
                let segment = segment.segment();
                let first = first as usize - segment.first();
                let part = first..first + (pages.end - pages.start) as usize;
                waited |= self.bring_in(segment, part, prot);
            }
            hull = Some(match hull {
                Some(hull) => hull.start.min(pages.start)..hull.end.max(pages.end),
                None => pages.clone(),
            });
        }
        if let Some(hull) = hull.filter(|_| self.counts.attachments.load(Relaxed) != 0) {
            self.enter_in_windows(&hull, changes);
        }
        if waited {
            // What was unmapped meanwhile could not be ended, since it is pinned.
            self.reap_later();
        }
    }

    /// Makes known the frames of pages `part` of a segment, brought into memory where
    /// they are not there, as far as that goes. Says whether there was anything to do.
    pub(crate) fn bring_in(&self, segment: &Segment, part: Range<usize>, prot: Prot) -> bool {
        if !prot.contains(Prot::READ) {
            return false;
        }
        let write = prot.contains(Prot::WRITE);
        let known = |page| {
            let frame = segment.frames.get(page);
            frame.is_some_and(|frame| frame.writable || !write)
        };
        let mut any = false;
        for page in part.clone() {
            if known(page) {
                continue;
            }
            any = true;
            if current!().signal_pending() || !self.bring_in_page(segment, page, &part, write) {
                break;
            }
        }
        any
    }

    /// The same for one page, and what is in memory of those that follow in `part`.
    /// Whether it is worth going on.
    fn bring_in_page(
        &self,
        segment: &Segment,
        page: usize,
        part: &Range<usize>,
        write: bool,
    ) -> bool {
        let window = page..part.end.min(page + MOST);
        let mut asked = false;
        for _ in 0..TRIES {
            match self.learn(segment, page, &window, write) {
                Ok(Learned::Again) => {
                    let frame = segment.frames.get(page);
                    if frame.is_some_and(|frame| frame.writable || !write) {
                        break;
                    }
                }
                Ok(Learned::Stale) => break,
                Ok(Learned::Missing)
                    if !asked && {
                        asked = true;
                        segment.bring_resident(&self.arena, page, &window)
                    } => {}
                Ok(Learned::Missing | Learned::Busy) => {
                    if self.arena.fault_in(segment.addr_of(page), write).is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Enters what `changes` populate, all within `hull`.
    fn enter_in_windows<'a>(
        &self,
        hull: &Range<u64>,
        changes: impl Iterator<Item = &'a Change> + Clone,
    ) {
        for round in 0..ROUNDS {
            let mut windows = [const { None }; WINDOWS];
            let Some(attached) = self.mapping.try_lock() else {
                return;
            };
            let mut passed = 0usize;
            attached.visit(hull, |vma, addr, _| {
                let place = passed.checked_sub(round * WINDOWS);
                passed += 1;
                if let Some(place) = place.and_then(|place| windows.get_mut(place)) {
                    // SAFETY: While its VMAs are linked an mm is there, though it may be
                    // on its way out.
                    let mm = unsafe { Mm::from_raw((*vma).vm_mm) };
                    *place = mm.mmget_not_zero().map(|mm| Window {
                        mm: MmWithUser::into_mmput_async(mm),
                        addr,
                    });
                }
            });
            drop(attached);
            for window in windows.iter().flatten() {
                let mut place = Place { change: 0, page: 0 };
                while let Some(next) = self.enter_some(window, changes.clone(), place) {
                    place = next;
                }
            }
            if passed <= (round + 1) * WINDOWS {
                return;
            }
        }
    }

    /// Enters a part of what `changes` populate in a window; returns where to go on, or
    /// [`None`] when all that can be entered is.
    fn enter_some<'a>(
        &self,
        window: &Window,
        changes: impl Iterator<Item = &'a Change>,
        from: Place,
    ) -> Option<Place> {
        let guard = window.mm.mmap_read_trylock()?;
        // It may be another by now.
        let vma = guard.vma_lookup(window.addr)?;
        // SAFETY: The lock holds the VMA.
        if !is_attachment_of(vma, self) || unsafe { is_slot_window(vma.as_ptr()) } {
            return None;
        }
        if vma.flags() & bindings::VM_READ == 0 {
            return None;
        }
        let mut held = Held {
            mm: &window.mm,
            vma,
            // SAFETY: As above.
            first: unsafe { (*vma.as_ptr()).vm_pgoff } as u64,
            table: None,
        };
        let last = held.first + ((vma.end() - vma.start()) >> PAGE_SHIFT) as u64;
        let mut left = AT_ONCE;
        for (change, pages) in changes
            .enumerate()
            .skip(from.change)
            .filter_map(|(at, change)| Some((at, change.populated()?)))
        {
            let mut page = pages.start.max(held.first);
            if change == from.change {
                page = page.max(from.page);
            }
            let end = pages.end.min(last);
            while page < end {
                if current!().signal_pending() {
                    return None;
                }
                if left == 0 {
                    return Some(Place { change, page });
                }
                let next = self.enter_next(&mut held, page..end);
                left = left.saturating_sub((next - page) as usize);
                page = next;
            }
        }
        None
    }

    /// Enters the first of `pages`, all of which lie in an attachment, and some that
    /// follow; returns where to go on.
    fn enter_next(&self, held: &mut Held<'_>, pages: Range<u64>) -> u64 {
        let page = pages.start;
        let addr = held.address(page);
        let room = (HUGE_SIZE - addr % HUGE_SIZE) >> PAGE_SHIFT;
        let end = pages.end.min(page + room as u64);
        let Some(pmd) = held.table(self, page) else {
            // A huge page, or nothing that can be entered.
            return end;
        };
        let enter = |words: &[usize], executable| {
            // SAFETY: The VMA is an attachment, and the lock that holds it still keeps the
            // page table, in which all of the pages up to `end` are.
            unsafe { enter_frames(held.vma.as_ptr(), pmd, addr, words, executable) };
            page + words.len() as u64
        };
        let entered = if end - page == 1 {
            self.with_frame(page, Prot::READ, |frame| {
                enter(&[frame.word()], frame.executable)
            })
        } else {
            self.with_run(page, &(page..end), Prot::READ, |run: &Run<MOST>| {
                enter(run.words(), run.executable)
            })
        };
        match entered {
            Ok(next) => next,
            Err(Miss::Hole | Miss::Denied) => self.skip(page),
            Err(Miss::Stale | Miss::Unknown(..)) => page + 1,
        }
    }

    /// The first page after `page` that is shown for anything.
    fn skip(&self, page: u64) -> u64 {
        let shown = self.install.read();
        match shown.layout.next(page) {
            Some(range) if range.prot.contains(Prot::READ) => range.start.max(page + 1),
            Some(range) => range.end,
            None => self.pages,
        }
    }
}

impl Held<'_> {
    /// Where a page of the space is.
    fn address(&self, page: u64) -> usize {
        self.vma.start() + ((page - self.first) as usize) * PAGE_SIZE
    }

    /// What leads to the page table that has the entry of a page of the space. It is
    /// made, if that can be done and something is shown there; [`None`] also where there
    /// is a huge page.
    fn table(&mut self, space: &Space, page: u64) -> Option<*mut bindings::pmd_t> {
        let addr = self.address(page);
        let start = addr & !(HUGE_SIZE - 1);
        if let Some(table) = self.table.as_ref().filter(|table| table.addr == start) {
            return Some(table.pmd);
        }
        let mut pmd = self.find_table(addr);
        if pmd.is_null() && space.shown_at(page).is_some() {
            self.fault_once(addr);
            pmd = self.find_table(addr);
        }
        if pmd.is_null() {
            return None;
        }
        self.table = Some(Table { addr: start, pmd });
        Some(pmd)
    }

    fn find_table(&self, addr: usize) -> *mut bindings::pmd_t {
        // SAFETY: The mmap lock is held, and with it all that leads there: page tables of
        // PFN maps go with their VMAs only.
        unsafe { bindings::address_space_helper_find_page_table(self.mm.as_raw(), addr) }
    }

    /// Has a page fault made of `addr`. It makes the page table, or enters a huge page
    /// where there can be one; the page table is charged to whom it would be if the
    /// process itself had touched it.
    ///
    /// Waits for nobody: a fault that would have to is given up.
    fn fault_once(&self, addr: usize) {
        use bindings::{
            fault_flag_FAULT_FLAG_ALLOW_RETRY as ALLOW_RETRY,
            fault_flag_FAULT_FLAG_REMOTE as REMOTE,
            fault_flag_FAULT_FLAG_RETRY_NOWAIT as RETRY_NOWAIT, //
        };
        let _charge = Charge::to(self.mm);
        // SAFETY: The mmap lock is held for reading, the address lies in the VMA, and with
        // these flags the lock is not let go of.
        unsafe {
            bindings::handle_mm_fault(
                self.vma.as_ptr(),
                addr,
                ALLOW_RETRY | RETRY_NOWAIT | REMOTE,
                core::ptr::null_mut(),
            )
        };
    }
}
