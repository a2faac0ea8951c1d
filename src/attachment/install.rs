// SPDX-License-Identifier: GPL-2.0

//! Installing: entries of an attached process's page tables. Which pages, and whether they still
//! may be, is decided by the callers, under the install lock, of which a [`Run`] or a [`Resolved`]
//! is the witness.
//!
//! Locks: that of the attachment, which its type stands for; page table locks are acquired under
//! the install lock. Memory for the page table is there before.

use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

use crate::{
    attachment::vma::{
        Attachment,
        FaultContext,
        VmFault,
        FALLBACK,
        HUGE_SIZE,
        NOPAGE, //
    },
    layout::SpacePage,
    space::resolve::{
        Resolved,
        Run, //
    },
    sys::{
        bindings,
        warn::warn_on_once, //
    },
};

/// A page table of an attachment.
///
/// # Invariants
///
/// `pmd` leads to the page table with the entries from address `start` on. It stays as long as
/// the attachment is held still: page tables of PFN maps go with their VMAs only, since what
/// frees them earlier (khugepaged, MADV_DONTNEED) refuses VM_PFNMAP.
pub(crate) struct PageTable<'a> {
    attachment: Attachment<'a>,
    pmd: *mut bindings::pmd_t,
    start: usize,
}

impl<'a> PageTable<'a> {
    fn new(attachment: Attachment<'a>, pmd: *mut bindings::pmd_t, addr: usize) -> Self {
        PageTable {
            attachment,
            pmd,
            start: addr & !(HUGE_SIZE - 1),
        }
    }

    /// Makes the page table that the entry of a fault will be in, of the memory that the fault
    /// brought for it: nothing is allocated. [`None`] where there is a huge page.
    pub(crate) fn make(context: &FaultContext<'a>) -> Option<Self> {
        let vmf = context.as_raw();
        // SAFETY: The fault is valid, and its lock held.
        let pmd =
            unsafe { bindings::address_space_helper_make_page_table(vmf).then(|| (*vmf).pmd)? };
        // INVARIANT: It has just been made, or found.
        Some(Self::new(context.attachment(), pmd, context.address()))
    }

    /// The page table that has the entry of `addr`, which lies in the attachment, if there is one.
    pub(crate) fn find(attachment: Attachment<'a>, addr: usize) -> Option<Self> {
        // SAFETY: The VMA is held still, and with it all that leads to its page tables.
        let pmd =
            unsafe { bindings::address_space_helper_find_page_table(attachment.mm_ptr(), addr) };
        // INVARIANT: It has just been found.
        (!pmd.is_null()).then(|| Self::new(attachment, pmd, addr))
    }

    /// Whether it has the entry of `addr`.
    pub(crate) fn covers(&self, addr: usize) -> bool {
        addr & !(HUGE_SIZE - 1) == self.start
    }

    /// Installs frames, with no more rights than the attachment's flags give. All must lie in the
    /// attachment and in this page table.
    ///
    /// All with one look at the page table: that is what makes neighbours cheap.
    pub(crate) fn insert(&self, run: &Run<'_>) {
        self.insert_words(run.start, run.words, run.executable);
    }

    /// Installs one frame, as page `page` of the space.
    pub(crate) fn insert_one(&self, page: SpacePage, frame: &Resolved<'_>) {
        self.insert_words(page, &[frame.frame.pack()], frame.executable);
    }

    fn insert_words(&self, page: SpacePage, words: &[usize], executable: bool) {
        use bindings::{
            VM_EXEC,
            VM_WRITE, //
        };
        let pages = self.attachment.pages();
        let fits = page >= pages.start && page + words.len() as u64 <= pages.end;
        if warn_on_once!(!fits) {
            return;
        }
        let addr = self.attachment.address_of(page);
        let room = (self.start + HUGE_SIZE).saturating_sub(addr) / PAGE_SIZE;
        if warn_on_once!(addr < self.start || words.len() > room) {
            return;
        }
        let mut flags = self.attachment.vma().flags();
        if !executable {
            flags &= !VM_EXEC;
        }
        // Not vm_page_prot: because of pfn_mkwrite it is read-only, and every first write would
        // fault twice.
        //
        // SAFETY: The addresses lie in the VMA, a PFN map that is held still, and their entries in
        // the page table that `pmd` leads to.
        unsafe {
            let readable = bindings::vm_get_page_prot(flags & !VM_WRITE);
            let writable = bindings::vm_get_page_prot(flags);
            bindings::address_space_helper_install_frames(
                self.attachment.mm_ptr(),
                self.pmd,
                addr,
                words.as_ptr(),
                words.len(),
                readable,
                writable,
            );
        }
    }
}

/// Whether there is no entry at all for the huge page's worth of addresses of a fault.
pub(crate) fn is_empty(context: &FaultContext<'_>) -> bool {
    // SAFETY: The fault is valid, and comes with its pmd.
    unsafe { bindings::address_space_helper_pmd_none(context.as_raw()) }
}

/// Installs a huge frame for a fault; the attachment must have room for all of it.
pub(crate) fn insert_huge(context: &FaultContext<'_>, frame: &Resolved<'_>) -> VmFault {
    use bindings::{
        VM_EXEC,
        VM_WRITE, //
    };
    let mut flags = context.attachment().vma().flags();
    if !frame.executable {
        flags &= !VM_EXEC;
    }
    if !frame.frame.writable {
        flags &= !VM_WRITE;
    }
    // SAFETY: The VMA is a PFN map that is held still and has room for the huge page.
    let installed = unsafe {
        let prot = bindings::vm_get_page_prot(flags);
        bindings::address_space_helper_install_huge(context.as_raw(), frame.frame.pfn, prot)
    };
    if installed {
        NOPAGE
    } else {
        // Another fault was faster; what it installed under the same lock is as good, but may be
        // a page table, in which the ordinary fault looks.
        FALLBACK
    }
}

/// How many pages there are from `addr` to the end of its page table.
pub(crate) fn pages_to_end_of_table(addr: usize) -> u64 {
    ((HUGE_SIZE - addr % HUGE_SIZE) >> PAGE_SHIFT) as u64
}
