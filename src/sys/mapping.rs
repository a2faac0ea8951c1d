// SPDX-License-Identifier: GPL-2.0

//! The `i_mmap` of an inode: which VMAs map it, and how to zap them.
//!
//! The lock is the inode's `i_mmap_rwsem`, acquired shared. A caller that is inside another
//! file's may only try it: `mm_take_all_locks()` holds many of them at once and relies on
//! nothing else holding two.
//!
//! Numbers are pages of the mapping, as in `vm_pgoff`.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::{
    marker::PhantomData,
    ops::{
        ControlFlow,
        Range, //
    },
    ptr::NonNull, //
};

use kernel::{
    fs::File,
    mm::Mm,
    page::PAGE_SHIFT,
    prelude::*,
    types::NotThreadSafe, //
};

use crate::sys::{
    bindings,
    file_system::Mounted,
    safe_fns, zapping_tasks,
    zaps::{
        Alone,
        Shared,
        Zaps, //
    },
};

/// Up to so many pages of a VMA are zapped with no look at what its page table has: as many as
/// three pages of a request have with what is between them.
const FEW: usize = 6;

/// The mapping of an inode, which it holds.
///
/// # Invariants
///
/// Owns a reference to `path`, which keeps an inode and its file system; `i_mapping` is the mapping
/// of the inode and `ino` the number.
pub(crate) struct Mapping {
    path: bindings::path,
    i_mapping: *mut bindings::address_space,
    ino: usize,
    /// So that all inodes are of one file system.
    _mounted: Mounted,
}

// SAFETY: An inode and its mapping may be used, and the reference put, by any thread.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The mapping of a file of the module's own file system. `ENOMEM`.
    pub(crate) fn of(file: &File) -> Result<Mapping> {
        let mounted = Mounted::new()?;
        // SAFETY: An open file has a path, which it holds, so another reference may be taken; that
        // keeps the inode, and with it the mapping. The number is constant.
        //
        // INVARIANT: The reference was just taken.
        unsafe {
            let inode = (*file.as_ptr()).f_inode;
            let path = (*file.as_ptr()).__bindgen_anon_1.f_path;
            bindings::path_get(&path);
            Ok(Mapping {
                path,
                i_mapping: (*inode).i_mapping,
                ino: (*inode).i_ino as usize,
                _mounted: mounted,
            })
        }
    }

    /// Another reference to the same inode. `ENOMEM`.
    pub(crate) fn share(&self) -> Result<Mapping> {
        let mounted = Mounted::new()?;
        // SAFETY: The type's reference keeps the path meanwhile.
        unsafe { bindings::path_get(&self.path) };
        // INVARIANT: The reference was just taken.
        Ok(Mapping {
            path: self.path,
            _mounted: mounted,
            ..*self
        })
    }

    /// The inode's number.
    pub(crate) fn ino(&self) -> usize {
        self.ino
    }

    /// The C object.
    pub(super) fn as_raw(&self) -> *mut bindings::address_space {
        self.i_mapping
    }

    /// Acquires the lock, for which it waits: the caller must hold neither that of another file
    /// nor an mmap lock.
    pub(crate) fn lock(&self) -> MappingGuard<'_> {
        safe_fns::address_space_helper_i_mmap_lock_read(self);
        // INVARIANT: Just acquired.
        self.guard()
    }

    /// Acquires the lock if it is available at once.
    pub(crate) fn try_lock(&self) -> Option<MappingGuard<'_>> {
        if !safe_fns::address_space_helper_i_mmap_trylock_read(self) {
            return None;
        }
        // INVARIANT: Just acquired.
        Some(self.guard())
    }

    fn guard(&self) -> MappingGuard<'_> {
        MappingGuard {
            mapping: self,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Puts the reference that the type owns.
        unsafe { bindings::path_put(&self.path) };
    }
}

/// A mapping with its `i_mmap_rwsem` held shared.
///
/// # Invariants
///
/// The current task holds the lock.
pub(crate) struct MappingGuard<'a> {
    mapping: &'a Mapping,
    _not_send: NotThreadSafe,
}

/// A VMA that is linked into a locked mapping.
///
/// # Invariants
///
/// The VMA is linked and the mapping's lock is held for `'a`: so it stays, with its bounds,
/// offset and mm, and its page tables are not freed.
pub(crate) struct LinkedVma<'a> {
    vma: NonNull<bindings::vm_area_struct>,
    /// The address at which it starts, and the pages that it maps.
    start: usize,
    pages: Range<u64>,
    mm: &'a Mm,
    _lock: PhantomData<&'a Mapping>,
}

