// SPDX-License-Identifier: GPL-2.0

//! What a change does for those who wait at holes, when it has been made and zapped: what is
//! mapped is poisoned no longer, and who waits there looks again.
//!
//! Locks: under `ops`, that of the list (`watch.rs`) and `install`, one after the other.

use core::ops::Range;

use crate::{
    layout::{
        FewRanges,
        Pages,
        SpacePage, //
    },
    space::{
        change::Change,
        Ops,
        Space, //
    },
};

impl Space {
    /// Changes have been `made`, of no more than the pages that `all` puts together, and what they
    /// took away was zapped: has those look again who wait there. If none has been, because it was
    /// refused, somebody may still have seen the pages being revoked.
    pub(super) fn wake<'a>(
        &self,
        _ops: &Ops,
        made: impl Iterator<Item = &'a Change>,
        all: impl FnOnce() -> FewRanges,
    ) {
        if self.watch.is_watched() {
            for pages in made.filter_map(Change::mapped) {
                self.unpoison_mapped(pages);
            }
            self.watch.wake(&all());
        }
    }

    /// What is mapped is not poisoned any more. Not all of `pages` need be: a batch may have
    /// unmapped what it had mapped.
    fn unpoison_mapped(&self, mut pages: Range<SpacePage>) {
        while self.watch.is_poisoned(&pages) {
            let shown = self.install.read();
            let Some(part) = shown.layout.next(pages.start) else {
                return;
            };
            let mapped = part.start..part.end;
            drop(shown);
            // An error says that nobody watches any more, or that this would leave too many ranges.
            let _ = self.watch.unpoison(&mapped.intersect(&pages));
            pages.start = mapped.end;
        }
    }
}
