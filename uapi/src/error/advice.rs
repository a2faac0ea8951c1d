// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What to do about an error, by call and errno.

use super::Error;
use crate::{Errno, Prot};

impl Error {
    /// What to do about it, where the errno tells.
    pub fn advice(&self) -> Option<&'static str> {
        use Error::*;

        if let Batch { error, .. } = self {
            return error.advice();
        }

        // The particular before the general: what an errno means whatever the
        // call comes last.
        Some(match (self, self.errno()?) {
            (Open { .. }, Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
                "is the address_space module loaded? (modprobe address_space)"
            }
            (Open { .. }, Errno::ACCESS | Errno::PERM) => {
                "this user may not open /dev/address_space: see its mode and group"
            }

            (Create { .. }, Errno::INVAL) => {
                "the length must be a multiple of the page size, not 0 and at most 2^46"
            }
            (Create { .. }, Errno::BUSY) => {
                "the system is going to sleep: try again when it is awake"
            }
            (Create { .. }, Errno::NOTTY) => "this file descriptor is not of /dev/address_space",

            (Map { .. }, Errno::EXIST) => {
                "something is mapped in this range: unmap it, or use replace() to put the file \
                 in its place"
            }
            (Map { .. }, Errno::INVAL) => {
                "address, offset and length must be multiples of the page size, the length not 0, \
                 the range within the address space, the protection without WRITE or EXEC where \
                 there is no READ; replace() needs at()"
            }
            (Map { .. }, Errno::ACCESS) => {
                "the file must be open for reading, and for writing where the protection has WRITE"
            }
            (Map { .. }, Errno::PERM) => {
                "the file is sealed against writing, or on a noexec mount and the protection has \
                 EXEC"
            }
            (Map { .. }, Errno::NODEV) => {
                "this kind of file cannot be mapped, or its memory cannot be shown to others \
                 (a directory, a pipe, device memory, secret memory, DAX)"
            }
            (Map { .. }, Errno::LOOP) => {
                "the file is an address space or a view, and those cannot be nested: map the \
                 files it shows"
            }
            (Map { .. }, Errno::NOSPC) => {
                "no hole is large enough: unmap something, or make a longer address space"
            }
            (Map { .. }, Errno::BADF) => "the file is not open, or opened with O_PATH",

            (Unmap { .. }, Errno::INVAL) => {
                "the range must be within the address space, not empty, and begin and end at \
                 multiples of the page size"
            }

            (Register { .. }, Errno::INVAL) => {
                "offset and length must be multiples of the page size, the offset within the \
                 file where no length is given, the protection without WRITE or EXEC where there \
                 is no READ"
            }
            (Register { .. }, Errno::ACCESS) => {
                "the file must be open for reading, and for writing where the protection has WRITE"
            }
            (Register { .. }, Errno::PERM) => {
                "the file is sealed against writing, or on a noexec mount and the protection has \
                 EXEC"
            }
            (Register { .. }, Errno::NODEV) => {
                "this kind of file cannot be mapped, or its memory cannot be shown to others \
                 (a directory, a pipe, device memory, secret memory, DAX)"
            }
            (Register { .. } | Unregister { .. }, Errno::LOOP) => {
                "the file is an address space or a view, and those cannot be nested"
            }
            (Register { .. } | Unregister { .. }, Errno::BADF) => {
                "the file is not open, or opened with O_PATH"
            }
            (Unregister { .. }, Errno::NOENT) => {
                "this open file is not registered: it must be the one that was, or a duplicate \
                 of it, not the same file opened again"
            }

            (Protect { .. }, Errno::NOENT) => {
                "something must be mapped in all of the range, with no hole in it"
            }
            (Protect { .. }, Errno::ACCESS) => {
                "no more than what the range was mapped or registered for: map it again with \
                 replace() to allow more"
            }
            (Protect { .. }, Errno::INVAL) => {
                "the range must be within the address space, not empty, and begin and end at \
                 multiples of the page size, the protection without WRITE or EXEC where there is \
                 no READ"
            }

            (Move { .. }, Errno::NOENT) => {
                "something must be mapped in all of the range, with no hole in it"
            }
            (Move { .. }, Errno::EXIST) => {
                "something is mapped where it goes: unmap it, or use move_over()"
            }
            (Move { .. }, Errno::INVAL) => {
                "both ranges must be within the address space, not empty, not overlap, and begin \
                 and end at multiples of the page size"
            }

            (WholeBatch { .. }, Errno::INVAL) => "a batch has at most 65536 operations",

            (View { .. }, Errno::INVAL) => {
                "the range must be within the address space, not empty, and begin and end at \
                 multiples of the page size; the protection must have READ"
            }

            (Attach { prot, .. }, Errno::PERM) if prot.contains(Prot::EXEC) => {
                "the kernel lets no process map an address space or view with EXEC"
            }
            (Attach { .. }, Errno::ACCESS | Errno::PERM) => {
                "a view cannot be attached with more than its own protection"
            }
            (Attach { .. }, Errno::INVAL | Errno::NXIO | Errno::OVERFLOW) => {
                "the range must be within the address space or view, not empty, and begin at a \
                 multiple of the page size"
            }
            (Attach { .. }, Errno::NODEV) => {
                "this file cannot be mapped: it is no address space and no view"
            }

            (KvmMap { .. }, Errno::EXIST) => {
                "the slot shows this address space already, or overlaps another: choose another \
                 slot or guest address"
            }
            (KvmMap { .. }, Errno::ACCESS) => {
                "the view does not allow writing: pass KvmFlags::READONLY"
            }
            (KvmMap { .. } | KvmUnmap { .. }, Errno::IO) => {
                "the VM is another process's: only the process that made a VM can change its \
                 memory"
            }
            (KvmMap { .. }, Errno::INVAL) => {
                "the VM must be a KVM virtual machine (not its vCPU, not /dev/kvm), the guest \
                 address and the range multiples of the page size, the range not empty and \
                 within the address space or view, the slot one that KVM takes and that has \
                 no other memory"
            }
            (KvmMap { .. }, Errno::NOTTY) => "this file descriptor is no address space and no view",
            (KvmUnmap { .. }, Errno::NOENT) => "the slot is none of this address space or view",

            (_, Errno::NOTTY) => {
                "only an address space has this call, a view has not; or else the loaded module \
                 is older than this program"
            }
            (_, Errno::TOOBIG | Errno::OPNOTSUPP) => "the loaded module is older than this program",
            (_, Errno::OVERFLOW) => "the end of the range does not fit 64 bits",
            (_, Errno::NOMEM) => "not enough memory, or a limit of this process was met",
            (_, Errno::MFILE) => "this process has too many open files: see RLIMIT_NOFILE",
            (_, Errno::NFILE) => "the system has too many open files: see /proc/sys/fs/file-max",
            _ => return None,
        })
    }
}
