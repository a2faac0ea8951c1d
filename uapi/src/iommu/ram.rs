// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM of a domain: ranges of guest physical addresses, each a range of a file;
//! and how a mapping is cut to them.

use std::ops::Range;
use std::os::fd::OwnedFd;

use crate::{Batch, Error, Prot, Result};

/// A part of guest RAM.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) gpa: Range<u64>,
    pub(super) file: OwnedFd,
    pub(super) offset: u64,
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
        batch.push_map(&piece.ram.file, piece.offset, piece.range, prot, populate);
    })
}

pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn ram(gpa: Range<u64>, offset: u64) -> Ram {
        Ram {
            gpa,
            file: File::open("/dev/null").unwrap().into(),
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
