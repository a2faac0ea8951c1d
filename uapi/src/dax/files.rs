// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that a DAX window keeps open: one open file each, the least recently used
//! closed first. Which part of a file should be registered.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// What a guest's kernel maps at a time. A range between two multiples is registered as a
/// whole, so that no map lies across the end of one.
const UNIT: u64 = 2 << 20;

/// An open file.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    /// Whether it is open for writing too.
    pub(super) writable: bool,
    /// Up to where it is registered, in bytes; `u64::MAX` if that failed.
    pub(super) registered: u64,
    /// When it was used last, by the clock of [`Files`].
    used: u64,
}

impl Held {
    pub(super) fn new(fd: OwnedFd, writable: bool) -> Held {
        Held {
            fd,
            writable,
            registered: 0,
            used: 0,
        }
    }

    /// What must be registered before a map of a range that ends at `end`; `size` says how
    /// long the file is. Nothing for most maps; and a file that grows is registered in few
    /// ranges, since each is at least as long as all before it.
    pub(super) fn missing(&self, end: u64, size: impl FnOnce() -> u64) -> Option<Range<u64>> {
        if end <= self.registered {
            return None;
        }
        let wanted = end.max(size()).max(self.registered.saturating_mul(2));
        // No file is longer than 2^63 bytes, and the kernel refuses what is.
        Some(self.registered..wanted.checked_next_multiple_of(UNIT).unwrap_or(end))
    }
}

/// The open files, at most so many, by number.
#[derive(Debug)]
pub(super) struct Files {
    held: HashMap<u64, Held>,
    most: usize,
    clock: u64,
}

impl Files {
    pub(super) fn new(most: usize) -> Files {
        assert_ne!(most, 0, "a window needs room for a file");
        Files {
            held: HashMap::new(),
            most,
            clock: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The file, if it is open, and for writing if `write` is set.
    pub(super) fn get(&mut self, file: u64, write: bool) -> Option<&mut Held> {
        self.clock += 1;
        let held = self.held.get_mut(&file)?;
        if write && !held.writable {
            return None;
        }
        held.used = self.clock;
        Some(held)
    }

    /// Adds a file, and returns those to be closed for it: the same file open for less,
    /// and the least recently used one if there are too many. O(n) for the latter.
    pub(super) fn insert(&mut self, file: u64, mut held: Held) -> Vec<Held> {
        self.clock += 1;
        held.used = self.clock;
        let mut closed = Vec::from_iter(self.held.remove(&file));
        if self.held.len() >= self.most {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used);
            let oldest = oldest.map(|(&file, _)| file);
            closed.extend(oldest.and_then(|file| self.held.remove(&file)));
        }
        self.held.insert(file, held);
        closed
    }

    pub(super) fn remove(&mut self, file: u64) -> Option<Held> {
        self.held.remove(&file)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Held> {
        self.held.drain().map(|(_, held)| held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn held(writable: bool) -> Held {
        Held::new(File::open("/dev/null").unwrap().into(), writable)
    }

    #[test]
    fn file_that_is_writable_serves_readers_and_not_the_other_way_round() {
        let mut files = Files::new(4);
        assert!(files.get(1, false).is_none());
        assert!(files.insert(1, held(false)).is_empty());
        assert!(files.get(1, false).is_some());
        assert!(files.get(1, true).is_none());

        let closed = files.insert(1, held(true));
        assert_eq!(closed.len(), 1);
        assert!(!closed[0].writable);
        assert!(files.get(1, true).is_some());
        assert!(files.get(1, false).is_some_and(|held| held.writable));
        assert_eq!(files.len(), 1);
    }

    #[test]
    fn least_recently_used_file_is_closed_first() {
        let mut files = Files::new(3);
        for file in [1, 2, 3] {
            assert!(files.insert(file, held(false)).is_empty());
        }
        files.get(1, false);
        assert_eq!(files.insert(4, held(false)).len(), 1);
        assert!(files.get(2, false).is_none());
        files.get(3, false);
        files.get(1, false);
        assert_eq!(files.insert(5, held(false)).len(), 1);
        assert!(files.get(4, false).is_none());
        assert!([1, 3, 5].map(|file| files.get(file, false).is_some()) == [true; 3]);
    }

    #[test]
    fn there_are_never_more_files_than_allowed() {
        let mut files = Files::new(2);
        let mut closed = 0;
        for file in 0..100 {
            closed += files.insert(file % 7, held(file % 3 == 0)).len();
            assert!(files.len() <= 2);
        }
        assert_eq!(closed + files.drain().count(), 100);
    }

    #[test]
    fn whole_file_is_registered_at_once() {
        let mut held = held(false);
        let range = held.missing(4096, || 5 * UNIT + 1).unwrap();
        assert_eq!(range, 0..6 * UNIT);
        held.registered = range.end;
        assert_eq!(held.missing(6 * UNIT, || unreachable!()), None);
    }

    #[test]
    fn file_that_grows_is_registered_in_few_ranges() {
        let mut held = held(true);
        let mut ranges = 0;
        for size in (UNIT..=1000 * UNIT).step_by(UNIT as usize) {
            if let Some(range) = held.missing(size, || size) {
                assert_eq!(range.start, held.registered);
                assert!(range.end >= size && range.end % UNIT == 0);
                held.registered = range.end;
                ranges += 1;
            }
        }
        assert!(ranges <= 11, "{ranges}");
    }

    #[test]
    fn registering_that_failed_is_not_tried_again() {
        let mut held = held(false);
        held.registered = u64::MAX;
        assert_eq!(held.missing(UNIT, || unreachable!()), None);
    }

    #[test]
    fn no_end_overflows() {
        let range = held(false).missing(u64::MAX - 1, || 0).unwrap();
        assert_eq!(range, 0..u64::MAX - 1);
    }
}
