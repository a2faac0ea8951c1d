// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files that a DAX window keeps open: one open file each, the least recently used
//! closed first. Which part of a file should be registered.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// What a guest's kernel maps at a time. Ranges begin and end at multiples, so that no map of
/// that lies across the end of one.
const UNIT: u64 = 2 << 20;

/// In how many sections of a file ranges are registered. A range takes as many addresses of the
/// address space as it is long, of which there are 2^47, however little of it is mapped; and
/// where in how long a file something is mapped is the guest's choice. Maps of what is not
/// registered take longer.
const MOST_SECTIONS: usize = 8;

/// An open file.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    /// Whether it is open for writing too.
    pub(super) writable: bool,
    /// In which sections of it, all of which are as long, ranges are registered: the number of
    /// each, and up to where.
    registered: Vec<(u64, u64)>,
    /// Whether registering has failed.
    pub(super) failed: bool,
    /// When it was used last, by the clock of [`Files`].
    used: u64,
}

impl Held {
    pub(super) fn new(fd: OwnedFd, writable: bool) -> Held {
        Held {
            fd,
            writable,
            registered: Vec::new(),
            failed: false,
            used: 0,
        }
    }

    /// What must be registered before a map of a part of the file, which is not empty, with
    /// sections of `section` bytes ([`section()`]); `size` says how long the file is. Nothing
    /// for most maps; and a section of a file that grows is registered in few ranges, since
    /// each is at least as long as all before it.
    pub(super) fn missing(
        &mut self,
        part: &Range<u64>,
        section: u64,
        size: impl Fn(&OwnedFd) -> u64,
    ) -> Vec<Range<u64>> {
        (part.start / section..=(part.end - 1) / section)
            .filter_map(|number| self.missing_of(number, part.end, section, &size))
            .collect()
    }

    /// The same, of a section.
    fn missing_of(
        &mut self,
        number: u64,
        end: u64,
        section: u64,
        size: impl Fn(&OwnedFd) -> u64,
    ) -> Option<Range<u64>> {
        let start = number * section;
        // The kernel refuses what ends beyond 2^63, as it does a map there.
        let behind = start.checked_add(section)?;
        let known = self.registered.iter().position(|at| at.0 == number);
        let from = known.map_or(start, |at| self.registered[at].1);
        if self.failed || end.min(behind) <= from {
            return None;
        }
        let wanted = end.max(size(&self.fd)).max(from + (from - start));
        let upto = wanted.min(behind).next_multiple_of(UNIT);
        match known {
            Some(at) => self.registered[at].1 = upto,
            None if self.registered.len() == MOST_SECTIONS => return None,
            None => self.registered.push((number, upto)),
        }
        Some(from..upto)
    }
}

/// The least length of a section.
const LEAST: u64 = 1 << 30;

/// How long a section is for a window of so many bytes: at least as long, so that a map lies
/// in two at most, and a file that fits the window is registered at once.
pub(super) fn section(window: u64) -> u64 {
    let window = window.max(LEAST);
    window.checked_next_multiple_of(UNIT).unwrap_or(window)
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

    const SECTION: u64 = 1024 * UNIT;

    #[test]
    fn whole_file_is_registered_at_once() {
        let mut held = held(false);
        let size = |_: &OwnedFd| 5 * UNIT + 1;
        assert_eq!(
            held.missing(&(0..4096), SECTION, size).first(),
            Some(&(0..6 * UNIT))
        );
        let all = 4096..6 * UNIT;
        assert_eq!(held.missing(&all, SECTION, |_| unreachable!()), []);
    }

    #[test]
    fn file_that_grows_is_registered_in_few_ranges() {
        let mut held = held(true);
        let (mut ranges, mut registered) = (0, 0);
        for size in (UNIT..=1000 * UNIT).step_by(UNIT as usize) {
            for range in held.missing(&(size - UNIT..size), SECTION, |_| size) {
                assert_eq!(range.start, registered);
                assert!(range.end >= size && range.end % UNIT == 0);
                registered = range.end;
                ranges += 1;
            }
        }
        assert!(ranges <= 11, "{ranges}");
    }

    #[test]
    fn longer_file_is_registered_where_it_is_mapped() {
        let mut held = held(true);
        let size = |_: &OwnedFd| 10 * SECTION;
        let both = 3 * SECTION - UNIT..3 * SECTION + UNIT;
        let sections = [2 * SECTION..3 * SECTION, 3 * SECTION..4 * SECTION];
        assert_eq!(held.missing(&both, SECTION, size), sections);
        assert_eq!(held.missing(&both, SECTION, |_| unreachable!()), []);
        let next = 4 * SECTION - UNIT..4 * SECTION + UNIT;
        assert_eq!(
            held.missing(&next, SECTION, size).last(),
            Some(&(4 * SECTION..5 * SECTION))
        );
    }

    #[test]
    fn few_sections_of_a_file_are_registered() {
        let mut held = held(true);
        let mut of = |at: u64| {
            let part = at * SECTION..at * SECTION + UNIT;
            held.missing(&part, SECTION, |_| u64::MAX).len()
        };
        assert_eq!((0..1000).map(&mut of).sum::<usize>(), MOST_SECTIONS);
        assert_eq!(of(0), 0);
    }

    #[test]
    fn registering_that_failed_is_not_tried_again() {
        let mut held = held(false);
        held.failed = true;
        assert_eq!(held.missing(&(0..UNIT), SECTION, |_| unreachable!()), []);
    }

    #[test]
    fn no_end_overflows() {
        let part = u64::MAX - 4096..u64::MAX;
        assert_eq!(held(false).missing(&part, SECTION, |_| u64::MAX), []);
    }

    #[test]
    fn section_is_as_long_as_the_window() {
        assert_eq!(section(4096), LEAST);
        assert_eq!(section(LEAST + UNIT), LEAST + UNIT);
        assert_eq!(section(LEAST + 1), LEAST + UNIT);
    }
}
