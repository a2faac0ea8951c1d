// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of a DAX window, each with the errno for the guest.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::Errno;

/// Why a window could not be changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The place is empty, not aligned to pages, or not within the window.
    OutOfWindow {
        /// The place, in bytes from the start of the window.
        place: Range<u64>,
        /// The length of the window in bytes.
        length: u64,
    },
    /// The server could not open the file.
    Open(io::Error),
    /// A call of the address space failed.
    Space(crate::Error),
}

impl Error {
    /// The errno that a guest gets.
    pub fn errno(&self) -> Errno {
        match self {
            Error::OutOfWindow { .. } => Errno::INVAL,
            Error::Open(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Error::Space(error) => error.errno().unwrap_or(Errno::IO),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfWindow { place, length } => write!(
                f,
                "{:#x}-{:#x} is not within the DAX window of {length:#x} bytes, or not whole pages",
                place.start, place.end
            ),
            Error::Open(error) => write!(f, "cannot open the file: {error}"),
            Error::Space(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::OutOfWindow { .. } => None,
            Error::Open(error) => Some(error),
            Error::Space(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_of_the_cause_reaches_the_guest() {
        let open = Error::Open(io::Error::from_raw_os_error(30));
        assert_eq!(open.errno(), Errno::ROFS);
        // An error that no system call made.
        assert_eq!(Error::Open(io::Error::other("x")).errno(), Errno::IO);
        let space = Error::Space(crate::Error::WholeBatch {
            errno: Errno::NOMEM,
        });
        assert_eq!(space.errno(), Errno::NOMEM);
    }

    #[test]
    fn message_says_what_is_wrong_with_a_place() {
        let error = Error::OutOfWindow {
            place: 0x1000..0x3000,
            length: 0x2000,
        };
        let text = error.to_string();
        assert!(text.starts_with("0x1000-0x3000 is not within"), "{text}");
    }
}
