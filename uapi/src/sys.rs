// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls as the kernel defines them: a translation of
//! `include/linux/address_space.h` with the same names.
//!
//! For programs that need an ioctl that the safe types do not offer. The header
//! documents each struct and number in full.

#![allow(non_camel_case_types)]

mod layout;

use rustix::ioctl::{Opcode, opcode};

pub use layout::*;

/// The type of all ioctls: the first argument of `_IO()`.
pub const ADDRESS_SPACE_TYPE: u8 = 0xB9;

/// What fstatfs() returns as `f_type` for asfds, views and files of the mounted file system.
pub const ADDRESS_SPACE_MAGIC: u32 = 0x6173_6664;

/// An access to what the address space does not have raises SIGBUS.
pub const ADDRESS_SPACE_HOLE_SIGNAL: u32 = 1 << 16;
/// It meets a page of the attachment's own.
pub const ADDRESS_SPACE_HOLE_ABSORB: u32 = 1 << 17;
/// It waits until something is mapped there.
pub const ADDRESS_SPACE_HOLE_WAIT: u32 = 1 << 18;
/// So does one that the protection of what is mapped does not allow.
pub const ADDRESS_SPACE_HOLE_DENIED: u32 = 1 << 19;
/// Accesses by the kernel wait too.
pub const ADDRESS_SPACE_HOLE_KERNEL: u32 = 1 << 20;

/// Argument of [`ADDRESS_SPACE_CREATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_create {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `ADDRESS_SPACE_HOLE_*`.
    pub flags: u32,
    /// Length of the address space in bytes, a multiple of the page size.
    pub length: u64,
    /// Address of a name of at most [`ADDRESS_SPACE_NAME_MAX`] bytes and a NUL, or 0.
    pub name: u64,
}

/// The longest name, in bytes without the terminating NUL.
pub const ADDRESS_SPACE_NAME_MAX: u32 = 200;

/// On `/dev/address_space`: creates an address space and returns its asfd.
pub const ADDRESS_SPACE_CREATE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x00);

/// Asfds and views can have names.
pub const ADDRESS_SPACE_FEATURE_NAMES: u64 = 1 << 0;
/// An asfd or view can be opened through `/proc/PID/fd`.
pub const ADDRESS_SPACE_FEATURE_REOPEN: u64 = 1 << 1;
/// What is mapped for execution can be executed in an attachment.
pub const ADDRESS_SPACE_FEATURE_EXEC: u64 = 1 << 2;
/// A view can manage its range.
pub const ADDRESS_SPACE_FEATURE_MANAGE: u64 = 1 << 3;
/// Holes can be absorbed and waited for, watched and poisoned.
pub const ADDRESS_SPACE_FEATURE_HOLES: u64 = 1 << 4;
/// [`ADDRESS_SPACE_MUNMAP_RELEASE`].
pub const ADDRESS_SPACE_FEATURE_RELEASE: u64 = 1 << 5;
/// [`ADDRESS_SPACE_UNREGISTER_ALL`].
pub const ADDRESS_SPACE_FEATURE_UNREGISTER_ALL: u64 = 1 << 6;
/// The kernel was built with KVM.
pub const ADDRESS_SPACE_FEATURE_KVM: u64 = 1 << 7;
/// Attachments have huge pages.
pub const ADDRESS_SPACE_FEATURE_HUGE_PAGES: u64 = 1 << 8;
/// [`ADDRESS_SPACE_LEND`] and [`ADDRESS_SPACE_LEND_REVOKE`].
pub const ADDRESS_SPACE_FEATURE_LEND: u64 = 1 << 9;
/// [`ADDRESS_SPACE_MAP_PRIVATE`] and [`ADDRESS_SPACE_REGISTER_PRIVATE`].
pub const ADDRESS_SPACE_FEATURE_PRIVATE: u64 = 1 << 10;
/// [`ADDRESS_SPACE_ADVISE`].
pub const ADDRESS_SPACE_FEATURE_ADVISE: u64 = 1 << 11;
/// [`ADDRESS_SPACE_LAYOUT`].
pub const ADDRESS_SPACE_FEATURE_LAYOUT: u64 = 1 << 12;
/// The file system can be mounted.
pub const ADDRESS_SPACE_FEATURE_MOUNT: u64 = 1 << 13;

/// The version of the interface that this module describes.
pub const ADDRESS_SPACE_VERSION: u32 = 1;

/// Argument of [`ADDRESS_SPACE_QUERY`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_query {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Output: version of the interface.
    pub version: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// Output: `ADDRESS_SPACE_FEATURE_*`.
    pub features: u64,
    /// Output: the longest address space in bytes.
    pub max_length: u64,
    /// Output: the longest name in bytes.
    pub max_name: u32,
    /// Output: the most operations of a batch.
    pub max_ops: u32,
    /// Output: the most separate ranges that are poisoned.
    pub max_poisoned: u32,
    /// Output: how many events are kept.
    pub max_events: u32,
}

