// SPDX-License-Identifier: GPL-2.0

//! What calls on a file learn of the layout by walking over it: fsync(), lseek(), and whoever reads
//! fdinfo.
//!
//! Locks: the install lock, for reading, for a few ranges at a time.

use core::ops::Range;

use kernel::prelude::*;

use crate::{
    layout::SpacePage,
    space::{
        change::Old,
        Space, //
    },
};

impl Space {
    /// Has the files that are shown in `range` write what was changed in them to where they are
    /// kept; the first error of any. May take as long as the files do, and holds no lock
    /// meanwhile.
    pub(crate) fn sync(&self, range: Range<SpacePage>, datasync: bool) -> Result {
        let mut result = Ok(());
        let mut page = range.start;
        loop {
            let shown = self.install.read().layout.next(page).cloned();
            let Some(shown) = shown.filter(|shown| shown.start < range.end) else {
                break;
            };
            page = shown.end;
            if let Err(error) = shown
                .segment
                .sync(shown.offset..shown.offset_end(), datasync)
            {
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Copies what is shown from `page` on, as much as `into` has room for.
    pub(crate) fn copy_ranges(&self, page: SpacePage, into: &mut KVec<Old>) {
        let shown = self.install.read();
        for range in shown.layout.ranges(page..SpacePage::new(self.pages)) {
            if into.push_within_capacity(range.clone()).is_err() {
                break;
            }
        }
    }

    /// The first page of `range` that is shown.
    pub(crate) fn next_shown(&self, range: &Range<SpacePage>) -> Option<SpacePage> {
        let shown = self.install.read();
        let next = shown.layout.next(range.start)?;
        let page = next.start.max(range.start);
        (page < range.end).then_some(page)
    }

    /// The first page of `range` that is not shown, or its end. `EINTR`: a signal came.
    pub(crate) fn next_hole(&self, range: &Range<SpacePage>) -> Result<SpacePage> {
        let mut page = range.start;
        while page < range.end && !current!().signal_pending() {
            match self.install.read().layout.lookup(page) {
                Some(shown) => page = shown.end,
                None => return Ok(page),
            }
        }
        match page < range.end {
            true => Err(EINTR),
            false => Ok(range.end),
        }
    }
}
