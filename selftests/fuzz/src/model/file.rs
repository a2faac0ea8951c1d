// SPDX-License-Identifier: GPL-2.0

//! Files: their words, and which changes of them are possible.

use super::{Model, Verdict};
use crate::op::*;

/// A file: the first word of each cell.
#[derive(Clone)]
pub struct File {
    pub kind: Kind,
    /// In cells.
    pub size: u64,
    pub cells: Vec<u64>,
    /// It was lent, and is no longer.
    pub taken_back: bool,
}

impl File {
    /// A file of `pages` pages that can grow to `most`.
    pub fn new(kind: Kind, pages: u64, most: u64) -> Self {
        File {
            kind,
            size: pages * CELLS,
            cells: vec![0; (most * CELLS) as usize],
            taken_back: false,
        }
    }

    /// The longest that it may get, in cells.
    pub fn most(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Whether a mapping has memory at this page.
    pub fn has(&self, page: u64) -> bool {
        page * CELLS < self.size && !self.taken_back
    }

    /// Whether a registration of all can begin at this page: where the file has one, or the
    /// memory that was lent, whatever is mapped there.
    pub fn begins(&self, page: u64) -> bool {
        match self.kind {
            Kind::Lent => page * CELLS < self.most(),
            _ => self.has(page),
        }
    }

    /// Whether it is undetermined if a mapping has memory at this page: tmpfs shows all of a
    /// huge page that reaches past the end of the file, if it has allocated one.
    pub fn is_undetermined(&self, page: u64) -> bool {
        self.kind == Kind::HugeTmpfs
            && !self.has(page)
            && page * CELLS < self.size.next_multiple_of(HUGE * CELLS)
    }

    /// The unit of its size and its holes, in cells.
    pub fn grain(&self) -> u64 {
        match self.kind {
            Kind::Hugetlb => HUGE * CELLS,
            Kind::Lent => CELLS,
            _ => 1,
        }
    }

    pub fn value(&self, cell: u64) -> u64 {
        self.cells.get(cell as usize).copied().unwrap_or(0)
    }
}

/// The value that a cell of a file has at the beginning; no two are the same.
pub fn first_value(file: usize, cell: u64) -> u64 {
    ((file as u64 + 1) << 56) | (cell << 32)
}

/// A value that a step has stored.
pub fn later_value(number: u32) -> u64 {
    (0x77 << 56) | (u64::from(number) << 24) | 0xabcd
}

pub(super) fn describe(value: u64) -> String {
    match value >> 56 {
        0 if value == 0 => "0".into(),
        file if file > 0 && file <= FILES as u64 && value & 0xffff_ffff == 0 => format!(
            "of cell {} of file {} at the beginning",
            (value >> 32) & 0xff_ffff,
            file - 1
        ),
        _ => format!("{value:#x}"),
    }
}

impl Model {
    pub(super) fn file(&self, file: usize) -> &File {
        self.files[file].as_ref().expect("a mapped file exists")
    }

    /// A hugetlb file grows when it is mapped for writing past its end, but only if a new
    /// part of it is mapped in the arena. That cannot be predicted, so it is not done. Nor is
    /// more mapped than was lent, or what was taken back, which other tests have.
    pub(super) fn mappable(&self, handle: Handle, offset: u64, pages: u64) -> bool {
        self.files[handle.file]
            .as_ref()
            .is_some_and(|file| match file.kind {
                Kind::Hugetlb => (offset + pages).next_multiple_of(HUGE) * CELLS <= file.size,
                Kind::Lent => !file.taken_back && (offset + pages) * CELLS <= file.most(),
                _ => true,
            })
    }

    /// Writes through the owner's mapping must be within the file, and so must all to what is
    /// lent; hugetlb files cannot be written in another way.
    pub(super) fn writable_cell(&self, file: usize, cell: u64, mapped: bool) -> bool {
        self.files[file].as_ref().is_some_and(|file| {
            if mapped || file.kind == Kind::Lent {
                cell < file.size
            } else {
                file.kind != Kind::Hugetlb && cell < file.most()
            }
        })
    }

    pub(super) fn truncatable(&self, file: usize, cells: u64) -> bool {
        self.files[file]
            .as_ref()
            .is_some_and(|file| cells <= file.most() && cells % file.grain() == 0)
    }

    pub(super) fn punchable(&self, file: usize, at: Span) -> bool {
        self.files[file].as_ref().is_some_and(|file| {
            at.count > 0
                && at.end() <= file.most()
                && at.start % file.grain() == 0
                && at.count % file.grain() == 0
        })
    }

    pub(super) fn is_lent(&self, file: usize) -> bool {
        let file = self.files[file].as_ref();
        file.is_some_and(|file| file.kind == Kind::Lent && !file.taken_back)
    }

    pub(super) fn take_back(&mut self, file: usize) {
        if let Some(file) = &mut self.files[file] {
            file.taken_back = true;
        }
    }

    pub(super) fn write(&mut self, file: usize, cell: u64, value: u64) {
        if let Some(file) = &mut self.files[file] {
            file.cells[cell as usize] = value;
            file.size = file.size.max(cell + 1);
        }
    }

    pub(super) fn truncate(&mut self, file: usize, cells: u64) {
        if let Some(file) = &mut self.files[file] {
            file.cells[cells as usize..].fill(0);
            file.size = cells;
        }
        self.copies.truncate(file, cells.div_ceil(CELLS));
    }

    pub(super) fn punch(&mut self, file: usize, at: Span) {
        if let Some(file) = &mut self.files[file] {
            file.cells[at.start as usize..at.end() as usize].fill(0);
        }
    }

    pub(super) fn check_file(&self, number: usize, seen: &Seen) -> Verdict {
        let file = self.file(number);
        let Seen::Content(size, words) = seen else {
            return Err(format!("expected the content, got {seen:?}"));
        };
        if *size != file.size {
            return Err(format!("expected {} cells, got {size}", file.size));
        }
        let mut got = vec![0; file.cells.len()];
        for (cell, word) in words {
            got[*cell as usize] = *word;
        }
        match (0..)
            .zip(file.cells.iter().zip(&got))
            .find(|(_, (a, b))| a != b)
        {
            None => Ok(()),
            Some((cell, (wanted, got))) => Err(format!(
                "cell {cell} of file {number}: expected {}, got {}",
                describe(*wanted),
                describe(*got)
            )),
        }
    }
}
