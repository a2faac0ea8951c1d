// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The deferred unmaps of a domain: ranges that devices can still reach, until one
//! batch unmaps all of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Domain, Mapping, State};
use crate::{Batch, Errno, Error, Result, page_size};

/// The most deferred unmaps that can be pending: the next one flushes them.
const MOST_PENDING: usize = 1024;

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

impl Domain {
    /// Unmaps a range of IOVAs at the next [`flush()`](Domain::flush). Until then, or
    /// until the range is mapped again, devices can still reach what is mapped there:
    /// the guest must not yet use that memory for anything that they must not see or
    /// change.
    ///
    /// At most 1024 such ranges are pending: one more flushes all of them first.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::Unmap`]: EINVAL if a number is not a
    /// multiple of the page size or the length is 0; and those of a flush. The range is
    /// mapped as before then.
    pub fn unmap_later(&self, iova: u64, length: u64) -> Result<()> {
        let mut state = self.state();
        let range = self.offsets(iova, length)?;
        if length == 0 || (range.start | length) % page_size() != 0 {
            // A range that the kernel refuses would make the flush of all others fail.
            let errno = Errno::INVAL;
            return Err(Error::Unmap { range, errno });
        }
        // Before anything is changed, since it may fail.
        if state.pending.count() >= MOST_PENDING {
            self.flush_all(&mut state)?;
        }
        state.table.remove(&(iova..iova + length));
        self.translate_no_more(iova, length);
        state.pending.add(range);
        Ok(())
    }

    /// Makes all pending unmaps final, in one step. When this returns, no device can
    /// reach what was mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::Batch`]; the unmaps are still pending then.
    pub fn flush(&self) -> Result<()> {
        self.flush_all(&mut self.state())
    }

    /// The same, with the state locked by the caller.
    pub(super) fn flush_all(&self, state: &mut State) -> Result<()> {
        let mut batch = self.inner.space.batch();
        state.pending.unmap_all(&mut batch);
        batch.commit()?;
        state.pending.clear();
        Ok(())
    }

    /// As [`flush()`](Domain::flush) and then [`map_all()`](Domain::map_all), but in one step
    /// and one call of the kernel, for a guest that asks for deferred unmaps: those of a
    /// request end with the maps of the next. When this returns, no device can reach what
    /// an unmap was pending of.
    ///
    /// # Errors
    ///
    /// As [`map()`](Domain::map), in [`Error::Batch`] if anything was pending: its index counts
    /// the unmaps first, of which adjacent ones are one. They are still pending then.
    pub fn flush_and_map_all(&self, mappings: &[Mapping]) -> Result<()> {
        self.map_in_one_step(mappings, true)
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
