// SPDX-License-Identifier: GPL-2.0

//! C functions that nothing can be done wrong with, as safe functions of the same names: all of
//! their arguments are numbers, or objects that are valid for as long as they are borrowed, and
//! they keep none of them.

use kernel::{
    fs::File,
    mm::{
        Mm,
        MmWithUser, //
    },
    page::Page,
    prelude::*,
    seq_file::SeqFile, //
};

use crate::sys::{
    bindings::{
        self,
        loff_t, //
    },
    inode::{
        Attributes,
        Dentry,
        IdMap,
        Inode, //
    },
    mapping::Mapping,
};

/// A value as C has it.
trait Raw {
    type C;
    fn raw(self) -> Self::C;
}

macro_rules! raw {
    ($($type:ty as $c:ty = |$value:ident| $raw:expr;)*) => {$(
        impl Raw for $type {
            type C = $c;
            fn raw(self) -> $c {
                let $value = self;
                $raw
            }
        }
    )*};
}

raw! {
    bool as bool = |value| value;
    c_int as c_int = |value| value;
    c_long as c_long = |value| value;
    c_uint as c_uint = |value| value;
    loff_t as loff_t = |value| value;
    u64 as u64 = |value| value;
    usize as usize = |value| value;
    &mut [u64; 5] as *mut u64 = |value| value.as_mut_ptr();
    &CStr as *const c_char = |value| value.as_char_ptr();
    &File as *mut bindings::file = |value| value.as_ptr();
    Option<&File> as *mut bindings::file = |value| {
        value.map_or(core::ptr::null_mut(), |file| file.as_ptr())
    };
    Option<&MmWithUser> as *mut bindings::mm_struct = |value| {
        value.map_or(core::ptr::null_mut(), |mm| mm.as_raw())
    };
    &Mm as *mut bindings::mm_struct = |value| value.as_raw();
    &MmWithUser as *mut bindings::mm_struct = |value| value.as_raw();
    &Page as *mut bindings::page = |value| value.as_ptr();
    &Attributes as *mut bindings::iattr = |value| value.as_raw();
    &Dentry as *mut bindings::dentry = |value| value.as_raw();
    &IdMap as *mut bindings::mnt_idmap = |value| value.as_raw();
    &Inode as *mut bindings::inode = |value| value.as_raw();
    &Mapping as *mut bindings::address_space = |value| value.as_raw();
    &SeqFile as *mut bindings::seq_file = |value| core::ptr::from_ref(value).cast_mut().cast();
}

macro_rules! safe_fns {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty;)*) => {$(
        pub(super) fn $name($($arg: $type),*) -> $ret {
            // SAFETY: Numbers may be anything here. A reference to a file stands for one that is
            // open, of which these functions read what anyone may who holds it; the others are
            // valid likewise, and an array of words has as many as the function writes. To map,
            // unmap and zap changes user memory, which is of no concern to the kernel's own.
            unsafe { bindings::$name($(Raw::raw($arg)),*) }
        }
    )*};
}

