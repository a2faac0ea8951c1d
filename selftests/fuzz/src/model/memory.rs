// SPDX-License-Identifier: GPL-2.0

//! Processes: their attachments, and the results of touching them.

use libc::{EACCES, EINVAL};

use super::copies::Private;
use super::events::{OFTEN, ONCE, PERHAPS};
use super::holes::{By, Comes};
use super::waiters::refused;
use super::{Attached, Model, Process, Verdict, compare, expect, is_hot, results};
use crate::op::*;

impl Process {
    pub(super) fn new() -> Self {
        Process {
            pages: vec![None; (PLACES * PLACE_PAGES) as usize],
        }
    }

    fn part_mut(&mut self, at: Span) -> &mut [Option<Attached>] {
        &mut self.pages[at.start as usize..at.end() as usize]
    }
}

/// What an access reaches in a space.
pub(super) enum Reach {
    Hole,
    /// The mapping does not allow it.
    Denied,
    /// The page is past the end of the file.
    Beyond,
    Cell {
        file: usize,
        cell: u64,
        private: Option<Private>,
    },
}

impl Model {
    fn process_mut(&mut self, process: usize) -> &mut Process {
        self.processes[process]
            .as_mut()
            .expect("only possible steps are judged")
    }

    pub(super) fn within(&self, process: usize, at: Span) -> bool {
        self.processes[process].is_some() && at.count > 0 && at.end() <= PLACES * PLACE_PAGES
    }

    fn attached(&self, process: usize, at: Span) -> Option<&[Option<Attached>]> {
        let pages = &self.processes[process].as_ref()?.pages;
        pages.get(at.start as usize..at.end() as usize)
    }

    pub(super) fn all_attached(&self, process: usize, at: Span) -> bool {
        at.count > 0
            && self
                .attached(process, at)
                .is_some_and(|pages| pages.iter().all(Option::is_some))
    }

    /// Whether a range is in one VMA.
    pub(super) fn one_vma(&self, process: usize, at: Span) -> bool {
        self.all_attached(process, at)
            && self.attached(process, at).is_some_and(|pages| {
                let mut known = pages.iter().flatten();
                let first = known.next();
                known.all(|page| Some(page.vma) == first.map(|first| first.vma))
            })
    }

    fn new_vma(&mut self) -> u32 {
        self.vmas += 1;
        self.vmas
    }