/// On the device: says what the kernel and the module can do.
pub const ADDRESS_SPACE_QUERY: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0F);

/// The new mapping replaces whatever is mapped in the range.
pub const ADDRESS_SPACE_MAP_REPLACE: u32 = 1 << 0;
/// The kernel chooses the address and writes it to `addr`.
pub const ADDRESS_SPACE_MAP_ANYWHERE: u32 = 1 << 1;
/// The kernel brings the file's pages into memory before the ioctl returns, and
/// installs them in the existing attachments.
pub const ADDRESS_SPACE_MAP_POPULATE: u32 = 1 << 2;
/// What is written is written to copies that belong to the mapping.
pub const ADDRESS_SPACE_MAP_PRIVATE: u32 = 1 << 3;

/// Argument of [`ADDRESS_SPACE_LEND`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_lend {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// The most that others may do with the memory, not PROT_NONE.
    pub prot: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// Start of the range of the caller's memory, a multiple of the page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size; 0, with `addr` 0, for
    /// all that the caller can ever map.
    pub length: u64,
}

/// On the device: lends memory of the caller.
pub const ADDRESS_SPACE_LEND: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0A);
/// On a lend, without an argument: takes the memory back.
pub const ADDRESS_SPACE_LEND_REVOKE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0B);

/// Argument of [`ADDRESS_SPACE_MMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_mmap {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `ADDRESS_SPACE_MAP_*`.
    pub flags: u32,
    /// The file to map.
    pub fd: i32,
    /// `PROT_*`.
    pub prot: u32,
    /// Start of the range of the file, in bytes, a multiple of the page size.
    pub offset: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size. With [`ADDRESS_SPACE_MAP_ANYWHERE`]: 0 on input, the chosen
    /// address on output.
    pub addr: u64,
}

/// On an asfd: maps a range of a file.
pub const ADDRESS_SPACE_MMAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x01);

/// Argument of [`ADDRESS_SPACE_MUNMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_munmap {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_MUNMAP_RELEASE`].
    pub flags: u32,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
}

/// Also lets go of files of which nothing is mapped any more.
pub const ADDRESS_SPACE_MUNMAP_RELEASE: u32 = 1 << 0;
/// On an asfd: empties a range.
pub const ADDRESS_SPACE_MUNMAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x02);

/// Argument of [`ADDRESS_SPACE_VIEW`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_view {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_VIEW_MANAGE`], and `ADDRESS_SPACE_HOLE_*`.
    pub flags: u32,
    /// `PROT_*`.
    pub prot: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// Start of the range of the address space that the view shows, in bytes, a
    /// multiple of the page size.
    pub offset: u64,
    /// Length of that range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// Address of a name of at most [`ADDRESS_SPACE_NAME_MAX`] bytes and a NUL, or 0.
    pub name: u64,
}

/// The view can also be used to change what is mapped in its range.
pub const ADDRESS_SPACE_VIEW_MANAGE: u32 = 1 << 0;
/// On an asfd: returns a view.
pub const ADDRESS_SPACE_VIEW: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x03);

/// Argument of [`ADDRESS_SPACE_REGISTER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_register {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_REGISTER_POPULATE`], [`ADDRESS_SPACE_REGISTER_PRIVATE`].
    pub flags: u32,
    /// The file.
    pub fd: i32,
    /// `PROT_*`: the most that maps of it will ask for.
    pub prot: u32,
    /// Start of the range of the file, in bytes, a multiple of the page size.
    pub offset: u64,
    /// Length of the range in bytes, a multiple of the page size; 0 for the range
    /// from `offset` to the end of the file.
    pub length: u64,
}

/// On an asfd: prepares a range of a file for maps, and keeps it prepared.
pub const ADDRESS_SPACE_REGISTER: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x04);
/// The kernel brings the file's pages into memory before the ioctl returns.
pub const ADDRESS_SPACE_REGISTER_POPULATE: u32 = 1 << 0;
/// The range has one set of private copies, which later private maps of it share.
pub const ADDRESS_SPACE_REGISTER_PRIVATE: u32 = 1 << 1;

/// Argument of [`ADDRESS_SPACE_UNREGISTER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_unregister {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_UNREGISTER_ALL`].
    pub flags: u32,
    /// The open file that was registered; -1 for all.
    pub fd: i32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: ends all registrations of a file.
pub const ADDRESS_SPACE_UNREGISTER: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x05);
/// Those of all files; on a view, those made through it.
pub const ADDRESS_SPACE_UNREGISTER_ALL: u32 = 1 << 0;

