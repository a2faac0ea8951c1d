// SPDX-License-Identifier: GPL-2.0

//! The attachments of an address space, found and zapped through the asfd's own
//! inode, in whose `i_mmap` every window hangs at the space's own offsets.
//!
//! The lock is the inode's `i_mmap_rwsem`, taken shared. It nests inside no lock
//! of the space; where the caller is inside another file's, it is only tried:
//! `mm_take_all_locks()` holds many of them at once and counts on nobody else
//! holding two.

use core::{
    ops::Range,
    ptr::NonNull, //
};

use kernel::{
    fs::File,
    page::PAGE_SHIFT,
    prelude::*, //
};

use crate::sys::bindings;

/// The inode of an asfd.
///
/// # Invariants
///
/// Owns a reference to the inode, whose `i_mapping` thus stays valid.
pub(crate) struct Mapping {
    inode: NonNull<bindings::inode>,
}

// SAFETY: An inode may be used and its reference put from any thread.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The mapping of a file that has an inode of its own.
    pub(crate) fn of(file: &File) -> Result<Mapping> {
        // SAFETY: An open file has an inode.
        let inode = unsafe { (*file.as_ptr()).f_inode };
        // SAFETY: The file holds the inode, so another reference may be taken.
        unsafe { bindings::ihold(inode) };
        // INVARIANT: The reference was just taken.
        Ok(Mapping {
            inode: NonNull::new(inode).ok_or(EINVAL)?,
        })
    }

    /// The C object that windows are linked to.
    pub(crate) fn as_raw(&self) -> *mut bindings::address_space {
        // SAFETY: The inode is valid by the type's invariant.
        unsafe { (*self.inode.as_ptr()).i_mapping }
    }

    /// The inode's number, which tells the space from others.
    pub(crate) fn ino(&self) -> usize {
        // SAFETY: The inode is valid by the type's invariant; its number is constant.
        unsafe { (*self.inode.as_ptr()).i_ino as usize }
    }

    /// Makes pages `range` of the space unreachable through every attachment and
    /// every VM. Waits for the lock: no other may be held.
    pub(crate) fn zap(&self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        // SAFETY: The mapping is valid; even_cows is of no meaning here.
        unsafe {
            bindings::unmap_mapping_range(
                self.as_raw(),
                (range.start << PAGE_SHIFT) as bindings::loff_t,
                ((range.end - range.start) << PAGE_SHIFT) as bindings::loff_t,
                1,
            )
        };
    }

    /// Takes the lock if it can be had at once.
    pub(crate) fn try_lock(&self) -> Option<Attached<'_>> {
        // SAFETY: The mapping is valid.
        if unsafe { bindings::address_space_helper_i_mmap_trylock_read(self.as_raw()) } {
            Some(Attached { mapping: self })
        } else {
            None
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Puts the reference that the type owns.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}

/// The attachments, held still.
///
/// # Invariants
///
/// The mapping's `i_mmap_rwsem` is held shared.
pub(crate) struct Attached<'a> {
    mapping: &'a Mapping,
}

impl Attached<'_> {
    /// As [`Mapping::zap`], with the lock held.
    ///
    /// Windows are visited in the order of the tree, as `unmap_mapping_range()`
    /// does: fork puts the child's right behind the parent's before it copies
    /// entries, so a copy is either not made or found.
    pub(crate) fn zap(&self, range: &Range<u64>) {
        self.visit(range, |vma, at, length| {
            // SAFETY: The range lies within the VMA, which is one of ours and
            // so a PFN map; the lock keeps its page tables from being freed.
            unsafe { bindings::zap_special_vma_range(vma, at, length) };
        });
    }

    /// Calls `visit` with each attachment that shows something of `range`, the address
    /// at which it does, and how many bytes; in the order of the tree.
    pub(crate) fn visit(
        &self,
        range: &Range<u64>,
        mut visit: impl FnMut(*mut bindings::vm_area_struct, usize, usize),
    ) {
        // SAFETY: The lock is held by the type's invariant.
        let mut vma = unsafe { bindings::address_space_helper_first_vma(self.mapping.as_raw()) };
        while !vma.is_null() {
            // SAFETY: While the lock is held a linked VMA stays linked, and its
            // bounds and offset stay as they are.
            let (start, end, first) = unsafe {
                let bounds = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
                (bounds.vm_start, bounds.vm_end, (*vma).vm_pgoff as u64)
            };
            if first >= range.end {
                break;
            }
            let last = first + ((end - start) >> PAGE_SHIFT) as u64;
            let from = first.max(range.start);
            let to = last.min(range.end);
            if from < to {
                let at = start + (((from - first) as usize) << PAGE_SHIFT);
                let length = ((to - from) as usize) << PAGE_SHIFT;
                visit(vma, at, length);
            }
            // SAFETY: As above.
            vma = unsafe { bindings::address_space_helper_next_vma(vma) };
        }
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock is held by the type's invariant.
        unsafe { bindings::address_space_helper_i_mmap_unlock_read(self.mapping.as_raw()) };
    }
}