    pub(super) fn attach(
        &mut self,
        process: usize,
        source: Source,
        at: Span,
        prot: u32,
        place: u64,
        seen: &Seen,
    ) -> Verdict {
        let Some(view) = self.source(source) else {
            return Err("nothing to attach".into());
        };
        let may_write = view.prot & WRITE != 0;
        // The kernel checks the file's mode before the module sees the range.
        let wanted = if prot & WRITE != 0 && !may_write {
            Err(EACCES)
        } else if at.end() > view.at.count {
            Err(EINVAL)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        let vma = self.new_vma();
        let sink = self.new_sink(view.policy);
        let target = Span::new(place, at.count);
        for (page, attached) in (at.start..).zip(self.process_mut(process).part_mut(target)) {
            // If it failed, what was there before is gone: see Region::attach().
            *attached = wanted.ok().map(|()| Attached {
                to: view.through(page, sink),
                prot,
                may_write,
                vma,
            });
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, process: usize, at: Span) {
        self.process_mut(process).part_mut(at).fill(None);
    }

    /// The kernel goes from VMA to VMA. When it may not change one, those before it stay
    /// changed.
    pub(super) fn mprotect(&mut self, process: usize, at: Span, prot: u32, seen: &Seen) -> Verdict {
        let mut wanted = Ok(());
        let mut fresh = (0, 0);
        for page in at.iter() {
            let Some(attached) = self.process_mut(process).pages[page as usize] else {
                break;
            };
            if prot & WRITE != 0 && !attached.may_write {
                wanted = Err(EACCES);
                break;
            }
            if attached.prot == prot {
                continue;
            }
            if fresh.0 != attached.vma || fresh.1 == 0 {
                fresh = (attached.vma, self.new_vma());
            }
            self.process_mut(process).pages[page as usize] = Some(Attached {
                prot,
                vma: fresh.1,
                ..attached
            });
        }
        expect(seen, wanted)
    }

    pub(super) fn mremap(&mut self, process: usize, at: Span, to: u64) {
        let vma = self.new_vma();
        let process = self.process_mut(process);
        let mut moved = process.part_mut(at).to_vec();
        process.part_mut(at).fill(None);
        for attached in moved.iter_mut().flatten() {
            attached.vma = vma;
        }
        process
            .part_mut(Span::new(to, at.count))
            .copy_from_slice(&moved);
    }

    /// Each VMA of a child that absorbs has a page of its own for that.
    pub(super) fn fork(&mut self, from: usize, to: usize) {
        let Some(mut child) = self.processes[from].clone() else {
            return;
        };
        let mut before: Option<(u32, Option<usize>)> = None;
        for attached in &mut child.pages {
            let Some(attached) = attached else {
                before = None;
                continue;
            };
            let sink = match before {
                Some((vma, sink)) if vma == attached.vma => sink,
                _ => self.new_sink(attached.to.policy),
            };
            before = Some((attached.vma, sink));
            attached.to.sink = sink;
        }
        self.processes[to] = Some(child);
    }

    /// What an access to a page of a space reaches.
    pub(super) fn reach(&self, space: usize, page: u64, cell: u64, access: u32) -> Reach {
        let Some(shown) = self.spaces[space].shown[page as usize] else {
            return Reach::Hole;
        };
        if shown.prot & access == 0 {
            return Reach::Denied;
        }
        if !self.file(shown.handle.file).has(shown.page) {
            return Reach::Beyond;
        }
        Reach::Cell {
            file: shown.handle.file,
            cell: shown.page * CELLS + cell,
            private: shown.private.map(|map| Private { space, map }),
        }
    }

    /// Whether the result of an access depends on the file system: a write past the end of a
    /// file, in its last page, or an access to a page that may have memory or not.
    pub(super) fn is_unclear(&self, space: usize, page: u64, cell: u64, store: bool) -> bool {
        let Some(shown) = self.spaces[space].shown[page as usize] else {
            return false;
        };
        let file = self.file(shown.handle.file);
        let beyond = file.has(shown.page) && shown.page * CELLS + cell >= file.size;
        let private = shown.private.map(|map| Private { space, map });
        file.is_undetermined(shown.page)
            || (store && beyond)
            || private.is_some_and(|it| self.is_copied_perhaps(it, file, shown.page))
    }

    /// The accesses whose result is determined, without anything else happening.
    pub fn meaningful(&self, process: usize, touches: &[Touch]) -> Vec<Touch> {
        let pages = self.processes[process].as_ref().map(|it| &it.pages);
        let mut timeouts = 1;
        touches
            .iter()
            .filter(|touch| {
                let attached = pages.and_then(|pages| pages.get(touch.page as usize));
                let (access, by) = (touch.access, touch.access.by());
                let store = access.wants() == WRITE;
                // A debugger reaches what is reserved for attachments, too.
                let debug = matches!(access, Access::DebugFrom | Access::DebugTo(_));
                match attached {
                    None => false,
                    Some(None) => !debug,
                    Some(Some(attached)) => {
                        let to = &attached.to;
                        !self.is_unclear(to.space, to.page, touch.cell, store)
                            && (attached.prot & access.wants() == 0
                                || self.has_result(to, touch.cell, access, by, &mut timeouts))
                    }
                }
            })
            .copied()
            .collect()
    }

    /// Reads of all hot pages.
    pub fn sweep(&self, process: usize) -> Vec<Touch> {
        let touch = |(page, _)| Touch {
            page,
            cell: page / 3 % CELLS,
            access: Access::Load,
        };
        let touches: Vec<_> = self.hot_pages(process).into_iter().map(touch).collect();
        self.meaningful(process, &touches)
    }

    pub(super) fn touch(&mut self, process: usize, touches: &[Touch], seen: &Seen) -> Verdict {
        let touches = self.meaningful(process, touches);
        let seen = results(seen, touches.len())?;
        for (index, (touch, seen)) in touches.iter().zip(seen).enumerate() {
            let (access, by) = (touch.access, touch.access.by());
            let attached = self.process_mut(process).pages[touch.page as usize];
            let wanted = match attached {
                Some(attached) if attached.prot & access.wants() != 0 => {
                    let (to, stored) = (&attached.to, access.stored());
                    match self.comes(to, touch.cell, access.wants(), by) {
                        Comes::Refused(why) => {
                            self.tell(to, access.wants(), why, times(access));
                            vec![refused(by, why)]
                        }
                        comes => self.made(to, touch.cell, access.wants(), stored, comes),
                    }
                }
                _ if by == By::User => vec![Touched::Segv],
                _ => vec![Touched::Fault],
            };
            compare("access", index, *seen, &wanted)
                .map_err(|why| format!("process {process}, {touch:?} of {attached:?}, {why}"))?;
        }
        Ok(())
    }

    /// Reads or writes a word of a file, or of a copy of it.
    pub(super) fn word(
        &mut self,
        file: usize,
        cell: u64,
        access: u32,
        stored: Option<u64>,
        private: Option<Private>,
    ) -> Vec<Touched> {
        if let Some(private) = private {
            return self.word_of_copy(private, file, cell, access, stored);
        }
        match stored {
            None => vec![Touched::Value(self.file(file).value(cell))],
            Some(value) => {
                self.write(file, cell, value);
                vec![Touched::Stored]
            }
        }
    }

    /// The attached pages that show pages near the boundaries of huge pages, each with the
    /// page of the space that it shows.
    pub fn hot_pages(&self, process: usize) -> Vec<(u64, u64)> {
        self.processes[process]
            .iter()
            .flat_map(|process| (0..).zip(&process.pages))
            .filter_map(|(page, attached)| Some((page, (*attached)?.to.page)))
            .filter(|(_, shown)| is_hot(*shown))
            .collect()
    }
}

/// How often an access is told of that is refused.
fn times(access: Access) -> u32 {
    match access {
        Access::Load | Access::Store(_) => ONCE,
        Access::CopyFrom | Access::CopyTo(_) | Access::Futex => OFTEN,
        // It is no fault.
        Access::DebugFrom | Access::DebugTo(_) => PERHAPS,
    }
}
