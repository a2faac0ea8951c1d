// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Joins adjacent ranges: the kernel's work is for each range, whatever its length.

use std::ops::Range;

use crate::page_size;

/// Joins ranges that are adjacent or overlap. If the kernel would refuse one of them,
/// the result is the ranges as they are.
pub(super) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let wrong =
        |range: &Range<u64>| range.is_empty() || (range.start | range.end) % page_size() != 0;
    if ranges.iter().any(wrong) {
        return ranges;
    }
    // In place, since a request has few ranges; `Pending` is for many.
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, joined| {
        let touches = next.start <= joined.end;
        if touches {
            joined.end = joined.end.max(next.end);
        }
        touches
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn page(index: u64) -> Range<u64> {
        index * PAGE..(index + 1) * PAGE
    }

    #[test]
    fn adjacent_ranges_are_joined() {
        let near = joined(vec![page(2), page(0), page(1), page(4)]);
        assert_eq!(near, [0..3 * PAGE, page(4)]);
        let apart = joined(vec![page(5), 0..4 * PAGE, page(1)]);
        assert_eq!(apart, [0..4 * PAGE, page(5)]);
        assert_eq!(joined(Vec::new()), []);
    }

    #[test]
    fn ranges_that_the_kernel_refuses_are_not_joined() {
        for wrong in [PAGE..PAGE, PAGE..PAGE + 1, 1..PAGE] {
            let ranges = vec![page(0), wrong];
            assert_eq!(joined(ranges.clone()), ranges);
        }
    }
}
