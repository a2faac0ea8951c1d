// SPDX-License-Identifier: GPL-2.0

//! Entering pages: which pages a fault enters, and how they get into the attached
//! process's page table.
//!
//! The page that is touched is entered with what is known of the pages around it, in the
//! same page table: that makes a neighbour cost a hundredth of a fault's own page.
//!
//! Locks: under the fault's own; entries are made under the install lock, and memory
//! for the page table is there before.

use core::ops::Range;

use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

use crate::{
    attachment::{
        fault::{
            Fault,
            HUGE_SIZE, //
        },
        vma::is_slot_window, //
    },
    layout::Prot,
    space::{
        readahead::{
            AROUND,
            MOST, //
        },
        resolve::{
            Learned,
            Miss,
            Run, //
        },
    },
    sys::bindings, //
};

impl Fault<'_> {
    /// Makes the page table that the entry will be in, of the memory that the fault
    /// brought for it. Says whether there is one now, and not a huge page.
    pub(crate) fn make_page_table(&self) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { bindings::address_space_helper_make_page_table(self.vmf) }
    }

    /// Enters frames. To be called under the install lock, with the page table made, in
    /// which all of them must lie, as they must lie in the VMA.
    ///
    /// All with one look at the page table: that is what makes neighbours cheap.
    fn insert<const N: usize>(&self, run: &Run<N>) {
        let addr = self
            .address()
            .wrapping_add((run.start.wrapping_sub(self.page()) as usize).wrapping_mul(PAGE_SIZE));
        // SAFETY: The VMA is one of ours, the addresses lie in it, and its lock is held;
        // the fault comes with what leads to the page table.
        unsafe {
            enter_frames(
                self.vma(),
                (*self.vmf).pmd,
                addr,
                run.words(),
                run.executable,
            )
        };
    }

    /// The pages that this fault may enter, if they are known: no more than what lies in
    /// the VMA, and in the page table that was made. With how many the streak would go on
    /// but for that.
    pub(crate) fn window(&self) -> (Range<u64>, usize) {
        let page = self.page();
        let read = !self.access.contains(Prot::WRITE);
        // SAFETY: The fault's lock is held.
        if read && self.flags() & bindings::VM_WRITE != 0 && unsafe { is_slot_window(self.vma()) } {
            // A neighbour might be one to be written; see `enter_for_slot`.
            return (page..page + 1, 1);
        }
        let count = self.space.streaks.count(page);
        let addr = self.address();
        // SAFETY: As above.
        let (start, end) = unsafe {
            let bounds = &(*self.vma()).__bindgen_anon_1.__bindgen_anon_1;
            (bounds.vm_start, bounds.vm_end)
        };
        let table = addr & !(HUGE_SIZE - 1);
        let most = |bytes: usize| (bytes >> PAGE_SHIFT) as u64;
        // For a write too: where a page is known that may be written, it counts as written
        // already.
        let around = AROUND as u64;
        let first = page - page % around;
        let window = first.max(page - most(addr - start.max(table)))
            ..(page + count as u64)
                .max(first + around)
                .min(page + most(end.min(table + HUGE_SIZE) - addr));
        (window, count)
    }

    /// Enters what is known of the pages in `window`, if `page` is; says how many from
    /// that on have been entered without a gap.
    pub(crate) fn enter_run<const N: usize>(
        &self,
        page: u64,
        window: &Range<u64>,
    ) -> Result<usize, Miss> {
        self.space
            .with_run(page, window, self.access, |run: &Run<N>| {
                self.insert(run);
                run.ahead()
            })
    }

    /// Enters the pages of `rest`, as far as that needs no waiting; says how many.
    ///
    /// In pieces: others want the install lock too. The page table must have been made.
    pub(crate) fn enter_ahead(&self, rest: &Range<u64>) -> usize {
        let mut page = rest.start;
        let mut missing = false;
        while page < rest.end {
            let piece = page..rest.end.min(page + MOST as u64);
            let entered = self.enter_piece(&piece, &mut missing);
            if entered == 0 {
                break;
            }
            page += entered as u64;
        }
        (page - rest.start) as usize
    }

    /// Enters what comes first of `piece`; says how many pages. What the arena lacks is
    /// brought there; then it is `missing`, and what comes next is taken to be so too.
    fn enter_piece(&self, piece: &Range<u64>, missing: &mut bool) -> usize {
        let write = self.access.contains(Prot::WRITE);
        let mut brought = false;
        // Once to find it unknown, and once more for each way to know it.
        for _ in 0..3 {
            let (segment, at) = match self.enter_run::<MOST>(piece.start, piece) {
                Ok(entered) => return entered,
                Err(Miss::Unknown(segment, at)) => (segment, at),
                _ => return 0,
            };
            let window = at..at + (piece.end - piece.start) as usize;
            let bring = || segment.bring_resident(&self.space.arena, at, &window);
            if *missing && !brought {
                brought = true;
                *missing = bring();
            }
            match self.space.learn(&segment, at, &window, write) {
                Ok(Learned::Again) => (),
                Ok(Learned::Missing) if !brought => {
                    brought = true;
                    *missing = bring();
                }
                _ => return 0,
            }
        }
        0
    }
}

/// Enters frames, as `Frames::copy` tells them, from address `addr` of an attachment on,
/// with no more rights than its flags give. To be called under the install lock.
///
/// The page table is not looked for again, nor is it asked whether it still is one: those
/// of PFN maps go with their VMAs only.
///
/// # Safety
///
/// The VMA must have our operations and be held still, the addresses must lie in it, and
/// `table` must lead to the page table that has the entries of all.
pub(crate) unsafe fn enter_frames(
    vma: *mut bindings::vm_area_struct,
    table: *mut bindings::pmd_t,
    addr: usize,
    words: &[usize],
    executable: bool,
) {
    use bindings::{
        VM_EXEC,
        VM_WRITE, //
    };
    // SAFETY: By our caller.
    let (mm, mut flags) = unsafe { ((*vma).vm_mm, (*vma).__bindgen_anon_2.vm_flags) };
    if !executable {
        flags &= !VM_EXEC;
    }
    // Not vm_page_prot: because of pfn_mkwrite it is read-only, and every first write
    // would fault twice.
    //
    // SAFETY: By our caller; the VMA is a PFN map.
    unsafe {
        let readable = bindings::vm_get_page_prot(flags & !VM_WRITE);
        let writable = bindings::vm_get_page_prot(flags);
        bindings::address_space_helper_enter(
            mm,
            table,
            addr,
            words.as_ptr(),
            words.len(),
            readable,
            writable,
        );
    }
}
