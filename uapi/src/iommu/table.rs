// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped in a domain, as its user sees it: the kernel knows files, not guest
//! addresses.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::Mapping;
use crate::Prot;

/// Mappings by the IOVA at which they begin. They do not overlap.
#[derive(Debug, Default)]
pub(super) struct Table {
    mappings: BTreeMap<u64, Mapped>,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    length: u64,
    gpa: u64,
    prot: Prot,
}

impl Mapped {
    /// What is left of it without its first bytes.
    fn without_first(self, bytes: u64) -> Mapped {
        Mapped {
            length: self.length - bytes,
            gpa: self.gpa + bytes,
            ..self
        }
    }
}

impl Table {
    /// Adds what the kernel has mapped, which is neither empty nor mapped already.
    pub(super) fn add(&mut self, mappings: &[Mapping]) {
        for mapping in mappings {
            let mapped = Mapped {
                length: mapping.length,
                gpa: mapping.gpa,
                prot: mapping.prot,
            };
            self.mappings.insert(mapping.iova, mapped);
        }
    }

    /// Removes a range of IOVAs. Mappings that extend beyond it are cut.
    pub(super) fn remove(&mut self, iovas: &Range<u64>) {
        if iovas.is_empty() {
            return;
        }
        // What is unmapped is nearly always what was mapped: one search then, and not four.
        match self.mappings.entry(iovas.start) {
            Entry::Occupied(entry) if entry.get().length == iovas.end - iovas.start => {
                entry.remove();
                return;
            }
            _ => (),
        }
        // The one that begins before the range is cut, and what is behind it is put back.
        if let Some((&start, mapped)) = self.mappings.range_mut(..iovas.start).next_back() {
            let whole = *mapped;
            if start + whole.length > iovas.start {
                mapped.length = iovas.start - start;
                self.put_rest(start, whole, iovas.end);
            }
        }
        while let Some((&start, &mapped)) = self.mappings.range(iovas.clone()).next() {
            self.mappings.remove(&start);
            self.put_rest(start, mapped, iovas.end);
        }
    }

    /// Puts back what a mapping has from `end` on.
    fn put_rest(&mut self, start: u64, mapped: Mapped, end: u64) {
        if start + mapped.length > end {
            self.mappings.insert(end, mapped.without_first(end - start));
        }
    }

    pub(super) fn clear(&mut self) {
        self.mappings.clear();
    }

    /// All mappings, by IOVA.
    pub(super) fn all(&self) -> impl Iterator<Item = Mapping> {
        self.mappings.iter().map(|(&iova, mapped)| Mapping {
            iova,
            gpa: mapped.gpa,
            length: mapped.length,
            prot: mapped.prot,
        })
    }

    /// The IOVAs at which a range of guest addresses is mapped.
    pub(super) fn iovas_of(&self, gpa: &Range<u64>) -> Vec<Range<u64>> {
        let part = |mapping: Mapping| {
            let start = mapping.gpa.max(gpa.start);
            let end = (mapping.gpa + mapping.length).min(gpa.end);
            let iova = |gpa: u64| mapping.iova + (gpa - mapping.gpa);
            (start < end).then(|| iova(start)..iova(end))
        };
        self.all().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of IOVA, guest address and length.
    fn table(mappings: &[(u64, u64, u64)]) -> Table {
        let mut table = Table::default();
        for &(iova, gpa, length) in mappings {
            let prot = Prot::READ;
            table.add(&[Mapping {
                iova,
                gpa,
                length,
                prot,
            }]);
        }
        table
    }

    fn all(table: &Table) -> Vec<(u64, u64, u64)> {
        table
            .all()
            .map(|mapping| (mapping.iova, mapping.gpa, mapping.length))
            .collect()
    }

    #[test]
    fn mappings_are_cut_at_what_is_removed() {
        let before = [(0x1000, 0x81000, 0x3000), (0x4000, 0x20000, 0x2000)];
        let after = |iovas| {
            let mut table = table(&before);
            table.remove(&iovas);
            all(&table)
        };
        assert_eq!(after(0..0x1000), before);
        assert_eq!(after(0x3000..0x3000), before);
        assert_eq!(after(0..0x10000), []);
        assert_eq!(after(0x1000..0x4000), [before[1]]);
        assert_eq!(
            after(0x2000..0x3000),
            [
                (0x1000, 0x81000, 0x1000),
                (0x3000, 0x83000, 0x1000),
                before[1]
            ]
        );
        assert_eq!(
            after(0x3000..0x5000),
            [(0x1000, 0x81000, 0x2000), (0x5000, 0x21000, 0x1000)]
        );
        assert_eq!(after(0x6000..0x7000), before);
    }

    #[test]
    fn iovas_of_guest_addresses_are_parts_of_mappings() {
        let table = table(&[(0x1000, 0x8000, 0x3000), (0x9000, 0x9000, 0x1000)]);
        assert_eq!(
            table.iovas_of(&(0x9000..0xa000)),
            [0x2000..0x3000, 0x9000..0xa000]
        );
        assert_eq!(table.iovas_of(&(0..0x8000)), []);
        assert_eq!(
            table.iovas_of(&(0..u64::MAX)),
            [0x1000..0x4000, 0x9000..0xa000]
        );
    }
}
