// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped in an address space, and what has become of it.

use std::collections::HashMap;
use std::ops::{Range, RangeBounds};
use std::os::fd::AsRawFd as _;

use rustix::fs::fsync;

use crate::call::{call, size_field};
use crate::{AddressSpace, Errno, Error, Prot, Result, sys};

/// How many mappings are asked for at a time.
const AT_A_TIME: usize = 256;

/// A mapping of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Mapped {
    /// Where it is in the address space, in bytes.
    pub range: Range<u64>,
    /// What may be done.
    pub prot: Prot,
    /// What it shows.
    pub source: Source,
    /// Where that begins in the file, or in what was lent, in bytes.
    pub offset: u64,
    /// Whether what is written there is the address space's own
    /// ([`Map::private()`](crate::Map::private)).
    pub is_private: bool,
}

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A file, by what `/proc/PID/maps` has of it.
    File {
        /// The device of the file system: major and minor number.
        device: (u32, u32),
        /// The inode number.
        inode: u64,
    },
    /// [Lent](crate::Lend) memory of a process.
    Lent,
}

/// What an address space is, and what has happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The number of the address space, which no other has had.
    pub id: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The process that created it, if that can be seen and has not ended.
    pub creator: Option<u32>,
    /// How many mappings it has.
    pub mappings: u64,
    /// How many registrations.
    pub registered: u64,
    /// How many attachments, those that are memory slots among them.
    pub attachments: u64,
    /// How many of them are memory slots.
    pub slots: u64,
    /// Page faults of attachments so far.
    pub faults: u64,
    /// Changes that took something away.
    pub revocations: u64,
    /// Changes of what is mapped that others made: truncations, reclaim and the like.
    pub invalidations: u64,
    /// How many bytes of what it shows are in memory, and have been accessed or populated.
    /// Pages of hugetlbfs and lent memory are not counted; with a module that does not say, 0.
    pub memory: u64,
    /// How many bytes of private copies it has.
    pub copies: u64,
    /// How many tasks wait at holes.
    pub waiting: u64,
    /// Where the last access was that met a hole, in bytes.
    pub last_hole: Option<u64>,
}

impl AddressSpace {
    /// What is mapped in a range (bytes, multiples of the page size), in the order of
    /// addresses, cut to the range.
    ///
    /// Of up to 256 mappings in sequence all were so at one moment; others may change the
    /// layout between these.
    ///
    /// ```no_run
    /// # use address_space::{AddressSpace, Prot};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let space = AddressSpace::new(1 << 20)?;
    /// space.map(&std::fs::File::open("/etc/os-release")?).at(0x1000).commit()?;
    /// let layout = space.layout(..)?;
    /// assert_eq!(layout[0].range, 0x1000..0x2000);
    /// assert_eq!(layout[0].prot, Prot::READ);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Layout`]: EINVAL if the range is empty, not aligned to pages, or not within
    /// the address space; ENOTTY if the loaded module is older than the call.
    pub fn layout(&self, range: impl RangeBounds<u64>) -> Result<Vec<Mapped>> {
        let range = self.bytes_of(range)?;
        let mut found = Vec::new();
        let mut place = vec![sys::address_space_range::default(); AT_A_TIME];
        let mut addr = range.start;
        loop {
            let mut argument = sys::address_space_layout {
                size: size_field::<sys::address_space_layout>(),
                addr,
                length: range.end.saturating_sub(addr),
                ranges: place.as_mut_ptr().expose_provenance() as u64,
                nr_ranges: place.len() as u32,
                range_size: size_of::<sys::address_space_range>() as u32,
                ..Default::default()
            };
            call(self, &mut argument).map_err(|errno| {
                let range = range.clone();
                Error::Layout { range, errno }
            })?;
            // No address space answers so; another file may answer anything.
            let told = place.get(..argument.nr_ranges as usize);
            let Some(told) = told.filter(|_| argument.next > addr) else {
                let errno = Errno::NOTTY;
                return Err(Error::Layout { range, errno });
            };
            found.extend(told.iter().map(Mapped::from));
            addr = argument.next;
            if addr >= range.end {
                return Ok(found);
            }
        }
    }

