// SPDX-License-Identifier: GPL-2.0

//! A few ranges of pages, which stand for more: what is being changed, and what was absorbed.

use super::page::{
    Pages,
    SpacePage, //
};
use core::ops::Range;

/// How many ranges are told apart.
const FEW: usize = 4;

/// Pages of which some may not have been added: no more than a few ranges are told apart, and what
/// is added beyond them extends the one that it extends least.
#[derive(Clone)]
pub(crate) struct FewRanges {
    /// The smallest range around all of them.
    hull: Range<SpacePage>,
    /// The first that is empty has none after it.
    ranges: [Range<SpacePage>; FEW],
    /// Whether all of their pages were added.
    exact: bool,
}

impl FewRanges {
    /// No pages.
    pub(crate) fn none() -> Self {
        Self {
            hull: Pages::none(),
            ranges: [const { SpacePage::FIRST..SpacePage::FIRST }; FEW],
            exact: true,
        }
    }

    /// Adds `pages`.
    pub(crate) fn add(&mut self, pages: &Range<SpacePage>) {
        if pages.is_empty() {
            return;
        }
        self.hull = self.hull.clone().hull(pages.clone());
        // The one that it extends least, if it touches none and no place is free.
        let (mut nearest, mut least) = (0, u64::MAX);
        for (index, range) in self.ranges.iter_mut().enumerate() {
            if range.is_empty() {
                *range = pages.clone();
                return;
            }
            let before = (pages.start..range.start).count();
            let after = (range.end..pages.end).count();
            if range.start <= pages.end && pages.start <= range.end {
                *range = range.clone().hull(pages.clone());
                return;
            }
            if before + after < least {
                (nearest, least) = (index, before + after);
            }
        }
        if let Some(range) = self.ranges.get_mut(nearest) {
            *range = range.clone().hull(pages.clone());
            self.exact = false;
        }
    }

    /// Removes `pages`. Where that would leave more ranges than are told apart, what lies in the
    /// middle of one stays.
    pub(crate) fn remove(&mut self, pages: &Range<SpacePage>) {
        if !self.overlaps(pages) {
            return;
        }
        let free = self.ranges.iter().filter(|range| range.is_empty()).count();
        let cuts = |range: &&Range<SpacePage>| range.start < pages.start && pages.end < range.end;
        let may_cut = self.ranges.iter().filter(cuts).count() <= free;
        let old = core::mem::replace(self, Self::none());
        for range in old.ranges {
            if cuts(&&range) && !may_cut {
                self.add(&range);
                continue;
            }
            self.add(&(range.start..range.end.min(pages.start)));
            self.add(&(range.start.max(pages.end)..range.end));
        }
        self.exact = old.exact;
    }

    /// Whether all pages among them were added.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The ranges.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<SpacePage>> {
        self.ranges.iter().filter(|range| !range.is_empty())
    }

    /// The smallest range around those of `pages` that are among them.
    pub(crate) fn among(&self, pages: &Range<SpacePage>) -> Range<SpacePage> {
        if !self.hull.overlaps(pages) {
            return Pages::none();
        }
        let parts = self.ranges.iter().map(|range| range.intersect(pages));
        parts.fold(Pages::none(), Pages::hull)
    }

    /// Whether all of `other` are among them.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let within = |outer: &Range<SpacePage>, inner: &Range<SpacePage>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        other
            .iter()
            .all(|inner| self.iter().any(|outer| within(outer, inner)))
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.hull.is_empty()
    }

    /// Whether any of `pages` is among them.
    #[inline]
    pub(crate) fn overlaps(&self, pages: &Range<SpacePage>) -> bool {
        self.hull.overlaps(pages) && self.ranges.iter().any(|range| range.overlaps(pages))
    }
}
