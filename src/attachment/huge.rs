// SPDX-License-Identifier: GPL-2.0

//! Huge pages in attachments: where the arena has a huge page, and window, layout and
//! file lie alike, one entry stands for all of it, and KVM makes one of it too.
//!
//! Locks and order as in `fault.rs`.

use kernel::page::PAGE_SHIFT;

use crate::{
    attachment::fault::{
        Fault,
        VmFault,
        FALLBACK,
        HUGE_SIZE, //
    },
    layout::Prot,
    space::resolve::{
        Learned,
        Miss,
        Resolved,
        TRIES, //
    },
    sys::{
        bindings,
        trace, //
    },
};

impl Fault<'_> {
    /// Enters a huge page, if that is what the arena has, and it fits.
    pub(crate) fn enter_huge(&self) -> VmFault {
        let addr = self.address() & !(HUGE_SIZE - 1);
        // SAFETY: The fault's lock is held.
        let (start, end) = unsafe {
            let bounds = &(*self.vma()).__bindgen_anon_1.__bindgen_anon_1;
            (bounds.vm_start, bounds.vm_end)
        };
        if addr < start || end - addr < HUGE_SIZE {
            return FALLBACK;
        }
        let first = self.page() - ((self.address() - addr) >> PAGE_SHIFT) as u64;
        let write = self.access.contains(Prot::WRITE);
        if write && !self.pmd_is_none() {
            self.take_out(addr, HUGE_SIZE);
        }
        for _ in 0..TRIES {
            let insert = |frame| self.insert_huge(frame);
            let miss = match self.space.with_huge_frame(first, self.access, insert) {
                Ok(ret) => {
                    trace::fault(&self.space.mapping, first, self.access, ret);
                    return ret;
                }
                Err(miss) => miss,
            };
            let Miss::Unknown(segment, page) = miss else {
                return FALLBACK;
            };
            // The page that is touched tells whether the arena has a huge one.
            let touched = page + (self.page() - first) as usize;
            // What is known as a single page is none of a huge one.
            if segment
                .frames
                .get(touched)
                .is_some_and(|frame| frame.writable || !write)
                && segment.frames.get_huge(page).is_none()
            {
                return FALLBACK;
            }
            match self
                .space
                .learn(&segment, touched, &(touched..touched + 1), write)
            {
                Ok(Learned::Again) if segment.frames.get_huge(page).is_some() => (),
                // Once there is a page table, there will be no huge page; so it is now
                // that the arena must have its own.
                Ok(Learned::Missing) if self.may_let_go() => {
                    if let Some(ret) = self.wait_for(&segment, touched, write, false) {
                        return ret;
                    }
                }
                _ => return FALLBACK,
            }
        }
        FALLBACK
    }

    /// Enters a huge frame. To be called under the install lock.
    fn insert_huge(&self, frame: Resolved) -> VmFault {
        let flags = self.flags();
        // Another fault may have been faster; what it entered under the same lock is as
        // good, but may be a page table. And the protection is the VMA's.
        if !self.pmd_is_none() || (flags & bindings::VM_EXEC != 0 && !frame.executable) {
            return FALLBACK;
        }
        let writable = frame.writable && flags & bindings::VM_WRITE != 0;
        // SAFETY: The VMA is a PFN map that holds the whole huge page, of which the
        // entry is empty; nothing is allocated on this architecture.
        unsafe { bindings::vmf_insert_pfn_pmd(self.vmf, frame.pfn, writable) }
    }
}
