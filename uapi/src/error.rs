// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;
use std::ops::Range;

use crate::{Errno, Prot};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and why.
///
/// The message says all three, and what to do about it where that can be told:
///
/// ```
/// # use address_space::{Errno, Error};
/// let error = Error::Map { addr: Some(0x4000), offset: 0, length: 0x1000, errno: Errno::EXIST };
/// assert_eq!(error.errno(), Some(Errno::EXIST));
/// assert!(error.to_string().contains("use replace()"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/address_space` could not be opened.
    Open {
        /// Why.
        errno: Errno,
    },
    /// An address space could not be made.
    Create {
        /// The length asked for, in bytes.
        length: u64,
        /// Why.
        errno: Errno,
    },
    /// A file could not be mapped into an address space.
    Map {
        /// Where in the address space, in bytes; `None` for anywhere.
        addr: Option<u64>,
        /// From where in the file, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// Why.
        errno: Errno,
    },
    /// The length of the file to map could not be learned.
    FileLength {
        /// Why.
        errno: Errno,
    },
    /// A range could not be emptied.
    Unmap {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// A file could not be registered.
    Register {
        /// From where in the file, in bytes.
        offset: u64,
        /// How much, in bytes; `None` for all from there on.
        length: Option<u64>,
        /// Why.
        errno: Errno,
    },
    /// The registrations of a file could not be ended.
    Unregister {
        /// Why.
        errno: Errno,
    },
    /// The protection of a range could not be changed.
    Protect {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// The protection asked for.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// A range could not be moved.
    Move {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Where it was to go, in bytes.
        new_addr: u64,
        /// Why.
        errno: Errno,
    },
    /// A batch was refused, and nothing of it was done.
    Batch {
        /// How many operations it had.
        operations: usize,
        /// The index of the operation that it was refused for; `None` where it
        /// was for none of them.
        failed: Option<usize>,
        /// That operation's own error, or that of the batch as a whole.
        error: Box<Error>,
    },
    /// A batch as a whole was refused: what [`Error::Batch`] has where the batch
    /// was refused for none of its operations.
    WholeBatch {
        /// Why.
        errno: Errno,
    },
    /// A view could not be made.
    View {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// The protection asked for.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// An address space or view could not be attached to this process.
    Attach {
        /// The range of the address space or view, in bytes.
        range: Range<u64>,
        /// The protection asked for.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// The length of an address space or view could not be learned.
    Length {
        /// Why.
        errno: Errno,
    },
    /// A file descriptor could not be duplicated.
    Duplicate {
        /// Why.
        errno: Errno,
    },
    /// A window could not be made a memory slot of a virtual machine.
    KvmMap {
        /// The slot.
        slot: u32,
        /// Where the guest would find it, in bytes.
        guest_phys_addr: u64,
        /// The range of the address space or view, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// A memory slot could not be removed.
    KvmUnmap {
        /// The slot.
        slot: u32,
        /// Why.
        errno: Errno,
    },
    /// I/O virtual addresses that the domain has not. Nothing has changed.
    OutOfAperture {
        /// The first, in bytes.
        iova: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// Guest physical addresses that are not all RAM. Nothing has changed.
    NotRam {
        /// The first, in bytes.
        gpa: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// RAM where the guest has RAM already. Nothing has changed.
    RamOverlaps {
        /// The guest physical addresses.
        gpa: Range<u64>,
    },
    /// An access reaches past the end of a window. Nothing was accessed.
    OutOfWindow {
        /// Where the access would have begun, in bytes.
        offset: usize,
        /// How much it would have accessed, in bytes.
        length: usize,
        /// The length of the window in bytes.
        window: usize,
    },
    /// An access is not aligned to its own size. Nothing was accessed.
    Misaligned {
        /// Where the access would have begun, in bytes.
        offset: usize,
        /// What it must be a multiple of, in bytes.
        align: usize,
    },
    /// A write to a window that was not attached for writing. Nothing was
    /// written.
    NotWritable,
}

impl Error {
    /// The errno of the system call that failed; `None` where no call was made.
    pub fn errno(&self) -> Option<Errno> {
        match *self {
            Error::Batch { ref error, .. } => error.errno(),
            Error::Register { errno, .. }
            | Error::Unregister { errno }
            | Error::Protect { errno, .. }
            | Error::Move { errno, .. }
            | Error::WholeBatch { errno }
            | Error::Open { errno }
            | Error::Create { errno, .. }
            | Error::Map { errno, .. }
            | Error::FileLength { errno }
            | Error::Unmap { errno, .. }
            | Error::View { errno, .. }
            | Error::Attach { errno, .. }
            | Error::Length { errno }
            | Error::Duplicate { errno }
            | Error::KvmMap { errno, .. }
            | Error::KvmUnmap { errno, .. } => Some(errno),
            Error::OutOfAperture { .. }
            | Error::NotRam { .. }
            | Error::RamOverlaps { .. }
            | Error::OutOfWindow { .. }
            | Error::Misaligned { .. }
            | Error::NotWritable => None,
        }
    }

    /// The index of the operation that a batch was refused for.
    pub fn failed_operation(&self) -> Option<usize> {
        match *self {
            Error::Batch { failed, .. } => failed,
            _ => None,
        }
    }

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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { .. } => write!(f, "cannot open /dev/address_space"),
            Error::Create { length, .. } => {
                write!(f, "cannot make an address space of {length:#x} bytes")
            }
            Error::Map {
                addr,
                offset,
                length,
                ..
            } => {
                write!(
                    f,
                    "cannot map {length:#x} bytes from {offset:#x} of the file "
                )?;
                match addr {
                    Some(addr) => write!(f, "at {addr:#x}"),
                    None => write!(f, "anywhere"),
                }
            }
            Error::FileLength { .. } => write!(f, "cannot learn the length of the file to map"),
            Error::Unmap { range, .. } => write!(f, "cannot unmap {}", Hex(range)),
            Error::Register { offset, length, .. } => {
                write!(f, "cannot register ")?;
                match length {
                    Some(length) => write!(f, "{length:#x} bytes from {offset:#x} of the file"),
                    None => write!(f, "the file from {offset:#x} on"),
                }
            }
            Error::Unregister { .. } => write!(f, "cannot end the registrations of the file"),
            Error::Protect { range, prot, .. } => {
                write!(f, "cannot protect {} with {prot}", Hex(range))
            }
            Error::Move {
                range, new_addr, ..
            } => write!(f, "cannot move {} to {new_addr:#x}", Hex(range)),
            Error::Batch {
                operations,
                failed,
                error,
            } => {
                // The message of the inner error ends in errno and advice.
                return match failed {
                    Some(failed) => write!(
                        f,
                        "batch refused for operation {failed} of {operations}: {error}"
                    ),
                    None => write!(f, "batch of {operations} operations refused: {error}"),
                };
            }
            Error::WholeBatch { .. } => write!(f, "cannot change the address space"),
            Error::View { range, prot, .. } => {
                write!(f, "cannot make a view of {}, {prot}", Hex(range))
            }
            Error::Attach { range, prot, .. } => {
                write!(f, "cannot attach {}, {prot}", Hex(range))
            }
            Error::Length { .. } => write!(f, "cannot learn the length of the address space"),
            Error::Duplicate { .. } => write!(f, "cannot duplicate a file descriptor"),
            Error::KvmMap {
                slot,
                guest_phys_addr,
                range,
                ..
            } => write!(
                f,
                "cannot make {} memory slot {slot:#x} at guest address {guest_phys_addr:#x}",
                Hex(range)
            ),
            Error::KvmUnmap { slot, .. } => write!(f, "cannot remove memory slot {slot:#x}"),
            Error::OutOfAperture { iova, length } => write!(
                f,
                "{length:#x} bytes at I/O virtual address {iova:#x} are not within the domain"
            ),
            Error::NotRam { gpa, length } => write!(
                f,
                "{length:#x} bytes at guest address {gpa:#x} are not all RAM: see add_ram()"
            ),
            Error::RamOverlaps { gpa } => {
                write!(f, "there is RAM already in guest addresses {}", Hex(gpa))
            }
            Error::OutOfWindow {
                offset,
                length,
                window,
            } => write!(
                f,
                "{length:#x} bytes at {offset:#x} are not within the window, which has {window:#x}"
            ),
            Error::Misaligned { offset, align } => {
                write!(f, "offset {offset:#x} is not a multiple of {align}")
            }
            Error::NotWritable => write!(f, "the window is not attached for writing"),
        }?;
        if let Some(errno) = self.errno() {
            write!(f, ": {errno}")?;
        }
        if let Some(advice) = self.advice() {
            write!(f, ": {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Keeps the kind of the errno, and the whole message.
    fn from(error: Error) -> Self {
        let kind = match error.errno() {
            Some(errno) => io::Error::from(errno).kind(),
            None => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// A range in the way /proc/PID/maps writes it.
struct Hex<'a>(&'a Range<u64>);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.0.start, self.0.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_says_what_failed_on_what_why_and_what_to_do() {
        let error = Error::Map {
            addr: Some(0x4000),
            offset: 0x1000,
            length: 0x2000,
            errno: Errno::EXIST,
        };
        let text = error.to_string();
        assert!(text.starts_with("cannot map 0x2000 bytes from 0x1000 of the file at 0x4000: "));
        assert!(text.contains("File exists"), "{text}");
        assert!(text.contains("unmap it, or use replace()"), "{text}");
    }

    #[test]
    fn missing_device_asks_for_the_module() {
        let text = Error::Open {
            errno: Errno::NOENT,
        }
        .to_string();
        assert!(
            text.contains("is the address_space module loaded?"),
            "{text}"
        );
    }

    #[test]
    fn another_process_s_vm_is_named_as_such() {
        let error = Error::KvmMap {
            slot: 0,
            guest_phys_addr: 0,
            range: 0..0x1000,
            errno: Errno::IO,
        };
        assert!(
            error
                .advice()
                .unwrap()
                .contains("the VM is another process's")
        );
    }

    #[test]
    fn errno_without_advice_still_has_its_name() {
        let error = Error::Unmap {
            range: 0..0x1000,
            errno: Errno::IO,
        };
        assert_eq!(error.advice(), None);
        assert!(error.to_string().starts_with("cannot unmap 0x0-0x1000: "));
    }

    #[test]
    fn batch_error_tells_which_operation_and_what_to_do() {
        let error = Error::Batch {
            operations: 3,
            failed: Some(1),
            error: Box::new(Error::Map {
                addr: Some(0x4000),
                offset: 0,
                length: 0x1000,
                errno: Errno::EXIST,
            }),
        };
        assert_eq!(error.errno(), Some(Errno::EXIST));
        assert_eq!(error.failed_operation(), Some(1));
        let text = error.to_string();
        assert!(text.starts_with("batch refused for operation 1 of 3: cannot map "));
        assert_eq!(text.matches("use replace()").count(), 1, "{text}");
    }

    #[test]
    fn access_errors_have_no_errno() {
        let error = Error::OutOfWindow {
            offset: 0x1000,
            length: 1,
            window: 0x1000,
        };
        assert_eq!(error.errno(), None);
        assert_eq!(
            error.to_string(),
            "0x1 bytes at 0x1000 are not within the window, which has 0x1000"
        );
    }

    #[test]
    fn io_error_keeps_kind_and_message() {
        let error = Error::Open {
            errno: Errno::NOENT,
        };
        let text = error.to_string();
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), text);
    }
}
