// SPDX-License-Identifier: GPL-2.0

//! Spaces: the results of calls on them, and what they then show.

use libc::{EACCES, EEXIST, EINVAL, ENOENT, ENOSPC};

use super::{Model, Shown, Space, Verdict, done, expect, valid};
use crate::op::*;

/// The expected result of a change.
enum Answer {
    Done,
    Refused(i32),
    /// Depends on what was mapped just before: it determines whether the segment that is
    /// shown was found or made, and so what the protection can be raised to.
    Perhaps(i32),
}

impl Space {
    pub(super) fn new() -> Self {
        Space {
            shown: vec![None; SPACE_PAGES as usize],
            registered: Default::default(),
            checked: Default::default(),
        }
    }

    /// Whether a call accepts this range.
    pub fn has(at: Span) -> bool {
        at.count > 0 && at.end() <= SPACE_PAGES
    }

    fn part(&self, at: Span) -> &[Option<Shown>] {
        &self.shown[at.start as usize..at.end() as usize]
    }

    fn part_mut(&mut self, at: Span) -> &mut [Option<Shown>] {
        &mut self.shown[at.start as usize..at.end() as usize]
    }

    fn is_hole(&self, at: Span) -> bool {
        self.part(at).iter().all(Option::is_none)
    }

    fn is_covered(&self, at: Span) -> bool {
        self.part(at).iter().all(Option::is_some)
    }

    /// The errno for invalid values of a change, or for the file it maps.
    fn refusal(change: &Change) -> Option<i32> {
        let (at, prot) = match change {
            Change::Map(map) => (map.at, map.prot),
            Change::Unmap(at) => (*at, READ),
            Change::Protect(at, prot) => (*at, *prot),
        };
        if !valid(prot) || !Space::has(at) {
            return Some(EINVAL);
        }
        match change {
            Change::Map(map) if prot & WRITE != 0 && !map.handle.writable => Some(EACCES),
            _ => None,
        }
    }

    /// The result of a change with valid values.
    fn answer(&self, change: &Change) -> Answer {
        match change {
            Change::Map(map) if !map.replace && !self.is_hole(map.at) => Answer::Refused(EEXIST),
            Change::Protect(at, _) if !self.is_covered(*at) => Answer::Refused(ENOENT),
            Change::Protect(at, prot) => {
                let pages = || self.part(*at).iter().flatten();
                let checked = |shown: &Shown| self.checked.get(&shown.handle).unwrap_or(&0);
                if pages().all(|shown| shown.sure & prot == *prot) {
                    Answer::Done
                } else if pages().any(|shown| checked(shown) & prot != *prot) {
                    Answer::Refused(EACCES)
                } else {
                    Answer::Perhaps(EACCES)
                }
            }
            _ => Answer::Done,
        }
    }

