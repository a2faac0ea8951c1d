// SPDX-License-Identifier: GPL-2.0

//! Questions about files that only inline functions of the kernel answer.
//!
//! Takes no lock; each answer may be out of date as soon as it is given.

use kernel::{
    error::to_result,
    fs::{
        file::LocalFile,
        File, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::aref::ARef, //
};

use crate::sys::{
    bindings::{
        self,
        loff_t, //
    },
    safe_fns, //
};

/// Its size in bytes.
pub(crate) fn size(file: &File) -> u64 {
    safe_fns::address_space_helper_file_size(file).max(0) as u64
}

/// The number of its inode.
pub(crate) fn ino(file: &File) -> u64 {
    safe_fns::address_space_helper_file_ino(file) as u64
}

/// The number of its file system's device, as /proc/PID/maps has it: major and minor.
pub(crate) fn device(file: &File) -> (u32, u32) {
    let device = safe_fns::address_space_helper_file_device(file);
    (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

/// Of a device number in the kernel.
const MINOR_BITS: u32 = 20;

/// What mmap() checks and what can change while a file is open, as opaque bits: its seals, and
/// whether its mount is noexec.
pub(crate) fn mmap_limits(file: &File) -> u32 {
    safe_fns::address_space_helper_mmap_limits(file)
}

/// Whether its mount is noexec.
pub(crate) fn is_noexec(file: &File) -> bool {
    safe_fns::address_space_helper_is_noexec(file)
}

/// The size of its huge pages in bytes where it consists of such (hugetlb); else 0.
pub(crate) fn huge_page_size(file: &File) -> usize {
    safe_fns::address_space_helper_huge_page_size(file)
}

/// Whether page `index` is memory (shmem) and in the page cache, up to date and unlocked: to map
/// it means no I/O.
pub(crate) fn is_resident(file: &File, index: usize) -> bool {
    safe_fns::address_space_helper_is_resident(file, index)
}

/// Whether its pages must not be mapped elsewhere: devices and anonymous files, whose mappings are
/// not of one page cache; secret memory, which is not in the direct map; DAX, whose pages are not
/// page cache; what is marked inaccessible (guest_memfd).
pub(crate) fn is_unmappable(file: &File) -> bool {
    safe_fns::address_space_helper_is_unmappable(file)
}

/// Whether mapping it, or unmapping it, waits for nothing but memory: it is memory, or on a local
/// disk.
pub(crate) fn is_mapped_at_once(file: &File) -> bool {
    safe_fns::address_space_helper_is_mapped_at_once(file)
}

/// Whether its file system writes its pages back, and so has to be asked before one is made dirty.
pub(crate) fn is_written_back(file: &File) -> bool {
    safe_fns::address_space_helper_is_written_back(file)
}

/// Where its file system is: to be compared, not followed.
pub(crate) fn filesystem(file: &File) -> usize {
    safe_fns::address_space_helper_filesystem(file)
}

/// Whether KVM made it for a virtual machine.
pub(crate) fn is_kvm_vm(file: &File) -> bool {
    // kvm.ko may not be there, so its file_is_kvm() must not be linked to.
    is_anon_file(file, c"kvm-vm")
}

/// Whether it is on an anonymous inode of that name. Only the kernel and its modules give names.
pub(crate) fn is_anon_file(file: &File, name: &CStr) -> bool {
    safe_fns::address_space_helper_is_anon_file(file, name)
}

/// Has the file write bytes `start..=last` to where it is kept; see `vfs_fsync_range()`. May take
/// as long as the file does. A file that cannot be synced has nothing to write: that is no error.
pub(crate) fn fsync_range(file: &File, start: u64, last: u64, datasync: bool) -> Result {
    let (start, last) = (start as loff_t, last as loff_t);
    let ret = safe_fns::vfs_fsync_range(file, start, last, c_int::from(datasync));
    if ret == EINVAL.to_errno() {
        return Ok(());
    }
    to_result(ret)
}

/// Makes a hole of bytes `start..start + length`, which may be all of the range at once or a part
/// of it where that fails; see `vfs_fallocate()`, which checks the mode of the file, and the
/// current task's credentials. May take as long as the file does.
pub(crate) fn punch_hole(file: &File, start: u64, length: u64) -> Result {
    const MODE: u32 = bindings::FALLOC_FL_PUNCH_HOLE | bindings::FALLOC_FL_KEEP_SIZE;
    let (start, length) = (start as loff_t, length as loff_t);
    to_result(safe_fns::vfs_fallocate(file, MODE as c_int, start, length))
}

/// Has the file begin to read bytes `start..start + length`; see `vfs_fadvise()`.
pub(crate) fn read_ahead(file: &File, start: u64, length: u64) -> Result {
    let (start, length) = (start as loff_t, length as loff_t);
    let advice = bindings::POSIX_FADV_WILLNEED as c_int;
    to_result(safe_fns::vfs_fadvise(file, start, length, advice))
}

/// Prints the file's path. New lines in it are escaped, or a name could look like a line of the
/// caller's.
pub(crate) fn print_path(file: &File, out: &SeqFile) {
    safe_fns::seq_file_path(out, file, c"\n");
}

/// Whether what is printed from here on is lost: it is printed again then, to a larger buffer.
pub(crate) fn is_full(out: &SeqFile) -> bool {
    safe_fns::address_space_helper_seq_is_full(out)
}

/// The file that a file descriptor of the caller stands for. `EBADF`.
///
/// For an ioctl, in which no fdget_pos() of the caller's is under way.
pub(crate) fn from_fd(fd: i32) -> Result<ARef<File>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    let file = LocalFile::fget(fd)?;
    // SAFETY: The module's only entry points that get a file descriptor are ioctls, which do not
    // hold a file position.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
}
