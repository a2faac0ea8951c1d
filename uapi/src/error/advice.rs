// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Advice for an error, by call and errno.

use super::Error;
use crate::Errno;

impl Error {
    /// Advice on how to correct the error, if the errno allows any: the one cause, where the
    /// arguments show it.
    pub fn advice(&self) -> Option<&'static str> {
        use Error::*;

        if let Batch { error, .. } = self {
            return error.advice();
        }
        if let Some(cause) = self.cause() {
            return Some(cause);
        }

        // Specific cases first; the meaning of an errno for any call comes last.
        Some(match (self, self.errno()?) {
            (Open { .. }, Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
                "is the address_space module loaded? (modprobe address_space)"
            }
            (Open { .. }, Errno::ACCESS | Errno::PERM) => {
                "this user may not open /dev/address_space: check its mode and group"
            }

            (Create { .. }, Errno::BUSY) => {
                "the system is being suspended: try again after it resumes"
            }
            (Query { .. }, Errno::NOTTY) => {
                "the loaded module is older than this call, or this file descriptor is not that \
                 of /dev/address_space"
            }
            (Create { .. }, Errno::NOTTY) => {
                "this file descriptor is not that of /dev/address_space"
            }

            (Map { .. }, Errno::EXIST) => {
                "something is mapped in this range: unmap it, or use replace() to replace it"
            }
            (Map { .. }, Errno::INVAL) => {
                "the range must be within the address space, and a protection with WRITE or EXEC \
                 must have READ; replace() needs at()"
            }
            (Map { .. }, Errno::ACCESS) => {
                "the file must be open for reading, and for writing if the protection has WRITE"
            }
            (Map { .. }, Errno::PERM) => {
                "the file is sealed against writing, or on a noexec mount and the protection has \
                 EXEC"
            }
            (Map { .. }, Errno::NODEV) => {
                "this kind of file cannot be mapped, or its pages cannot be shown \
                 (a directory, a pipe, device memory, secret memory, DAX)"
            }
            (Map { .. }, Errno::LOOP) => {
                "the file is an address space or a view, and those cannot be nested: map the \
                 files it shows"
            }
            (Map { .. } | Register { .. }, Errno::SRCH) => {
                "the memory is no longer lent: its owner has taken it back, exited or called exec"
            }
            (Lend { .. }, Errno::INVAL) => {
                "address and length must be multiples of the page size, the length not 0, the range \
                 within what a process can map; the protection must have READ"
            }
            (Lend { .. }, Errno::NOTTY) => "this file descriptor is not that of /dev/address_space",
            (Revoke { .. }, Errno::PERM) => {
                "only the process that has lent the memory can take it back"
            }
            (Revoke { .. }, Errno::NOTTY) => "this file descriptor is not one of lent memory",
            (Map { .. }, Errno::NOSPC) => {
                "no hole is large enough: unmap something, or create a longer address space"
            }
            (Map { .. }, Errno::BADF) => {
                "the file is not open, or was opened with O_PATH; or the address space is not open \
                 for writing"
            }

            (Watch { .. }, Errno::BUSY) => "the address space has a watcher: drop its Events",
            (Poison { .. }, Errno::NOENT) => "nobody watches the address space: see watch()",
            (Poison { .. }, Errno::NOSPC) => {
                "too many separate ranges are poisoned: map something over them, or unpoison()"
            }

            (Register { .. }, Errno::INVAL) => {
                "the offset must be within the file if no length is given, and a protection with \
                 WRITE or EXEC must have READ"
            }
            (Register { .. }, Errno::ACCESS) => {
                "the file must be open for reading, and for writing if the protection has WRITE"
            }
            (Register { .. }, Errno::PERM) => {
                "the file is sealed against writing, or on a noexec mount and the protection has \
                 EXEC"
            }
            (Register { .. }, Errno::NODEV) => {
                "this kind of file cannot be mapped, or its pages cannot be shown \
                 (a directory, a pipe, device memory, secret memory, DAX)"
            }
            (Register { .. }, Errno::LOOP) => {
                "the file is an address space or a view, and those cannot be nested"
            }
            (Register { .. } | Unregister { .. }, Errno::BADF) => {
                "the file is not open, or was opened with O_PATH"
            }
            (Unregister { .. }, Errno::NOENT) => {
                "this open file is not registered: it must be the open file that was registered, \
                 or a duplicate of its file descriptor, not the same file opened again"
            }

            (Protect { .. }, Errno::NOENT) => "all of the range must be mapped, without a hole",
            (Protect { .. }, Errno::ACCESS) => {
                "the protection allows more than the range was mapped or registered for: map it \
                 again with replace() to allow more"
            }

            (Move { .. }, Errno::NOENT) => "all of the range must be mapped, without a hole",
            (Move { .. }, Errno::EXIST) => {
                "something is mapped at the destination: unmap it, or use move_over()"
            }

            (Advise { .. }, Errno::NOENT) => "all of the range must be mapped, without a hole",
            (Advise { .. }, Errno::ACCESS) => {
                "the range, and the part of the address space, must be mapped for that access; \
                 a file can only be punched through a mapping for writing that is not private"
            }
            (Advise { .. }, Errno::PERM) => "the file is sealed against writing",
            (Advise { .. }, Errno::OPNOTSUPP) => {
                "the file can have no holes, or the memory was lent; or the loaded module is older \
                 than this program"
            }
            (Advise { .. }, Errno::FAULT) => {
                "a page cannot be had: the file ends before it or cannot provide it, or the memory \
                 cgroup of the address space's creator is full"
            }
            (Advise { .. }, Errno::HWPOISON) => "the memory of a page is bad",
            (Advise { .. }, Errno::INVAL) => {
                "the range must be within the address space; or the file refuses it"
            }
            (Map { .. } | Register { .. }, Errno::OPNOTSUPP) => {
                "hugetlbfs and lent memory cannot be private; in a part of an address space a map \
                 needs a place; or the loaded module is older than this program"
            }

            (WholeBatch { .. }, Errno::INVAL) => "a batch has at most 65536 operations",

            (View { .. }, Errno::INVAL) => {
                "the range must be within the address space, a name at most 200 bytes without NUL, \
                 and the hole flags must not contradict each other"
            }

            (Attach { .. }, Errno::ACCESS | Errno::PERM) => {
                "a view cannot be attached with more than its protection, nor a file descriptor \
                 with more than it is open for"
            }
            (Attach { .. }, Errno::NXIO | Errno::OVERFLOW) => {
                "the range must be within the address space or view, not empty, and start at a \
                 multiple of the page size"
            }
            (Attach { .. }, Errno::NODEV) => "this file is not an address space and not a view",

            (KvmMap { .. }, Errno::EXIST) => {
                "the slot shows this address space already, or overlaps another slot: choose \
                 another slot or guest address"
            }
            (KvmMap { .. }, Errno::ACCESS) => {
                "the view does not allow writing: pass KvmFlags::READONLY"
            }
            (KvmMap { .. } | KvmSetFlags { .. } | KvmUnmap { .. }, Errno::IO) => {
                "another process created the VM: only the process that created a VM can change \
                 its memory"
            }
            (KvmMap { .. }, Errno::INVAL) => {
                "the VM must be a KVM virtual machine (not its vCPU, not /dev/kvm), the range \
                 within the address space or view, the slot one that KVM accepts and that has no \
                 other memory"
            }
            (KvmMap { .. }, Errno::NOTTY) => {
                "this file descriptor is not an address space and not a view"
            }
            (KvmSetFlags { .. }, Errno::INVAL) => {
                "of a slot only LOG_DIRTY_PAGES can be changed; or the slot has other memory now"
            }
            (KvmUnmap { .. }, Errno::PERM) => "the memory is sealed: see mseal()",
            (KvmUnmap { .. }, Errno::NOENT) => {
                "the slot does not show this address space, or its window is gone"
            }

            (Access { .. }, Errno::FAULT) => {
                "nothing is mapped there, the file ends before it or cannot provide it, or what is \
                 mapped does not allow the access"
            }
            (Access { .. }, Errno::NOSYS | Errno::PERM) => {
                "process_vm_readv() and process_vm_writev() are not there: see \
                 CONFIG_CROSS_MEMORY_ATTACH and the seccomp filter"
            }

            (_, Errno::BADF) => "the address space is not open for writing",
            (_, Errno::NOTTY) => {
                "only an address space has this call, a view does not; or the loaded module is \
                 older than this program"
            }
            (_, Errno::TOOBIG | Errno::OPNOTSUPP) => "the loaded module is older than this program",
            (_, Errno::OVERFLOW) => "the end of the range does not fit 64 bits",
            (_, Errno::NOMEM) => "not enough memory, or a limit of this process is reached",
            (_, Errno::MFILE) => "this process has too many open files: see RLIMIT_NOFILE",
            (_, Errno::NFILE) => "the system has too many open files: see /proc/sys/fs/file-max",
            _ => return None,
        })
    }
}