/// An operation of a batch: a map.
pub const ADDRESS_SPACE_OP_MMAP: u32 = 1;
/// An operation of a batch: an unmap.
pub const ADDRESS_SPACE_OP_MUNMAP: u32 = 2;
/// An operation of a batch: a change of protection.
pub const ADDRESS_SPACE_OP_PROTECT: u32 = 3;

/// One operation of a batch. The kernel ignores fields that an operation does not
/// use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_op {
    /// `ADDRESS_SPACE_OP_*`.
    pub opcode: u32,
    /// [`ADDRESS_SPACE_MAP_REPLACE`], [`ADDRESS_SPACE_MAP_POPULATE`] and
    /// [`ADDRESS_SPACE_MAP_PRIVATE`] for a map; 0 for others.
    pub flags: u32,
    /// For a map: the file.
    pub fd: i32,
    /// For a map and a protect: `PROT_*`.
    pub prot: u32,
    /// For a map: start of the range of the file, in bytes, a multiple of the
    /// page size.
    pub offset: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size.
    pub addr: u64,
}

/// Argument of [`ADDRESS_SPACE_BATCH`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_batch {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Address of an array of [`address_space_op`].
    pub ops: u64,
    /// Number of elements of the array, 1 to 65536.
    pub nr_ops: u32,
    /// Size of [`address_space_op`] in bytes.
    pub op_size: u32,
    /// Output: the index of the operation that failed.
    pub failed: u32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: performs all operations of a batch, or none.
pub const ADDRESS_SPACE_BATCH: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x06);

/// Argument of [`ADDRESS_SPACE_PROTECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_protect {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: changes the protection of a range.
pub const ADDRESS_SPACE_PROTECT: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x07);

/// Argument of [`ADDRESS_SPACE_MOVE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_move {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_MAP_REPLACE`].
    pub flags: u32,
    /// Start of the source range, in bytes, a multiple of the page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// Start of the destination range, in bytes, a multiple of the page size.
    pub new_addr: u64,
}

/// On an asfd: moves the mappings of a range to another address.
pub const ADDRESS_SPACE_MOVE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x08);

/// Argument of [`ADDRESS_SPACE_ADVISE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_advise {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
    /// What is wanted of the pages.
    pub advice: u32,
    /// Must be 0.
    pub __reserved: u32,
}

/// On an asfd: says what is wanted of the memory of a range.
pub const ADDRESS_SPACE_ADVISE: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0C);
/// The files begin to read.
pub const ADDRESS_SPACE_WILLNEED: u32 = 3;
/// The address space lets go of its pages; private copies are given back.
pub const ADDRESS_SPACE_DONTNEED: u32 = 4;
/// The file gets a hole.
pub const ADDRESS_SPACE_REMOVE: u32 = 9;
/// The pages are brought into memory, to be read.
pub const ADDRESS_SPACE_POPULATE_READ: u32 = 22;
/// The same, to be written.
pub const ADDRESS_SPACE_POPULATE_WRITE: u32 = 23;

/// The guest can only read: see `KVM_SET_USER_MEMORY_REGION`.
pub const KVM_MEM_READONLY: u32 = 1 << 1;
/// KVM keeps a log of the pages the guest writes to.
pub const KVM_MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;

/// Argument of [`ADDRESS_SPACE_EVENTS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_events {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// How long a task waits, in milliseconds; 0 for as long as it takes.
    pub timeout_ms: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// Start of the range that is watched, in bytes, a multiple of the page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size; 0 for all from
    /// `addr` on.
    pub length: u64,
}

/// On an asfd: watches a range and returns an events file descriptor.
pub const ADDRESS_SPACE_EVENTS: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0D);

/// A task waits for something to be mapped.
pub const ADDRESS_SPACE_EVENT_WAIT: u32 = 1;
/// Nothing was mapped there.
pub const ADDRESS_SPACE_EVENT_HOLE: u32 = 2;
/// The protection did not allow the access.
pub const ADDRESS_SPACE_EVENT_DENIED: u32 = 3;
/// The file ends before that page.
pub const ADDRESS_SPACE_EVENT_PAST_END: u32 = 4;
/// The memory is bad.
pub const ADDRESS_SPACE_EVENT_MEMORY_ERROR: u32 = 5;
/// The file could not provide the page.
pub const ADDRESS_SPACE_EVENT_IO_ERROR: u32 = 6;
/// There was no memory.
pub const ADDRESS_SPACE_EVENT_NO_MEMORY: u32 = 7;
/// The page is poisoned.
pub const ADDRESS_SPACE_EVENT_POISONED: u32 = 8;
/// The task has waited for too long.
pub const ADDRESS_SPACE_EVENT_TIMED_OUT: u32 = 9;
/// A signal has ended a wait in `KVM_RUN`.
pub const ADDRESS_SPACE_EVENT_INTERRUPTED: u32 = 10;
/// Events were lost, as many as `offset` says.
pub const ADDRESS_SPACE_EVENT_OVERFLOW: u32 = 11;