    /// What `/proc/self/fdinfo` says of it. The kernel lists the layout there, too, so this
    /// takes as long as that is.
    ///
    /// # Errors
    ///
    /// [`Error::Info`]: ENOENT if there is no `/proc`, EINVAL if the file descriptor is not an
    /// asfd.
    pub fn info(&self) -> Result<Info> {
        let path = format!("/proc/self/fdinfo/{}", self.as_raw_fd());
        let text = std::fs::read(path).map_err(|error| Error::Info {
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })?;
        // The paths of files are of any bytes.
        Info::parse(&String::from_utf8_lossy(&text)).ok_or(Error::Info {
            errno: Errno::INVAL,
        })
    }

    /// Where the last access was that met a hole, in bytes, if any did: see
    /// [`info()`](AddressSpace::info). Events tell more: [`watch()`](AddressSpace::watch).
    ///
    /// # Errors
    ///
    /// As for [`info()`](AddressSpace::info).
    pub fn last_hole(&self) -> Result<Option<u64>> {
        Ok(self.info()?.last_hole)
    }

    /// Has the mapped files write back what was changed in them, and waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::Sync`] with the first error of any of the files.
    pub fn sync_all(&self) -> Result<()> {
        fsync(self).map_err(|errno| Error::Sync { errno })
    }
}

impl From<&sys::address_space_range> for Mapped {
    fn from(told: &sys::address_space_range) -> Mapped {
        Mapped {
            range: told.addr..told.addr + told.length,
            prot: Prot::from_bits_retain(told.prot),
            source: match told.flags & sys::ADDRESS_SPACE_RANGE_LENT {
                0 => Source::File {
                    device: (told.dev_major, told.dev_minor),
                    inode: told.ino,
                },
                _ => Source::Lent,
            },
            offset: told.offset,
            is_private: told.flags & sys::ADDRESS_SPACE_RANGE_PRIVATE != 0,
        }
    }
}

impl Info {
    fn parse(text: &str) -> Option<Info> {
        let values: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .collect();
        let number = |key| {
            let value: &str = values.get(key)?;
            match value.trim().strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => value.trim().parse().ok(),
            }
        };
        Some(Info {
            id: number("space")?,
            length: number("length")?,
            creator: number("creator")?.try_into().ok().filter(|pid| *pid != 0),
            mappings: number("mappings")?,
            registered: number("registered")?,
            attachments: number("attachments")?,
            slots: number("slots")?,
            faults: number("faults")?,
            revocations: number("revocations")?,
            invalidations: number("invalidations")?,
            memory: number("memory").unwrap_or(0),
            copies: number("copies")?,
            waiting: number("waiting")?,
            last_hole: number("last-hole"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_is_read() {
        let text = "pos:\t0\nspace:\t5\ncreator:\t0\nlength:\t1048576\nmappings:\t2\n\
            registered:\t1\nattachments:\t3\nfaults:\t17\nrevocations:\t1\ninvalidations:\t4\n\
            deferred:\t0\nmemory:\t12288\ncopies:\t8192\nholes:\tabsorb denied\nwaiting:\t0\n\
            last-hole:\t0x20000\nslots:\t0\n\
            00000000-00001000 rw-s 00000000 /a:\tb\n";
        let info = Info::parse(text).unwrap();
        assert_eq!((info.id, info.length), (5, 1 << 20));
        assert_eq!((info.mappings, info.registered), (2, 1));
        assert_eq!((info.creator, info.last_hole), (None, Some(0x20000)));
        assert_eq!((info.memory, info.copies), (12288, 8192));
        assert_eq!(info.faults, 17);
        // That of a view has less.
        assert_eq!(Info::parse("space:\t5\nlength:\t4096\n"), None);
    }
}
