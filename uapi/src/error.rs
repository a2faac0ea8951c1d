// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors, with their messages and advice.

mod advice;
mod cause;
mod message;

use std::io;
use std::ops::Range;

use crate::{Advice, Errno, KvmFlags, Prot};

/// The result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and why.
///
/// The message contains all three, and advice if the errno allows any:
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
    /// The module could not be asked what it can do.
    Query {
        /// Why.
        errno: Errno,
    },
    /// An address space could not be created.
    Create {
        /// The requested length, in bytes.
        length: u64,
        /// Why.
        errno: Errno,
    },
    /// A file could not be mapped into an address space.
    Map {
        /// Start of the range of the address space, in bytes; `None` for anywhere.
        addr: Option<u64>,
        /// Start of the range of the file, in bytes.
        offset: u64,
        /// Length of the range, in bytes.
        length: u64,
        /// Why.
        errno: Errno,
    },
    /// The length of the file to map is not available.
    FileLength {
        /// Why.
        errno: Errno,
    },
    /// What is mapped in a range could not be found out.
    Layout {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// What has become of an address space could not be found out.
    Info {
        /// Why.
        errno: Errno,
    },
    /// What was changed in files could not be written back.
    Sync {
        /// Why.
        errno: Errno,
    },
    /// A range could not be unmapped.
    Unmap {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// A file could not be registered.
    Register {
        /// Start of the range of the file, in bytes.
        offset: u64,
        /// Length of the range, in bytes; `None` for the rest of the file.
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
        /// The requested protection.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// A range could not be moved.
    Move {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// The destination, in bytes.
        new_addr: u64,
        /// Why.
        errno: Errno,
    },
    /// What was wanted of the memory of a range was not done, or not for all of it.
    Advise {
        /// What was wanted.
        advice: Advice,
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// A batch failed, and nothing has changed.
    Batch {
        /// The number of its operations.
        operations: usize,
        /// The index of the operation that failed; `None` if the error is not that
        /// of an operation.
        failed: Option<usize>,
        /// The error of that operation, or of the batch as a whole.
        error: Box<Error>,
    },
    /// A batch as a whole failed: the inner error of an [`Error::Batch`] that is
    /// not that of an operation.
    WholeBatch {
        /// Why.
        errno: Errno,
    },
    /// An address space cannot be watched.
    Watch {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// A range could not be poisoned.
    Poison {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// Events could not be read.
    ReadEvents {
        /// Why.
        errno: Errno,
    },
    /// Memory could not be lent.
    Lend {
        /// Its address.
        addr: u64,
        /// Its length in bytes.
        length: u64,
        /// Why.
        errno: Errno,
    },
    /// Memory could not be taken back.
    Revoke {
        /// Why.
        errno: Errno,
    },
    /// A view could not be created.
    View {
        /// The range of the address space, in bytes.
        range: Range<u64>,
        /// The requested protection.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// An address space or view could not be attached to this process.
    Attach {
        /// The range of the address space or view, in bytes.
        range: Range<u64>,
        /// The requested protection.
        prot: Prot,
        /// Why.
        errno: Errno,
    },
    /// The length of an address space or view is not available.
    Length {
        /// Why.
        errno: Errno,
    },
    /// A file descriptor could not be duplicated.
    Duplicate {
        /// Why.
        errno: Errno,
    },
    /// A range could not be made a memory slot of a virtual machine.
    KvmMap {
        /// The slot.
        slot: u32,
        /// The guest physical address of the slot, in bytes.
        guest_phys_addr: u64,
        /// The range of the address space or view, in bytes.
        range: Range<u64>,
        /// Why.
        errno: Errno,
    },
    /// The flags of a memory slot could not be changed.
    KvmSetFlags {
        /// The slot.
        slot: u32,
        /// The requested flags.
        flags: KvmFlags,
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
    /// I/O virtual addresses that are not within the domain. Nothing has changed.
    OutOfAperture {
        /// The first address, in bytes.
        iova: u64,
        /// The length, in bytes.
        length: u64,
    },
    /// Guest physical addresses that are not all RAM. Nothing has changed.
    NotRam {
        /// The first address, in bytes.
        gpa: u64,
        /// The length, in bytes.
        length: u64,
    },
    /// RAM where the guest has RAM already. Nothing has changed.
    RamOverlaps {
        /// The guest physical addresses.
        gpa: Range<u64>,
    },
    /// An access extends beyond the end of a window. Nothing was accessed.
    OutOfWindow {
        /// The start of the access, in bytes.
        offset: usize,
        /// The length of the access, in bytes.
        length: usize,
        /// The length of the window in bytes.
        window: usize,
    },
    /// An access failed where a plain one would have raised a signal.
    Access {
        /// The first byte that was not accessed: its offset in the window, in bytes.
        offset: usize,
        /// How.
        access: Prot,
        /// Why.
        errno: Errno,
    },
    /// An access is not aligned to its own size. Nothing was accessed.
    Misaligned {
        /// The start of the access, in bytes.
        offset: usize,
        /// The alignment that it needs, in bytes.
        align: usize,
    },
    /// A write to a window that was not attached for writing. Nothing was
    /// written.
    NotWritable,
}

impl Error {
    /// The errno of the system call that failed; `None` if no call was made.
    pub fn errno(&self) -> Option<Errno> {
        match *self {
            Error::Batch { ref error, .. } => error.errno(),
            Error::Register { errno, .. }
            | Error::Unregister { errno }
            | Error::Protect { errno, .. }
            | Error::Move { errno, .. }
            | Error::Advise { errno, .. }
            | Error::WholeBatch { errno }
            | Error::Open { errno }
            | Error::Query { errno }
            | Error::Create { errno, .. }
            | Error::Map { errno, .. }
            | Error::FileLength { errno }
            | Error::Layout { errno, .. }
            | Error::Info { errno }
            | Error::Sync { errno }
            | Error::Unmap { errno, .. }
            | Error::Watch { errno, .. }
            | Error::Poison { errno, .. }
            | Error::ReadEvents { errno }
            | Error::Lend { errno, .. }
            | Error::Revoke { errno }
            | Error::View { errno, .. }
            | Error::Attach { errno, .. }
            | Error::Length { errno }
            | Error::Duplicate { errno }
            | Error::KvmMap { errno, .. }
            | Error::KvmSetFlags { errno, .. }
            | Error::KvmUnmap { errno, .. }
            | Error::Access { errno, .. } => Some(errno),
            Error::OutOfAperture { .. }
            | Error::NotRam { .. }
            | Error::RamOverlaps { .. }
            | Error::OutOfWindow { .. }
            | Error::Misaligned { .. }
            | Error::NotWritable => None,
        }
    }

    /// The number of [`errno()`](Error::errno), as of `std::io::Error`.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.errno().map(Errno::raw_os_error)
    }

    /// What `std::io::Error` calls the errno; `InvalidInput` if no call was made.
    pub fn kind(&self) -> io::ErrorKind {
        match self.errno() {
            Some(errno) => io::Error::from(errno).kind(),
            None => io::ErrorKind::InvalidInput,
        }
    }

    /// The index of the operation for which a batch failed.
    pub fn failed_operation(&self) -> Option<usize> {
        match *self {
            Error::Batch { failed, .. } => failed,
            _ => None,
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Keeps the error kind of the errno, and the whole message.
    fn from(error: Error) -> Self {
        io::Error::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_the_failure_its_cause_and_advice() {
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
    fn message_for_a_missing_device_names_the_module() {
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
    fn advice_for_a_vm_of_another_process_says_so() {
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
                .contains("another process created the VM")
        );
    }

    #[test]
    fn message_without_advice_has_the_errno() {
        let error = Error::Unmap {
            range: 0..0x1000,
            errno: Errno::IO,
        };
        assert_eq!(error.advice(), None);
        assert!(error.to_string().starts_with("cannot unmap 0x0-0x1000: "));
    }

    #[test]
    fn batch_error_names_the_operation_and_has_its_advice() {
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
        assert!(text.starts_with("batch failed at operation 1 of 3: cannot map "));
        assert_eq!(text.matches("use replace()").count(), 1, "{text}");
    }

    #[test]
    fn access_errors_have_no_errno() {
        let error = Error::OutOfWindow {
            offset: 0x1000,
            length: 1,
            window: 0x1000,
        };
        assert_eq!((error.errno(), error.raw_os_error()), (None, None));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "0x1 bytes at 0x1000 are not within the window of 0x1000 bytes"
        );
    }

    #[test]
    fn io_error_keeps_kind_and_message() {
        let error = Error::Open {
            errno: Errno::NOENT,
        };
        let text = error.to_string();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), text);
    }
}
