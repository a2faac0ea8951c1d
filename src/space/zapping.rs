// SPDX-License-Identifier: GPL-2.0

//! Many places to be zapped, one after the other. Each zap asks every attachment that maps the
//! place, so many places in many attachments take their product, though they take memory for their
//! sum only: a page that is shown in 100,000 places of 10,000 attachments would hold up whoever
//! punches it out for minutes. So when so many have been asked, what is left is zapped as a few
//! ranges around it. That takes out entries in vain, which come back with a fault each; it takes as
//! long as what is present there, for which somebody has paid.
//!
//! Takes no lock.

use core::ops::Range;

use crate::layout::{
    FewRanges,
    SpacePage, //
};

/// How many attachments are asked before what is left is zapped as a few ranges.
const ASKED: usize = 1 << 14;

/// What is being zapped.
pub(super) struct Zapping {
    /// How many more attachments are asked one place at a time.
    left: usize,
    /// What is left.
    rest: FewRanges,
}

impl Zapping {
    pub(super) fn new() -> Zapping {
        Zapping {
            left: ASKED,
            rest: FewRanges::none(),
        }
    }

    /// Zaps a place with `zap`, which says how many attachments it has asked, or notes it.
    pub(super) fn add(
        &mut self,
        pages: &Range<SpacePage>,
        zap: impl FnOnce(&Range<SpacePage>) -> usize,
    ) {
        if self.left > 0 {
            self.left = self.left.saturating_sub(zap(pages));
        } else {
            self.rest.add(pages);
        }
    }

    /// Zaps what was noted.
    pub(super) fn finish(self, mut zap: impl FnMut(&Range<SpacePage>) -> usize) {
        for pages in self.rest.iter() {
            zap(pages);
        }
    }
}
