// SPDX-License-Identifier: GPL-2.0

//! Entering pages: which pages a fault enters, and how they get into the attached
//! process's page table.
//!
//! The page that is touched is entered with what is known of the pages around it, in one
//! walk of the page table: that makes a neighbour cost a tenth of a fault's own page.
//!
//! Locks: under the fault's own; entries are made under the install lock, and memory
//! for the page table is there before.

use core::ops::Range;

use kernel::page::{PAGE_SHIFT, PAGE_SIZE};

use crate::{
    attach::is_slot_window,
    bindings,
    fault::{Fault, VmFault, HUGE_SIZE, NOPAGE, OOM},
    layout::Prot,
    resolve::{Miss, Run},
    streak::{AROUND, MOST},
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
    /// All in one walk of the page table: that is what makes neighbours cheap.
    fn insert<const N: usize>(&self, run: &Run<N>) -> VmFault {
        use bindings::{VM_EXEC, VM_WRITE};
        let vma = self.vma();
        let mut flags = self.flags();
        if !run.executable {
            flags &= !VM_EXEC;
        }
        let back = (self.page() - run.start) as usize * PAGE_SIZE;
        let words = run.words();
        // SAFETY: The VMA is a PFN map, the addresses lie in it, and its lock is held.
        // Not vm_page_prot: because of pfn_mkwrite it is read-only, and every first write
        // would fault twice.
        let ret = unsafe {
            let readable = bindings::vm_get_page_prot(flags & !VM_WRITE);
            let writable = bindings::vm_get_page_prot(flags);
            bindings::address_space_helper_enter(
                (*vma).vm_mm,
                self.address() - back,
                words.as_ptr(),
                words.len(),
                readable,
                writable,
            )
        };
        if ret != 0 {
            return OOM;
        }
        NOPAGE
    }

    /// The pages that this fault may enter, if they are known: no more than what lies in
    /// the VMA, and in the page table that was made.
    pub(crate) fn window(&self) -> Range<u64> {
        let page = self.page();
        let only = page..page + 1;
        let read = !self.access.contains(Prot::WRITE);
        // SAFETY: The fault's lock is held.
        if read && self.flags() & bindings::VM_WRITE != 0 && unsafe { is_slot_window(self.vma()) } {
            // A neighbour might be one to be written; see `enter_for_slot`.
            return only;
        }
        let count = self.space.streaks.count(page);
        if count == 1 && !read {
            return only;
        }
        let addr = self.address();
        // SAFETY: As above.
        let (start, end) = unsafe {
            let bounds = &(*self.vma()).__bindgen_anon_1.__bindgen_anon_1;
            (bounds.vm_start, bounds.vm_end)
        };
        let table = addr & !(HUGE_SIZE - 1);
        let most = |bytes: usize| (bytes >> PAGE_SHIFT) as u64;
        let mut window = page..page + count as u64;
        if read {
            let around = AROUND as u64;
            let first = page - page % around;
            window.start = first.max(page - most(addr - start.max(table)));
            window.end = window
                .end
                .max(first + around)
                .min(window.start + MOST as u64);
        }
        window.end = window
            .end
            .min(page + most(end.min(table + HUGE_SIZE) - addr));
        window
    }

    /// Enters what is known of the pages in `window`, if the one that is touched is.
    pub(crate) fn enter_run<const N: usize>(&self, window: &Range<u64>) -> Result<VmFault, Miss> {
        let page = self.page();
        self.space
            .with_run(page, window, self.access, |run: &Run<N>| {
                self.space.streaks.note(page, run.ahead());
                self.insert(run)
            })
    }
}