safe_fns! {
    fn get_random_u64() -> u64;
    fn address_space_helper_fatal_signal_pending() -> bool;
    fn address_space_helper_current_tid() -> c_int;
    fn address_space_helper_prepare_sleep(killable: bool) -> ();
    fn address_space_helper_finish_sleep() -> ();
    fn schedule_timeout(jiffies: c_long) -> c_long;
    fn capable(capability: c_int) -> bool;
    fn address_space_helper_page_pfn(page: &Page) -> usize;
    fn address_space_helper_alloc_workqueue(name: &CStr) -> *mut bindings::workqueue_struct;

    fn address_space_helper_lockdep_off() -> ();
    fn address_space_helper_lockdep_on() -> ();

    fn address_space_helper_trace_change_enabled() -> bool;
    fn address_space_helper_trace_change(
        ino: usize, start: u64, end: u64, prot: c_uint, revoked: bool
    ) -> ();
    fn address_space_helper_trace_fault(
        ino: usize, view: u64, page: u64, access: c_uint, ret: c_uint
    ) -> ();
    fn address_space_helper_trace_invalidate(
        ino: usize, segment: u64, start: u64, end: u64, deferred: bool
    ) -> ();

    fn simple_setattr(idmap: &IdMap, dentry: &Dentry, attributes: &Attributes) -> c_int;
    fn inc_nlink(inode: &Inode) -> ();
    fn address_space_helper_own_device(file: &File) -> c_int;
    fn address_space_helper_touch_inode(inode: &Inode) -> ();
    fn address_space_helper_inode_size(inode: &Inode) -> loff_t;
    fn address_space_helper_set_inode_size(inode: &Inode, size: loff_t) -> ();
    fn address_space_helper_lock_inode(inode: &Inode) -> ();
    fn address_space_helper_unlock_inode(inode: &Inode) -> ();
    fn address_space_helper_file_size(file: &File) -> loff_t;
    fn address_space_helper_set_file_size(file: &File, size: loff_t) -> ();
    fn address_space_helper_file_ino(file: &File) -> usize;
    fn address_space_helper_file_device(file: &File) -> c_uint;
    fn address_space_helper_is_noexec(file: &File) -> bool;
    fn address_space_helper_mmap_limits(file: &File) -> c_uint;
    fn address_space_helper_huge_page_size(file: &File) -> usize;
    fn address_space_helper_is_resident(file: &File, index: usize) -> bool;
    fn address_space_helper_is_unmappable(file: &File) -> bool;
    fn address_space_helper_is_mapped_at_once(file: &File) -> bool;
    fn address_space_helper_is_written_back(file: &File) -> bool;
    fn address_space_helper_filesystem(file: &File) -> usize;
    fn address_space_helper_is_anon_file(file: &File, name: &CStr) -> bool;
    fn vfs_fallocate(file: &File, mode: c_int, offset: loff_t, length: loff_t) -> c_int;
    fn vfs_fadvise(file: &File, offset: loff_t, length: loff_t, advice: c_int) -> c_int;
    fn vfs_fsync_range(file: &File, start: loff_t, last: loff_t, datasync: c_int) -> c_int;
    fn fixed_size_llseek(file: &File, offset: loff_t, whence: c_int, size: loff_t) -> loff_t;
    fn address_space_helper_get_unmapped_area(
        file: &File, addr: usize, length: usize, first: usize, flags: usize
    ) -> usize;
    fn address_space_helper_seq_is_full(out: &SeqFile) -> bool;
    fn seq_file_path(out: &SeqFile, file: &File, escape: &CStr) -> c_int;

    fn vm_mmap(
        file: Option<&File>, addr: usize, length: usize, prot: usize, flags: usize, offset: usize
    ) -> usize;
    fn address_space_helper_find_room(length: usize) -> usize;
    fn address_space_helper_i_mmap_lock_read(mapping: &Mapping) -> ();
    fn address_space_helper_i_mmap_trylock_read(mapping: &Mapping) -> bool;
    fn vm_munmap(addr: usize, length: usize) -> c_int;

    fn address_space_helper_read_five(to: &mut [u64; 5], from: usize) -> c_int;
    fn address_space_helper_task_size() -> usize;
    fn address_space_helper_zap(mm: &MmWithUser, addr: usize, length: usize) -> bool;
    fn address_space_helper_anonymous_pages(mm: &MmWithUser) -> usize;
    fn address_space_helper_pages_in_memory(mm: &MmWithUser) -> usize;
    fn address_space_helper_prepare_notifiers(mm: &MmWithUser) -> c_int;
    fn address_space_helper_fault_in_lent(
        mm: &Mm, addr: usize, write: bool, wait: bool
    ) -> c_int;

    fn address_space_helper_mm_memcg(mm: Option<&MmWithUser>) -> *mut bindings::mem_cgroup;
}
