// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be wanted of memory.

use std::fmt;

use crate::sys;

/// What is wanted of the memory of a range: see
/// [`AddressSpace::advise()`](crate::AddressSpace::advise).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The address space lets go of its pages: no attachment has them installed, and
    /// nothing refers to them that would keep a memfd from being sealed.
    /// [Private](crate::Map::private) copies are given back. The files are not changed.
    DontNeed,
    /// The file gets a hole there, made as the caller: all who have the file read zeroes.
    /// The range must be mapped for writing, and not private.
    Remove,
    /// The files begin to read what is not in memory.
    WillNeed,
    /// The pages are brought into memory, to be read.
    PopulateRead,
    /// The pages are brought into memory, to be written: private ones are copied.
    PopulateWrite,
}

impl Advice {
    pub(crate) fn number(self) -> u32 {
        match self {
            Advice::DontNeed => sys::ADDRESS_SPACE_DONTNEED,
            Advice::Remove => sys::ADDRESS_SPACE_REMOVE,
            Advice::WillNeed => sys::ADDRESS_SPACE_WILLNEED,
            Advice::PopulateRead => sys::ADDRESS_SPACE_POPULATE_READ,
            Advice::PopulateWrite => sys::ADDRESS_SPACE_POPULATE_WRITE,
        }
    }
}

impl fmt::Display for Advice {
    /// What is done, as a verb.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::DontNeed => "let go of",
            Advice::Remove => "punch",
            Advice::WillNeed => "read ahead",
            Advice::PopulateRead => "populate, to be read,",
            Advice::PopulateWrite => "populate, to be written,",
        })
    }
}
