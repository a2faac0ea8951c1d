// SPDX-License-Identifier: GPL-2.0

//! Which pages of a segment are being invalidated, on which faults back off.
//!
//! The idiom is KVM's (`mmu_invalidate_in_progress` and the range beside it in
//! `include/linux/kvm_host.h`): a count of what is in progress, and the hull of it, which shrinks
//! only when nothing is in progress any more. It may cover pages that are not being invalidated;
//! that costs their faults a moment, and nothing can grow where nothing may be allocated.
//!
//! A range is invalidated from the moment at which the arena stops showing what it showed there
//! until every attachment has been zapped and the frames have been put. Nothing of it can be
//! installed meanwhile, so one zap after the beginning is enough. Usually the notifier's callback
//! does all of it ([`Invalidation::begin`], [`Invalidation::end`]); what it cannot do is deferred
//! to the worker ([`Invalidation::defer`]), which drains it. The three have a hull each, so that
//! a worker that is late does not keep the callbacks' hull from shrinking.
//!
//! Guarded by the install lock: changed with it held for writing, read with it held in any mode.

use core::ops::Range;

use kernel::sync::atomic::{
    ordering::*,
    Atomic, //
};

use crate::{
    layout::{
        Pages,
        SegmentPage, //
    },
    sys::{
        peek::peek,
        rwlock::{
            Held,
            WriteGuard, //
        },
        warn::warn_on_once,
    },
};

/// The smallest range around some ranges of pages. Atomic only so that it can be shared: a lock,
/// here the install lock, orders everything.
pub(super) struct Hull {
    start: Atomic<u64>,
    /// 0 for no pages.
    end: Atomic<u64>,
}

impl Hull {
    pub(super) const fn new() -> Self {
        Hull {
            start: Atomic::new(0),
            end: Atomic::new(0),
        }
    }

    pub(super) fn pages(&self) -> Range<SegmentPage> {
        let (start, end) = (peek(&self.start), peek(&self.end));
        SegmentPage::new(start)..SegmentPage::new(end)
    }

    pub(super) fn set(&self, pages: Range<SegmentPage>) {
        self.start.store(pages.start.get(), Relaxed);
        self.end.store(pages.end.get(), Relaxed);
    }

    /// Extends it by pages that are not none; says whether it had none.
    pub(super) fn extend(&self, pages: &Range<SegmentPage>) -> bool {
        let old = self.pages();
        let had_none = old.is_empty();
        self.set(old.hull(pages.clone()));
        had_none
    }
}

/// The invalidations of a segment; ranges are pages of it.
pub(crate) struct Invalidation {
    /// How many callbacks are at it, and one each if anything is pending or draining.
    in_progress: Atomic<usize>,
    /// How many callbacks are at it,
    running_count: Atomic<usize>,
    /// and around what.
    running: Hull,
    /// What was deferred, and the worker has not begun with.
    pending: Hull,
    /// What the worker is at.
    draining: Hull,
}

impl Invalidation {
    pub(crate) const fn new() -> Self {
        Self {
            in_progress: Atomic::new(0),
            running_count: Atomic::new(0),
            running: Hull::new(),
            pending: Hull::new(),
            draining: Hull::new(),
        }
    }

    fn add(counter: &Atomic<usize>, by: isize) {
        let old = peek(counter);
        if let Some(new) = old.checked_add_signed(by) {
            counter.store(new, Relaxed);
        } else {
            warn_on_once!(true);
        }
    }

    /// Whether anything of `pages` is being invalidated.
    pub(crate) fn overlaps(&self, pages: &Range<SegmentPage>, install: &impl Held) -> bool {
        self.any(install)
            && [&self.running, &self.pending, &self.draining]
                .iter()
                .any(|hull| hull.pages().overlaps(pages))
    }

    /// Whether anything is being invalidated.
    pub(crate) fn any(&self, _install: &impl Held) -> bool {
        peek(&self.in_progress) != 0
    }

    /// The caller is about to zap `pages`, which are not none.
    pub(crate) fn begin<T>(&self, pages: &Range<SegmentPage>, _install: &mut WriteGuard<'_, T>) {
        Self::add(&self.in_progress, 1);
        Self::add(&self.running_count, 1);
        self.running.extend(pages);
    }

    /// All that a callback had begun with is zapped, and the frames are put.
    pub(crate) fn end<T>(&self, _install: &mut WriteGuard<'_, T>) {
        Self::add(&self.in_progress, -1);
        Self::add(&self.running_count, -1);
        if peek(&self.running_count) == 0 {
            self.running.set(Pages::none());
        }
    }

    /// Leaves to the worker what a callback had begun with: the segment must be put on the
    /// space's list of those that have deferred invalidations.
    pub(crate) fn defer<T>(&self, pages: &Range<SegmentPage>, install: &mut WriteGuard<'_, T>) {
        if self.pending.extend(pages) {
            Self::add(&self.in_progress, 1);
        }
        self.end(install);
    }

    /// What was deferred, for the worker to drain; one worker at a time.
    pub(crate) fn begin_draining<T>(&self, _install: &mut WriteGuard<'_, T>) -> Range<SegmentPage> {
        let pages = self.pending.pages();
        warn_on_once!(!self.draining.pages().is_empty());
        self.draining.set(pages.clone());
        self.pending.set(Pages::none());
        pages
    }

    /// Whether any of `pages` was deferred, and is not put yet: it may have been written since it
    /// was cleaned.
    pub(crate) fn is_deferred(&self, pages: &Range<SegmentPage>, _install: &impl Held) -> bool {
        [&self.pending, &self.draining]
            .iter()
            .any(|hull| hull.pages().overlaps(pages))
    }

    /// What the worker is at.
    pub(crate) fn draining(&self, _install: &impl Held) -> Range<SegmentPage> {
        self.draining.pages()
    }

    /// Whether anything was deferred that the worker has not begun with.
    pub(crate) fn has_pending(&self, _install: &impl Held) -> bool {
        !self.pending.pages().is_empty()
    }

    /// What the worker had begun with is zapped, and the frames are put.
    pub(crate) fn end_draining<T>(&self, _install: &mut WriteGuard<'_, T>) {
        if !self.draining.pages().is_empty() {
            self.draining.set(Pages::none());
            Self::add(&self.in_progress, -1);
        }
    }
}
