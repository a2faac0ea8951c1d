// SPDX-License-Identifier: GPL-2.0

//! Spaces: the results of calls on them, and what they then show.

use libc::{EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, ENOTTY, EOPNOTSUPP};

use super::holes::Policy;
use super::{Model, Shown, Space, Verdict, View, done, expect, valid};
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
            private: 0,
        }
    }

    pub(super) fn part(&self, at: Span) -> &[Option<Shown>] {
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

    /// The errno for invalid values of a change in a part, or for the file it maps.
    fn refusal(part: &View, change: &Change) -> Option<i32> {
        let (at, prot) = match change {
            Change::Map(map) => (map.at, map.prot),
            Change::Unmap(at) => (*at, NONE),
            Change::Protect(at, prot) => (*at, *prot),
        };
        if let Err(errno) = part.takes(prot) {
            return Some(errno);
        }
        if !part.has(at) {
            return Some(EINVAL);
        }
        match change {
            Change::Map(map) if prot & WRITE != 0 && !map.handle.writable && !map.private => {
                Some(EACCES)
            }
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
                let checked = |shown: &Shown| match shown.private {
                    // It was made for that and nothing else.
                    Some(_) => shown.sure,
                    None => self.checked.get(&shown.handle).copied().unwrap_or(0),
                };
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

    /// A private map is checked for itself.
    fn note_check(&mut self, map: &Map) {
        if !map.private {
            self.note_checked(map.handle, map.prot);
        }
    }

    fn note_checked(&mut self, handle: Handle, prot: u32) {
        if prot & WRITE == 0 || handle.writable {
            *self.checked.entry(handle).or_default() |= prot;
        }
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Map(map) => {
                let private = map.private.then_some(self.private);
                self.private += 1;
                for (page, shown) in (map.offset..).zip(self.part_mut(map.at)) {
                    *shown = Some(Shown {
                        handle: map.handle,
                        page,
                        prot: map.prot,
                        sure: map.prot,
                        private,
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

    /// Makes changes in a part, or none; says whether it has.
    fn batch(&mut self, part: &View, changes: &[Change], seen: &Seen) -> Result<bool, String> {
        let wrong = changes
            .iter()
            .enumerate()
            .find_map(|(index, change)| Some((index, Self::refusal(part, change)?)));
        let changes: Vec<_> = changes.iter().map(|it| part.in_space(it)).collect();
        for change in &changes {
            if let Change::Map(map) = change {
                // It may not get that far if it is refused.
                self.note_check(map);
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
                Ok(true)
            }
            Some(wanted) if *seen == wanted => Ok(false),
            Some(wanted) => Err(format!("expected {wanted:?}, got {seen:?}")),
        }
    }

    /// The highest-priority place for a map that the kernel may place, and whether huge pages
    /// can be used there.
    fn room(&self, map: &Map) -> Option<(Span, bool)> {
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
        let any = || Some((starts(1, 0)?, false));
        aligned.map(|at| (at, true)).or_else(any)
    }

    /// Compares the layout that the kernel tells.
    fn check_lines(&self, lines: &[Line]) -> Verdict {
        let mut listed = vec![None; SPACE_PAGES as usize];
        for line in lines {
            for (page, at) in (line.offset..).zip(line.at.iter()) {
                let place = listed
                    .get_mut(at as usize)
                    .ok_or_else(|| format!("page {at} is listed"))?;
                *place = Some((line.file, page, line.prot, line.private));
            }
        }
        for (page, (shown, listed)) in self.shown.iter().zip(listed).enumerate() {
            let shown = shown.map(|shown| {
                let private = shown.private.is_some();
                (Some(shown.handle.file), shown.page, shown.prot, private)
            });
            if shown != listed {
                return Err(format!(
                    "page {page} should show {shown:?} (file, page, protection, private), \
                     and does {listed:?}"
                ));
            }
        }
        Ok(())
    }
}

impl View {
    /// Whether a call takes this protection.
    fn takes(&self, prot: u32) -> Result<(), i32> {
        match prot {
            _ if !valid(prot) => Err(EINVAL),
            _ if prot & !self.prot != 0 => Err(EACCES),
            _ => Ok(()),
        }
    }

    /// A change, as one of the space.
    fn in_space(&self, change: &Change) -> Change {
        match *change {
            Change::Map(map) => Change::Map(Map {
                at: self.pages(map.at),
                ..map
            }),
            Change::Unmap(at) => Change::Unmap(self.pages(at)),
            Change::Protect(at, prot) => Change::Protect(self.pages(at), prot),
        }
    }

    /// A view of a part of it.
    pub(super) fn view(&self, at: Span, prot: u32, holes: u32, manage: bool) -> Result<View, i32> {
        if !self.manage {
            return Err(ENOTTY);
        }
        let policy = Policy::of(holes, self.policy)?;
        self.takes(prot)?;
        if prot == NONE || !self.has(at) {
            return Err(EINVAL);
        }
        let at = self.pages(at);
        Ok(View {
            at,
            prot,
            manage,
            policy,
            ..*self
        })
    }
}

impl Model {
    /// A change by a call with one operation.
    pub(super) fn change(&mut self, on: Source, change: Change, seen: &Seen) -> Verdict {
        let refused = match *seen {
            Seen::Errno(ENOTTY) => Seen::Refused(None, ENOTTY),
            Seen::Errno(errno) => Seen::Refused(Some(0), errno),
            ref other => other.clone(),
        };
        self.batch(on, &[change], &refused)
    }

    pub(super) fn batch(&mut self, on: Source, changes: &[Change], seen: &Seen) -> Verdict {
        let part = self.part(on);
        if !part.manage {
            let wanted = Seen::Refused(None, ENOTTY);
            return match *seen == wanted {
                true => Ok(()),
                false => Err(format!("expected {wanted:?}, got {seen:?}")),
            };
        }
        let made = self.spaces[part.space].batch(&part, changes, seen)?;
        for change in changes {
            let (at, maps) = match part.in_space(change) {
                Change::Map(map) => (map.at, true),
                Change::Unmap(at) | Change::Protect(at, _) => (at, false),
            };
            self.after_change(part.space, at, maps, made);
        }
        Ok(())
    }

    /// A change of these pages was made, or refused.
    fn after_change(&mut self, space: usize, at: Span, maps: bool, made: bool) {
        self.changed(space, if made { at } else { Span::new(0, 0) });
        if maps && made {
            self.unpoison(space, at);
        }
    }

    pub(super) fn map_anywhere(&mut self, on: Source, map: Map, seen: &Seen) -> Verdict {
        let part = self.part(on);
        if !part.manage {
            return expect(seen, Err(ENOTTY));
        }
        if part.at.count != SPACE_PAGES {
            return expect(seen, Err(EOPNOTSUPP));
        }
        // The kernel chooses the address.
        let start = Change::Map(Map {
            at: Span::new(0, map.at.count),
            ..map
        });
        if let Some(errno) = Space::refusal(&part, &start) {
            return expect(seen, Err(errno));
        }
        let space = &mut self.spaces[part.space];
        space.note_check(&map);
        let Some((lowest, aligned)) = space.room(&map) else {
            return expect(seen, Err(ENOSPC));
        };
        let Seen::At(start) = *seen else {
            return Err(format!("expected it at {}, got {seen:?}", lowest.start));
        };
        let at = Span::new(start, map.at.count);
        if !part.has(at) || !space.is_hole(at) {
            return Err(format!("{at:?} is not a hole"));
        }
        if aligned && start % HUGE != map.offset % HUGE {
            return Err(format!("{at:?} is no place for huge pages"));
        }
        space.apply(&Change::Map(Map { at, ..map }));
        self.after_change(part.space, at, true, true);
        Ok(())
    }

    pub(super) fn r#move(
        &mut self,
        on: Source,
        at: Span,
        to: u64,
        replace: bool,
        seen: &Seen,
    ) -> Verdict {
        let part = self.part(on);
        let target = Span::new(to, at.count);
        let wrong = !part.has(at) || !part.has(target) || at.overlaps(&target);
        let (at, target) = (part.pages(at), part.pages(target));
        let space = &mut self.spaces[part.space];
        let wanted = if !part.manage {
            Err(ENOTTY)
        } else if wrong {
            Err(EINVAL)
        } else if !space.is_covered(at) {
            Err(ENOENT)
        } else if !replace && !space.is_hole(target) {
            Err(EEXIST)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        let made = wanted.is_ok();
        if made {
            let moved = space.part(at).to_vec();
            space.part_mut(at).fill(None);
            space.part_mut(target).copy_from_slice(&moved);
        }
        self.after_change(part.space, at, false, made);
        self.after_change(part.space, target, true, made);
        Ok(())
    }

    pub(super) fn register(
        &mut self,
        on: Source,
        handle: Handle,
        offset: u64,
        pages: Option<u64>,
        prot: u32,
        seen: &Seen,
    ) -> Verdict {
        let part = self.part(on);
        let beyond = pages.is_none() && !self.file(handle.file).begins(offset);
        let wanted = match part.takes(prot) {
            _ if !part.manage => Err(ENOTTY),
            Err(errno) => Err(errno),
            Ok(()) if beyond => Err(EINVAL),
            Ok(()) if prot & WRITE != 0 && !handle.writable => Err(EACCES),
            Ok(()) => Ok(()),
        };
        expect(seen, wanted)?;
        if wanted.is_ok() {
            let space = &mut self.spaces[part.space];
            space.registered.insert(handle);
            space.note_checked(handle, prot);
        }
        Ok(())
    }

    pub(super) fn unregister(&mut self, on: Source, handle: Handle, seen: &Seen) -> Verdict {
        let part = self.part(on);
        let known = part.manage && self.spaces[part.space].registered.remove(&handle);
        let wanted = match part.manage {
            false => Err(ENOTTY),
            true if !known => Err(ENOENT),
            true => Ok(()),
        };
        expect(seen, wanted)
    }

    /// By the asfd: through a view it ends those of the view, which the model does not tell from
    /// others.
    pub(super) fn unregister_all(&mut self, space: usize, seen: &Seen) -> Verdict {
        let part = self.part(Source::Space(space));
        self.spaces[part.space].registered.clear();
        expect(seen, Ok(()))
    }

    /// Compares the layout of an open space with the one that the kernel tells.
    pub fn check_layout(&self, space: usize, lines: &[Line]) -> Verdict {
        match self.open(Source::Space(space)) {
            None => Ok(()),
            Some(known) => known
                .check_lines(lines)
                .map_err(|why| format!("space {space}: {why}")),
        }
    }
}
