// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can fail, and with what it is told.

mod advice;
mod message;

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
