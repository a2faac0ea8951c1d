// SPDX-License-Identifier: GPL-2.0

//! The ranges of segments that are being revoked, on which faults step aside.
//!
//! A range is listed when the arena stops showing what it showed there, and
//! until every attachment has been zapped and the frames have been let go. While
//! it is listed nothing of it can be installed, so one zap after the listing is
//! enough, whoever makes it.
//!
//! A fixed table, since it is filled where nothing may be allocated. Pure data:
//! part of what the install lock guards.

/// How many ranges may be listed at once before all of the space is.
const SLOTS: usize = 16;

/// Who will zap a listed range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The notifier, before it returns.
    Notifier,
    /// The worker, in time.
    Worker,
}

#[derive(Clone, Copy)]
struct Listed {
    segment: u64,
    start: usize,
    end: usize,
    by: By,
}

/// A range that the worker is to revoke; pages of the segment.
#[derive(Clone, Copy)]
pub(crate) enum Task {
    /// `start..end` of a segment, at this place of the list.
    Range(usize, u64, usize, usize),
    /// Everything the space shows.
    All,
}

/// A place in the list, held by the notifier.
pub(crate) struct Place(usize);

/// The list.
pub(crate) struct Stale {
    listed: [Option<Listed>; SLOTS],
    count: usize,
    all: bool,
}

impl Stale {
    /// The empty list.
    pub(crate) const fn new() -> Self {
        Self {
            listed: [None; SLOTS],
            count: 0,
            all: false,
        }
    }

    /// Whether anything of pages `start..end` of the segment is being revoked.
    pub(crate) fn overlaps(&self, segment: u64, start: usize, end: usize) -> bool {
        if self.count == 0 {
            return self.all;
        }
        self.all
            || self
                .listed
                .iter()
                .flatten()
                .any(|l| l.segment == segment && l.start < end && start < l.end)
    }

    /// Lists a range that the caller is about to zap. [`None`] where the list is
    /// full: then all is stale, and the worker must be called.
    pub(crate) fn list(&mut self, segment: u64, start: usize, end: usize) -> Option<Place> {
        let free = self.listed.iter().position(Option::is_none);
        let Some(free) = free else {
            self.all = true;
            return None;
        };
        if let Some(slot) = self.listed.get_mut(free) {
            *slot = Some(Listed {
                segment,
                start,
                end,
                by: By::Notifier,
            });
        }
        self.count += 1;
        Some(Place(free))
    }

    /// Leaves a listed range to the worker.
    pub(crate) fn leave(&mut self, place: Place) {
        if let Some(Some(listed)) = self.listed.get_mut(place.0) {
            listed.by = By::Worker;
        }
    }

    /// The range has been revoked.
    pub(crate) fn done(&mut self, place: Place) {
        self.clear(place.0);
    }

    /// Something for the worker to do.
    pub(crate) fn task(&self) -> Option<Task> {
        if self.all {
            return Some(Task::All);
        }
        self.listed
            .iter()
            .enumerate()
            .find_map(|(at, listed)| match listed {
                Some(l) if l.by == By::Worker => Some(Task::Range(at, l.segment, l.start, l.end)),
                _ => None,
            })
    }

    /// The worker has done a task.
    pub(crate) fn finish(&mut self, task: Task) {
        match task {
            Task::Range(at, ..) => self.clear(at),
            Task::All => self.all = false,
        }
    }

    fn clear(&mut self, at: usize) {
        if let Some(slot) = self.listed.get_mut(at) {
            if slot.take().is_some() {
                self.count -= 1;
            }
        }
    }
}
