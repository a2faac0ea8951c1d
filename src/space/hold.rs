// SPDX-License-Identifier: GPL-2.0

//! The install lock, held for a change as large as it may be, and let go every now and then.
//!
//! What a change touches is noted as being revoked before the lock is let go for the first time. So
//! nobody sees the change half made: what is installed there stays until it is zapped, and nothing
//! is installed before all is done. A change that is done before that notes nothing.
//!
//! Locks: `install`, for writing; `ops` is held by the caller.

use core::ops::Range;

use crate::{
    layout::{
        FewRanges,
        Layout,
        SpacePage, //
    },
    segment::list::Ops,
    space::{
        store::Kernel,
        Shown,
        Space, //
    },
    sys::rwlock::WriteGuard,
};

/// How many ranges are changed before the lock is let go: some hundred thousand instructions.
pub(super) const PIECE: usize = 128;

/// The install lock, held for writing.
pub(super) struct Hold<'a> {
    space: &'a Space,
    /// None for a moment only.
    shown: Option<WriteGuard<'a, Shown>>,
    /// What the change touches. It is put together when the lock is to be let go: most changes are
    /// done before that.
    changes: &'a dyn Fn() -> FewRanges,
    /// How many ranges more may be changed before the lock is let go.
    left: usize,
    let_go: bool,
}

impl<'a> Hold<'a> {
    /// Goes on with the lock held, for a change of no more than `changes` says.
    pub(super) fn new(
        space: &'a Space,
        _ops: &Ops,
        shown: WriteGuard<'a, Shown>,
        changes: &'a dyn Fn() -> FewRanges,
    ) -> Self {
        Hold {
            space,
            shown: Some(shown),
            changes,
            left: PIECE,
            let_go: false,
        }
    }

    /// What the lock guards.
    pub(super) fn shown(&mut self) -> &mut Shown {
        self.shown.get_or_insert_with(|| self.space.install.write())
    }

    /// Whether the lock was let go meanwhile, so that a notifier may have looked for what was away.
    pub(super) fn was_let_go(&self) -> bool {
        self.let_go
    }

    /// The layout.
    pub(super) fn layout(&mut self) -> &mut Layout<Kernel> {
        &mut self.shown().layout
    }

    /// So many ranges have been changed, or looked at, since this was said last. The lock may be
    /// let go: what was found under it must be found again.
    pub(super) fn spend(&mut self, ranges: usize) {
        self.left = self.left.saturating_sub(ranges);
        if self.left == 0 {
            self.left = PIECE;
            if !self.let_go {
                let changes = (self.changes)();
                let shown = self.shown();
                shown.revoking = changes;
                shown.half_made = true;
            }
            self.shown = None;
            self.let_go = true;
        }
    }

    /// The first of the pieces in which `pages` are changed: it ends where a range does, or with
    /// them. And how many ranges it has.
    pub(super) fn piece(&mut self, pages: &Range<SpacePage>) -> (Range<SpacePage>, usize) {
        let mut count = 0;
        let mut end = pages.start;
        for range in self.layout().ranges(pages.clone()).take(PIECE) {
            count += 1;
            end = range.end;
        }
        if count < PIECE || end > pages.end {
            end = pages.end;
        }
        (pages.start..end, count)
    }

    /// How many ranges have pages among `pages`; [`None`] if there are more than `most`.
    pub(super) fn count(&mut self, pages: &Range<SpacePage>, most: usize) -> Option<usize> {
        let (mut rest, mut total) = (pages.clone(), 0);
        while !rest.is_empty() {
            let (piece, count) = self.piece(&rest);
            total += count;
            if total > most {
                return None;
            }
            rest.start = piece.end;
            self.look(count);
        }
        Some(total)
    }

    /// So many ranges have been looked at, which is less than to change them.
    pub(super) fn look(&mut self, ranges: usize) {
        self.spend(ranges / 8);
    }

    /// Lets the lock go, with `revoke` noted as being revoked: all that is changed, if any of it is
    /// to be zapped. Says whether the layout has memory to give back: see [`Space::shed`].
    pub(super) fn finish(mut self, revoke: Option<&FewRanges>) -> bool {
        let shown = self.shown();
        shown.half_made = false;
        if let Some(changes) = revoke {
            shown.revoking = changes.clone();
        } else if !shown.revoking.is_empty() {
            shown.revoking = FewRanges::none();
        }
        shown.layout.has_surplus()
    }
}