impl MappingGuard<'_> {
    /// Zaps pages `range` in every VMA that maps them. The VMAs must be PFN maps.
    ///
    /// VMAs are visited in the order of the tree, as `unmap_mapping_range()` does: fork() links
    /// the child's right behind the parent's before it copies entries, so a copy is either not
    /// made yet or found.
    /// Returns how many that are.
    pub(crate) fn zap(&self, range: &Range<u64>, _: &Shared<'_>) -> usize {
        let mut visited = 0;
        zapping_tasks::run(|| {
            self.visit(range, |vma, addr, length| {
                visited += 1;
                vma.zap(addr, length, None);
                ControlFlow::Continue(())
            });
        });
        visited
    }

    /// The same, for whoever may be the only one to zap: what takes out many entries of a VMA is
    /// faster alone. Others may zap meanwhile.
    pub(crate) fn zap_fast(&self, range: &Range<u64>, zaps: &Zaps) -> usize {
        let mut visited = 0;
        zapping_tasks::run(|| {
            self.visit(range, |vma, addr, length| {
                visited += 1;
                let (mut addr, end) = (addr, addr + length);
                while addr < end {
                    let many = end - addr > FEW << PAGE_SHIFT;
                    let alone = many.then(|| zaps.try_alone()).flatten();
                    addr = vma.zap(addr, end - addr, alone);
                }
                ControlFlow::Continue(())
            });
        });
        visited
    }

    /// Calls `visit` with each VMA that maps something of `range`, the address at which it does,
    /// and how many bytes; in the order of the tree, until it breaks off. O(log n) for each.
    pub(crate) fn visit(
        &self,
        range: &Range<u64>,
        mut visit: impl FnMut(LinkedVma<'_>, usize, usize) -> ControlFlow<()>,
    ) {
        if range.is_empty() {
            return;
        }
        let (from, last) = (range.start as usize, (range.end - 1) as usize);
        // SAFETY: The lock is held by the type's invariant.
        let mut next = NonNull::new(unsafe {
            bindings::address_space_helper_first_vma(self.mapping.i_mapping, from, last)
        });
        while let Some(raw) = next {
            // SAFETY: What the tree has under the lock is linked, so its fields are valid and do
            // not change, and its mm is there, though it may be on its way out.
            //
            // INVARIANT: As above.
            let vma = unsafe {
                let vma = raw.as_ref();
                let bounds = &vma.__bindgen_anon_1.__bindgen_anon_1;
                let first = vma.vm_pgoff as u64;
                next = NonNull::new(bindings::address_space_helper_next_vma(
                    raw.as_ptr(),
                    from,
                    last,
                ));
                LinkedVma {
                    vma: raw,
                    start: bounds.vm_start,
                    pages: first..first + ((bounds.vm_end - bounds.vm_start) >> PAGE_SHIFT) as u64,
                    mm: Mm::from_raw(vma.vm_mm),
                    _lock: PhantomData,
                }
            };
            let start = vma.pages.start.max(range.start);
            let end = vma.pages.end.min(range.end);
            if start < end {
                let addr = vma.start + (((start - vma.pages.start) as usize) << PAGE_SHIFT);
                if visit(vma, addr, ((end - start) as usize) << PAGE_SHIFT).is_break() {
                    return;
                }
            }
        }
    }
}

impl LinkedVma<'_> {
    /// Zaps bytes of it, which must be a PFN map. With nobody else zapping meanwhile these may not
    /// be all; returns the address from which on there are more.
    fn zap(&self, addr: usize, length: usize, alone: Option<Alone<'_>>) -> usize {
        // SAFETY: The bytes lie in the VMA, a PFN map by the caller's word, whose page tables the
        // lock keeps by the type's invariant. Who is alone stays so until this has returned.
        unsafe {
            if let Some(_alone) = &alone {
                return bindings::address_space_helper_zap_spanning(
                    self.vma.as_ptr(),
                    addr,
                    length,
                );
            }
            bindings::zap_special_vma_range(self.vma.as_ptr(), addr, length);
        }
        addr + length
    }

    /// Its mm, which may be on its way out.
    pub(crate) fn mm(&self) -> &Mm {
        self.mm
    }
}

impl Drop for MappingGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The current task holds the lock by the type's invariant.
        unsafe { bindings::address_space_helper_i_mmap_unlock_read(self.mapping.i_mapping) };
    }
}