    fn note_check(&mut self, handle: Handle, prot: u32) {
        if prot & WRITE == 0 || handle.writable {
            *self.checked.entry(handle).or_default() |= prot;
        }
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Map(map) => {
                for (page, shown) in (map.offset..).zip(self.part_mut(map.at)) {
                    *shown = Some(Shown {
                        handle: map.handle,
                        page,
                        prot: map.prot,
                        sure: map.prot,
                    });
                }
            }
            Change::Unmap(at) => self.part_mut(at).fill(None),
            Change::Protect(at, prot) => {
                for shown in self.part_mut(at).iter_mut().flatten() {
                    shown.prot = prot;
                    shown.sure |= prot;
                }
            }
        }
    }

    pub(super) fn batch(&mut self, changes: &[Change], seen: &Seen) -> Verdict {
        let wrong = changes
            .iter()
            .enumerate()
            .find_map(|(index, change)| Some((index, Self::refusal(change)?)));
        for change in changes {
            if let Change::Map(map) = change {
                // It may not get that far if it is refused.
                self.note_check(map.handle, map.prot);
            }
        }
        let refused = |index: usize, errno: i32| Seen::Refused(Some(index), errno);
        let mut after = self.clone();
        let mut wanted = wrong.map(|(index, errno)| refused(index, errno));
        if wanted.is_none() {
            for (index, change) in changes.iter().enumerate() {
                match after.answer(change) {
                    Answer::Done => after.apply(change),
                    Answer::Perhaps(errno) if *seen != refused(index, errno) => {
                        after.apply(change);
                    }
                    Answer::Refused(errno) | Answer::Perhaps(errno) => {
                        wanted = Some(refused(index, errno));
                        break;
                    }
                }
            }
        }
        match wanted {
            None => {
                done(seen)?;
                *self = after;
                Ok(())
            }
            Some(wanted) if *seen == wanted => Ok(()),
            Some(wanted) => Err(format!("expected {wanted:?}, got {seen:?}")),
        }
    }

    pub(super) fn map_anywhere(&mut self, map: Map, seen: &Seen) -> Verdict {
        // The kernel chooses the address.
        let start = Change::Map(Map {
            at: Span::new(0, map.at.count),
            ..map
        });
        if let Some(errno) = Self::refusal(&start) {
            return expect(seen, Err(errno));
        }
        self.note_check(map.handle, map.prot);
        let starts = |step: u64, first: u64| {
            (first..)
                .step_by(step as usize)
                .map(|start| Span::new(start, map.at.count))
                .take_while(|at| at.end() <= SPACE_PAGES)
                .find(|at| self.is_hole(*at))
        };
        let aligned = (map.at.count >= HUGE)
            .then(|| starts(HUGE, map.offset % HUGE))
            .flatten();
        let Some(lowest) = aligned.or_else(|| starts(1, 0)) else {
            return expect(seen, Err(ENOSPC));
        };
        let Seen::At(start) = *seen else {
            return Err(format!("expected it at {}, got {seen:?}", lowest.start));
        };
        let at = Span::new(start, map.at.count);
        if !Space::has(at) || !self.is_hole(at) {
            return Err(format!("{at:?} is not a hole"));
        }
        if aligned.is_some() && start % HUGE != map.offset % HUGE {
            return Err(format!("{at:?} is no place for huge pages"));
        }
        self.apply(&Change::Map(Map { at, ..map }));
        Ok(())
    }

    pub(super) fn r#move(&mut self, at: Span, to: u64, replace: bool, seen: &Seen) -> Verdict {
        let target = Span::new(to, at.count);
        let wanted = if !Space::has(at) || !Space::has(target) || at.overlaps(&target) {
            Err(EINVAL)
        } else if !self.is_covered(at) {
            Err(ENOENT)
        } else if !replace && !self.is_hole(target) {
            Err(EEXIST)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        if wanted.is_ok() {
            let moved = self.part(at).to_vec();
            self.part_mut(at).fill(None);
            self.part_mut(target).copy_from_slice(&moved);
        }
        Ok(())
    }

    /// Compares the layout in fdinfo.
    fn check_lines(&self, lines: &[Line]) -> Verdict {
        let mut listed = vec![None; SPACE_PAGES as usize];
        for line in lines {
            for (page, at) in (line.offset..).zip(line.at.iter()) {
                let place = listed
                    .get_mut(at as usize)
                    .ok_or_else(|| format!("fdinfo lists page {at}"))?;
                *place = Some((line.file, page, line.prot));
            }
        }
        for (page, (shown, listed)) in self.shown.iter().zip(listed).enumerate() {
            let shown = shown.map(|shown| (Some(shown.handle.file), shown.page, shown.prot));
            if shown != listed {
                return Err(format!(
                    "page {page} should show {shown:?} (file, page, protection), \
                     fdinfo says {listed:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Model {
    /// A change by a call with one operation.
    pub(super) fn change(&mut self, space: usize, change: Change, seen: &Seen) -> Verdict {
        let refused = match *seen {
            Seen::Errno(errno) => Seen::Refused(Some(0), errno),
            ref other => other.clone(),
        };
        self.open_mut(space).batch(&[change], &refused)
    }

    pub(super) fn register(
        &mut self,
        space: usize,
        handle: Handle,
        offset: u64,
        pages: Option<u64>,
        prot: u32,
        seen: &Seen,
    ) -> Verdict {
        let beyond = pages.is_none() && !self.file(handle.file).has(offset);
        let wanted = if !valid(prot) || beyond {
            Err(EINVAL)
        } else if prot & WRITE != 0 && !handle.writable {
            Err(EACCES)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        if wanted.is_ok() {
            let space = self.open_mut(space);
            space.registered.insert(handle);
            space.note_check(handle, prot);
        }
        Ok(())
    }

    /// Compares the layout of an open space in fdinfo.
    pub fn check_layout(&self, space: usize, lines: &[Line]) -> Verdict {
        match self.open(space) {
            None => Ok(()),
            Some(known) => known
                .check_lines(lines)
                .map_err(|why| format!("space {space}: {why}")),
        }
    }
}
