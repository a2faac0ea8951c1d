// SPDX-License-Identifier: GPL-2.0

//! So many ranges of pages and no more, which stand for what was added and nothing else.
//!
//! All costs are O(`N`).

use super::page::{
    Pages,
    SpacePage, //
};
use core::ops::Range;

/// Pages in no more than `N` ranges.
///
/// # Invariants
///
/// The first `len` ranges are not empty, are in order, and do not touch each other.
#[derive(Clone)]
pub(crate) struct RangeSet<const N: usize> {
    len: usize,
    ranges: [Range<SpacePage>; N],
}

impl<const N: usize> RangeSet<N> {
    /// No pages.
    pub(crate) const fn none() -> Self {
        Self {
            len: 0,
            ranges: [const { SpacePage::FIRST..SpacePage::FIRST }; N],
        }
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<SpacePage>> {
        self.ranges.iter().take(self.len)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The smallest range around those of `pages` that are among them.
    pub(crate) fn among(&self, pages: &Range<SpacePage>) -> Range<SpacePage> {
        let parts = self.iter().map(|range| range.intersect(pages));
        parts.fold(Pages::none(), Pages::hull)
    }

    /// Whether any of `pages` is among them.
    pub(crate) fn overlaps(&self, pages: &Range<SpacePage>) -> bool {
        self.iter().any(|range| range.overlaps(pages))
    }

    /// Adds a range behind all others; says whether there was room.
    fn push(&mut self, range: Range<SpacePage>) -> bool {
        if range.is_empty() {
            return true;
        }
        let Some(place) = self.ranges.get_mut(self.len) else {
            return false;
        };
        *place = range;
        self.len += 1;
        true
    }

    /// Adds `pages`. False, and nothing is changed, where that would take too many ranges.
    #[must_use]
    pub(crate) fn add(&mut self, pages: &Range<SpacePage>) -> bool {
        if pages.is_empty() {
            return true;
        }
        let touches =
            |range: &Range<SpacePage>| range.start <= pages.end && pages.start <= range.end;
        let joined = self
            .iter()
            .filter(|range| touches(range))
            .fold(pages.clone(), |joined, range| joined.hull(range.clone()));
        let mut new = Self::none();
        let mut fits = true;
        for range in self.iter().filter(|range| range.end < joined.start) {
            fits &= new.push(range.clone());
        }
        fits &= new.push(joined.clone());
        for range in self.iter().filter(|range| range.start > joined.end) {
            fits &= new.push(range.clone());
        }
        if fits {
            *self = new;
        }
        fits
    }

    /// Removes `pages`. False, and nothing is changed, where that would take too many ranges.
    #[must_use]
    pub(crate) fn remove(&mut self, pages: &Range<SpacePage>) -> bool {
        if pages.is_empty() || !self.overlaps(pages) {
            return true;
        }
        let mut new = Self::none();
        let mut fits = true;
        for range in self.iter() {
            if range.overlaps(pages) {
                fits &= new.push(range.start..pages.start.min(range.end));
                fits &= new.push(pages.end.max(range.start)..range.end);
            } else {
                fits &= new.push(range.clone());
            }
        }
        if fits {
            *self = new;
        }
        fits
    }
}
