// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM of a domain: ranges of guest physical addresses, each a range of a file. How it
//! is added and removed, and how a mapping is cut to it.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::fstat;

use super::Domain;
use super::joined::joined;
use crate::{Batch, Errno, Error, Prot, Result};

/// The most operations of a batch.
const MOST_OPERATIONS: usize = 65536;

/// A part of guest RAM.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) gpa: Range<u64>,
    pub(super) file: RamFile,
    pub(super) offset: u64,
}

/// A file that contains RAM.
#[derive(Debug)]
pub(super) struct RamFile {
    pub(super) fd: OwnedFd,
    /// Its file system and inode number.
    id: (u64, u64),
}

impl RamFile {
    /// A duplicate of a file descriptor.
    pub(super) fn of(file: impl AsFd) -> Result<RamFile> {
        let duplicate = |error: std::io::Error| Error::Duplicate {
            errno: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
        };
        let fd = file.as_fd().try_clone_to_owned().map_err(duplicate)?;
        let stat = fstat(&fd).map_err(|errno| Error::FileLength { errno })?;
        Ok(RamFile {
            fd,
            id: (stat.st_dev, stat.st_ino),
        })
    }
}

impl Domain {
    /// Adds guest RAM: `length` bytes at the guest physical address `gpa` are those
    /// at `offset` of a file, open for reading and writing. The file is registered
    /// with the address space; a device cannot see it until it is mapped.
    ///
    /// # Errors
    ///
    /// As [`Registration::commit()`](crate::Registration::commit);
    /// [`Error::Duplicate`]; [`Error::RamOverlaps`] if the range overlaps RAM that
    /// was added before.
    pub fn add_ram(&self, gpa: u64, file: impl AsFd, offset: u64, length: u64) -> Result<()> {
        let file = RamFile::of(file)?;
        let gpa = gpa..gpa
            .checked_add(length)
            .ok_or(Error::NotRam { gpa, length })?;
        let mut state = self.state();
        if state.ram.iter().any(|ram| overlap(&ram.gpa, &gpa)) {
            return Err(Error::RamOverlaps { gpa });
        }
        let ram = Ram { gpa, file, offset };
        self.register(&ram)?;
        state.ram.push(ram);
        state.ram.sort_by_key(|ram| ram.gpa.start);
        Ok(())
    }

    /// Removes guest RAM that was added with the same `gpa` and `length`, in bytes: the guest
    /// has unplugged it. What is mapped of it is unmapped first. When this returns, no device
    /// can reach it. Pending unmaps become final.
    ///
    /// The file stays registered while other RAM is in it.
    ///
    /// # Errors
    ///
    /// [`Error::NotRam`] if no RAM was added so; [`Error::Batch`]: ENOMEM. The RAM is there
    /// still, but some of it may have been unmapped.
    pub fn remove_ram(&self, gpa: u64, length: u64) -> Result<()> {
        let mut state = self.state();
        let is_it = |ram: &Ram| ram.gpa.start == gpa && ram.gpa.end - gpa == length;
        let at = state
            .ram
            .iter()
            .position(is_it)
            .ok_or(Error::NotRam { gpa, length })?;
        // It may be mapped in ranges that are to be unmapped, too.
        self.flush_all(&mut state)?;
        let iovas = joined(state.table.iovas_of(&state.ram[at].gpa));
        for some in iovas.chunks(MOST_OPERATIONS) {
            let mut batch = self.inner.space.batch();
            for range in some {
                batch = batch.unmap(self.offsets(range.start, range.end - range.start)?);
            }
            batch.commit()?;
            for range in some {
                state.table.remove(range);
                self.translate_no_more(range.start, range.end - range.start);
            }
        }
        let ram = state.ram.remove(at);
        // A registration is of an open file, all of which end together, and parts of RAM may
        // share one: whether they do cannot be told of two file descriptors of the same file.
        // ENOENT if another part has ended it.
        let _ = self.inner.space.unregister(&ram.file.fd);
        let others = state.ram.iter();
        for other in others.filter(|other| other.file.id == ram.file.id) {
            // What is not registered can be mapped all the same.
            let _ = self.register(other);
        }
        Ok(())
    }

    fn register(&self, ram: &Ram) -> Result<()> {
        self.inner
            .space
            .register(&ram.file.fd)
            .offset(ram.offset)
            .length(ram.gpa.end - ram.gpa.start)
            .prot(Prot::READ_WRITE)
            .commit()
    }
}

/// A part of a mapping that lies within one part of RAM.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) ram: &'a Ram,
    /// Start of the range of the RAM's file.
    pub(super) offset: u64,
    /// Range of the address space.
    pub(super) range: Range<u64>,
}

/// Cuts a mapping to `range` of the address space at the borders of the parts of RAM.
pub(super) fn each_piece<'a>(
    ram: &'a [Ram],
    range: &Range<u64>,
    gpa: u64,
    mut each: impl FnMut(Piece<'a>),
) -> Result<()> {
    let length = range.end - range.start;
    let hole = || Error::NotRam { gpa, length };
    let end = gpa.checked_add(length).ok_or_else(hole)?;
    let mut at = gpa;
    loop {
        // The kernel refuses an empty mapping.
        let part = ram.iter().find(|ram| ram.gpa.contains(&at));
        let part = part.ok_or_else(hole)?;
        let piece_end = end.min(part.gpa.end);
        each(Piece {
            ram: part,
            offset: part.offset + (at - part.gpa.start),
            range: range.start + (at - gpa)..range.start + (piece_end - gpa),
        });
        at = piece_end;
        if at == end {
            return Ok(());
        }
    }
}

/// Adds the operations to a batch that map `range` of the address space to RAM.
pub(super) fn add<'a>(
    batch: &mut Batch<'a>,
    ram: &'a [Ram],
    range: &Range<u64>,
    gpa: u64,
    prot: Prot,
    populate: bool,
) -> Result<()> {
    each_piece(ram, range, gpa, |piece| {
        batch.push_map(
            &piece.ram.file.fd,
            piece.offset,
            piece.range,
            prot,
            populate,
        );
    })
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn ram(gpa: Range<u64>, offset: u64) -> Ram {
        Ram {
            gpa,
            file: RamFile::of(File::open("/dev/null").unwrap()).unwrap(),
            offset,
        }
    }

    #[test]
    fn mapping_is_cut_at_the_borders_of_ram() {
        let ram = [ram(0..0x4000, 0x1000), ram(0x4000..0x8000, 0x9000)];
        let cut = |gpa, length| {
            let mut pieces = Vec::new();
            each_piece(&ram, &(0x100000..0x100000 + length), gpa, |piece| {
                pieces.push((piece.offset, piece.range));
            })
            .map(|()| pieces)
        };
        assert_eq!(cut(0x1000, 0x2000), Ok(vec![(0x2000, 0x100000..0x102000)]));
        assert_eq!(
            cut(0x3000, 0x2000),
            Ok(vec![
                (0x4000, 0x100000..0x101000),
                (0x9000, 0x101000..0x102000)
            ])
        );
        for (gpa, length) in [(0x7000, 0x2000), (0x8000, 0x1000), (u64::MAX, 0x1000)] {
            assert_eq!(cut(gpa, length), Err(Error::NotRam { gpa, length }));
        }
    }
}
