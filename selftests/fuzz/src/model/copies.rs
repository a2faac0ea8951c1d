// SPDX-License-Identifier: GPL-2.0

//! Private maps: the copies of their pages; and what is wanted of memory.
//!
//! Who has a virtual machine may make a copy by a load, too, if there is a page fault; that
//! is not to be seen as long as the file does not change. So a page that was loaded is
//! copied perhaps, and when the file has changed since, it is not touched any more.

use std::collections::BTreeMap;

use libc::{EACCES, EFAULT, EINVAL, ENOENT, ENOTTY};

use super::{File, Model, Shown, Verdict, View, expect};
use crate::op::*;

/// A private map of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Private {
    pub space: usize,
    pub map: usize,
}

#[derive(Clone, Copy)]
struct Copied {
    file: usize,
    words: [u64; CELLS as usize],
    sure: bool,
}

/// What is copied, or perhaps, by map and page of the file.
#[derive(Clone, Default)]
pub(super) struct Copies(BTreeMap<(Private, u64), Copied>);

impl Copies {
    /// A file has so many pages now.
    pub(super) fn truncate(&mut self, file: usize, pages: u64) {
        self.0
            .retain(|(_, page), copied| copied.file != file || *page < pages);
    }
}

fn words(file: &File, page: u64) -> [u64; CELLS as usize] {
    std::array::from_fn(|cell| file.value(page * CELLS + cell as u64))
}

impl Model {
    /// Whether it cannot be told what a page shows.
    pub(super) fn is_copied_perhaps(&self, private: Private, file: &File, page: u64) -> bool {
        let copied = self.copies.0.get(&(private, page));
        copied.is_some_and(|it| !it.sure && it.words != words(file, page))
    }

    /// What an access to a page comes to: if the file has changed in the same step, it cannot be
    /// told, and may come to either.
    pub(super) fn word_of_copy(
        &mut self,
        private: Private,
        file: usize,
        cell: u64,
        access: u32,
        stored: Option<u64>,
    ) -> Vec<Touched> {
        let (page, cell) = (cell / CELLS, (cell % CELLS) as usize);
        let of_file = words(self.file(file), page);
        let copied = self.copies.0.entry((private, page)).or_insert(Copied {
            file,
            words: of_file,
            sure: false,
        });
        let told = copied.sure || copied.words == of_file;
        copied.sure |= told && access & WRITE != 0;
        match stored {
            None if told => vec![Touched::Value(copied.words[cell])],
            None => [copied.words[cell], of_file[cell]]
                .map(Touched::Value)
                .to_vec(),
            Some(value) => {
                copied.words[cell] = value;
                vec![Touched::Stored]
            }
        }
    }

    /// What is shown in a range, where a call takes it, and all of it is mapped.
    fn wanted_of(&self, part: &View, at: Span) -> Vec<Option<Shown>> {
        match part.has(at) {
            true => self.spaces[part.space].part(part.pages(at)).to_vec(),
            false => Vec::new(),
        }
    }

    /// Whether the result is determined.
    pub(super) fn can_want(&self, on: Source, at: Span, want: Want) -> bool {
        let part = self.part(on);
        self.wanted_of(&part, at).iter().flatten().all(|shown| {
            let file = self.file(shown.handle.file);
            let private = shown.private.map(|map| Private {
                space: part.space,
                map,
            });
            match want {
                Want::DontNeed | Want::WillNeed => true,
                // What it comes to is the lender's affair.
                _ if file.kind == Kind::Lent => false,
                // Of a part of a huge page it is zeroed, not removed.
                Want::Remove => file.kind != Kind::Hugetlb && shown.page * CELLS < file.most(),
                Want::PopulateRead | Want::PopulateWrite => {
                    !file.is_undetermined(shown.page)
                        && !private.is_some_and(|it| self.is_copied_perhaps(it, file, shown.page))
                }
            }
        })
    }

    pub(super) fn want(&mut self, on: Source, at: Span, want: Want, seen: &Seen) -> Verdict {
        let part = self.part(on);
        let pages = self.wanted_of(&part, at);
        let refusal = |shown: &Option<Shown>| {
            let Some(shown) = shown else {
                return Some(ENOENT);
            };
            let may = |access| shown.prot & part.prot & access != 0;
            let allowed = match want {
                Want::DontNeed => shown.private.is_none() || part.prot & WRITE != 0,
                Want::Remove => shown.private.is_none() && may(WRITE),
                Want::WillNeed => true,
                Want::PopulateRead => may(READ),
                Want::PopulateWrite => may(WRITE),
            };
            (!allowed).then_some(EACCES)
        };
        if !part.manage {
            return expect(seen, Err(ENOTTY));
        }
        if !part.has(at) {
            return expect(seen, Err(EINVAL));
        }
        if let Some(errno) = pages.iter().find_map(refusal) {
            return expect(seen, Err(errno));
        }
        for shown in pages.iter().flatten() {
            let (file, page) = (shown.handle.file, shown.page);
            let private = shown.private.map(|map| Private {
                space: part.space,
                map,
            });
            match (want, private) {
                (Want::DontNeed, Some(private)) => drop(self.copies.0.remove(&(private, page))),
                (Want::Remove, _) => self.punch(file, Span::new(page * CELLS, CELLS)),
                (Want::PopulateRead | Want::PopulateWrite, _) if !self.file(file).has(page) => {
                    return expect(seen, Err(EFAULT));
                }
                (Want::PopulateRead, Some(private)) => {
                    self.word_of_copy(private, file, page * CELLS, READ, None);
                }
                (Want::PopulateWrite, Some(private)) => {
                    self.word_of_copy(private, file, page * CELLS, WRITE, None);
                }
                _ => (),
            }
        }
        expect(seen, Ok(()))
    }
}
