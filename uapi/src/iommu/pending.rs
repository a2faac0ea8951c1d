// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The deferred unmaps of a domain: ranges that devices can still reach, until one
//! batch unmaps all of them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Batch;

/// Ranges of the address space that will be unmapped, from start to end. No two of
/// them are adjacent or overlap.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ranges: BTreeMap<u64, u64>,
}

impl Pending {
    /// Adds a range, and joins it with adjacent ones: the buffers of a request are
    /// often adjacent.
    pub(super) fn add(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.ranges.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.ranges.remove(&start);
            range = start.min(range.start)..end.max(range.end);
        }
        self.ranges.insert(range.start, range.end);
    }

    /// The number of ranges.
    pub(super) fn count(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let last = self.ranges.range(..range.end).next_back();
        last.is_some_and(|(_, &end)| end > range.start)
    }

    fn all(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Adds the unmaps of all of them to a batch.
    pub(super) fn unmap_all(&self, batch: &mut Batch<'_>) {
        for range in self.all() {
            batch.push_unmap(&range);
        }
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_pending_ranges_are_joined() {
        let mut pending = Pending::default();
        let mut add = |range, all: &[(u64, u64)]| {
            pending.add(range);
            let is = pending.ranges.iter().map(|(&start, &end)| (start, end));
            assert_eq!(is.collect::<Vec<_>>(), all);
        };
        add(0x1000..0x2000, &[(0x1000, 0x2000)]);
        add(0x2000..0x3000, &[(0x1000, 0x3000)]);
        add(0x8000..0x9000, &[(0x1000, 0x3000), (0x8000, 0x9000)]);
        add(0x7000..0x8000, &[(0x1000, 0x3000), (0x7000, 0x9000)]);
        add(0x2000..0x4000, &[(0x1000, 0x4000), (0x7000, 0x9000)]);
        add(0x7800..0x8000, &[(0x1000, 0x4000), (0x7000, 0x9000)]);
        add(0..0x1000, &[(0, 0x4000), (0x7000, 0x9000)]);
        assert!(pending.overlaps(&(0x3000..0x5000)));
        assert!(pending.overlaps(&(0x6000..0x7001)));
        assert!(pending.overlaps(&(0..0x10000)));
        assert!(!pending.overlaps(&(0x4000..0x7000)));
        assert!(!pending.overlaps(&(0x9000..0xa000)));
        pending.add(0x3000..0x7800);
        assert!(pending.all().eq(std::iter::once(0..0x9000)));
    }
}