/// What is read from an events file descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_event {
    /// Size of this struct in bytes, as the kernel has it.
    pub size: u32,
    /// `ADDRESS_SPACE_EVENT_*`: `type` in the header.
    pub r#type: u32,
    /// The page that was accessed: its offset in the address space, in bytes.
    pub offset: u64,
    /// `PROT_READ`, `PROT_WRITE` or `PROT_EXEC`.
    pub access: u32,
    /// The thread id of the task.
    pub tid: u32,
    /// The inode number of the asfd or view.
    pub view: u64,
}

/// Argument of [`ADDRESS_SPACE_POISON`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_poison {
    /// Size of this struct in bytes.
    pub size: u32,
    /// [`ADDRESS_SPACE_POISON_CLEAR`].
    pub flags: u32,
    /// Start of the range of the address space, in bytes, a multiple of the
    /// page size.
    pub addr: u64,
    /// Length of the range in bytes, a multiple of the page size, not 0.
    pub length: u64,
}

/// On an asfd: refuses the accesses that wait in a range.
pub const ADDRESS_SPACE_POISON: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x0E);
/// The range is poisoned no longer.
pub const ADDRESS_SPACE_POISON_CLEAR: u32 = 1 << 0;

/// Argument of [`ADDRESS_SPACE_KVM_MAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_kvm_map {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `KVM_MEM_READONLY`, `KVM_MEM_LOG_DIRTY_PAGES`, `ADDRESS_SPACE_HOLE_*`.
    pub flags: u32,
    /// The virtual machine.
    pub vmfd: i32,
    /// The memory slot; KVM's address space id in the upper 16 bits.
    pub slot: u32,
    /// Guest physical address of the memory slot, in bytes, a multiple of the page
    /// size.
    pub guest_phys_addr: u64,
    /// Length of the memory slot in bytes, a multiple of the page size, not 0.
    pub memory_size: u64,
    /// Start of the range of the asfd or view that the slot shows, in bytes, a
    /// multiple of the page size.
    pub offset: u64,
    /// Output: the address at which the same range is attached to the caller.
    pub window: u64,
}

/// On an asfd or a view: attaches a range of it and makes that a memory slot.
pub const ADDRESS_SPACE_KVM_MAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x10);

/// Argument of [`ADDRESS_SPACE_KVM_UNMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct address_space_kvm_unmap {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// The virtual machine.
    pub vmfd: i32,
    /// The memory slot.
    pub slot: u32,
}

/// On an asfd or a view: removes a memory slot and the attachment that belongs to
/// it.
pub const ADDRESS_SPACE_KVM_UNMAP: Opcode = opcode::none(ADDRESS_SPACE_TYPE, 0x11);

/// Alias of [`address_space_kvm_map`], as in the header.
pub use address_space_kvm_map as kvm_map_address_space;
/// Alias of [`address_space_kvm_unmap`], as in the header.
pub use address_space_kvm_unmap as kvm_unmap_address_space;
/// Alias of [`ADDRESS_SPACE_KVM_MAP`], as in the header.
pub const KVM_MAP_ADDRESS_SPACE: Opcode = ADDRESS_SPACE_KVM_MAP;
/// Alias of [`ADDRESS_SPACE_KVM_UNMAP`], as in the header.
pub const KVM_UNMAP_ADDRESS_SPACE: Opcode = ADDRESS_SPACE_KVM_UNMAP;

// The kernel reads as many bytes as the `size` field says. A struct that grew by
// accident would be E2BIG on every existing kernel.
const _: () = {
    assert!(size_of::<address_space_create>() == 24);
    assert!(size_of::<address_space_mmap>() == 40);
    assert!(size_of::<address_space_munmap>() == 24);
    assert!(size_of::<address_space_view>() == 40);
    assert!(size_of::<address_space_register>() == 32);
    assert!(size_of::<address_space_unregister>() == 16);
    assert!(size_of::<address_space_op>() == 40);
    assert!(size_of::<address_space_batch>() == 32);
    assert!(size_of::<address_space_protect>() == 32);
    assert!(size_of::<address_space_move>() == 32);
    assert!(size_of::<address_space_advise>() == 32);
    assert!(size_of::<address_space_kvm_map>() == 48);
    assert!(size_of::<address_space_kvm_unmap>() == 16);
};

#[cfg(test)]
mod tests;
