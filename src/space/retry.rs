// SPDX-License-Identifier: GPL-2.0

//! The one loop in which something is tried until a page is known: by faults, by populating, by
//! ptrace. It mirrors what the arena maps, and maps there what is in memory anyway; everything
//! else is an [`Obstacle`], and what to do about that is the caller's policy.
//!
//! Takes no lock itself, and holds none while the policy is asked.

use core::ops::{
    ControlFlow,
    Range, //
};

use kernel::prelude::*;

use crate::{
    layout::{
        SegmentPage,
        SpacePage, //
    },
    segment::list::Pinned,
    space::{
        mirror::Mirrored,
        resolve::Miss,
        Space, //
    },
    sys::mm::Locks,
};

/// How often a page is looked for before the access is simply tried again.
const TRIES: usize = 8;

/// Why a page is not known, where looking again does not help by itself.
pub(crate) enum Obstacle<'a> {
    /// Nothing is mapped there.
    Hole,
    /// The layout does not allow the access.
    Denied,
    /// The page is being revoked: it will be something else in a while.
    Invalidating,
    /// This page cannot be looked for now: a lock of the arena's is not available, or what was
    /// begun there has to end first.
    Busy(&'a Pinned, SegmentPage),
    /// The arena does not map this page, or not writable: the file must provide it.
    Missing(&'a Pinned, SegmentPage),
    /// The space's creator cannot have the memory for the frame table.
    NoMemory,
}

/// How many pages are of interest with one: so many before it, and from it on.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    before: u64,
    after: u64,
}

impl Reach {
    /// The page alone.
    pub(crate) const ALONE: Reach = Reach::ahead(1);

    /// So many pages from the page on.
    pub(crate) const fn ahead(after: u64) -> Reach {
        Reach { before: 0, after }
    }

    /// Pages `around`, which `page` is one of.
    pub(crate) fn new(page: SpacePage, around: &Range<SpacePage>) -> Reach {
        Reach {
            before: page - around.start,
            after: around.end - page,
        }
    }

    /// Those around `page`.
    pub(crate) fn around(self, page: SpacePage) -> Range<SpacePage> {
        page - self.before..page + self.after
    }

    /// The same of a segment.
    fn in_segment(self, page: SegmentPage) -> Range<SegmentPage> {
        let first = page.get().saturating_sub(self.before);
        SegmentPage::new(first)..page + self.after
    }
}

/// What is wanted of a page, and how far the loop has come.
pub(crate) struct Retry<'a> {
    /// Whether it is to be written.
    write: bool,
    /// What is mirrored with it.
    reach: Reach,
    /// Says what becomes of that where the arena lacks pages again and again.
    wider: Option<&'a dyn Fn() -> Reach>,
    tries: usize,
    /// Whether what the arena lacks is mapped there if it is in memory.
    maps: bool,
    /// Whether the arena is expected to lack the page, so that mapping comes first; afterwards,
    /// if anything had to be mapped, whether it could be.
    pub(crate) missing: bool,
}

impl<'a> Retry<'a> {
    /// Looks for a page, to be written if `write`, and for those that are of interest with it.
    pub(crate) fn new(write: bool, reach: Reach) -> Self {
        Retry {
            write,
            reach,
            wider: None,
            tries: TRIES,
            maps: true,
            missing: false,
        }
    }

    /// For more pages where the arena lacks the page, and lacked another of the same segment before:
    /// to have it map one takes long, and with each of its neighbours a little longer.
    pub(crate) fn wider(self, reach: &'a dyn Fn() -> Reach) -> Self {
        Retry {
            wider: Some(reach),
            ..self
        }
    }

    /// No more than `tries` times.
    pub(crate) fn tries(self, tries: usize) -> Self {
        Retry { tries, ..self }
    }

    /// Does not have the arena map anything: a page table there stands in the way of a huge page.
    pub(crate) fn without_mapping(self) -> Self {
        Retry {
            maps: false,
            ..self
        }
    }

    /// Calls `attempt` until it succeeds, with what has been looked for with the page. `policy` is
    /// asked what to do about each obstacle: go on, having done something about it, or stop.
    /// `Ok(None)` where the number of tries is used up.
    pub(crate) fn run<T, S>(
        &mut self,
        space: &Space,
        mut attempt: impl FnMut(Reach) -> Result<T, Miss>,
        mut policy: impl FnMut(Obstacle<'_>) -> ControlFlow<S>,
    ) -> Result<Option<T>, S> {
        // Once: a write may want more than a page that is there.
        let mut may_map = self.maps;
        for _ in 0..self.tries {
            let met = match attempt(self.reach) {
                Ok(done) => return Ok(Some(done)),
                Err(Miss::Hole) => policy(Obstacle::Hole),
                Err(Miss::Denied) => policy(Obstacle::Denied),
                Err(Miss::Invalidating) => policy(Obstacle::Invalidating),
                Err(Miss::Unknown(pinned, page)) => {
                    match self.look(space, &pinned, page, &mut may_map) {
                        Ok(()) => continue,
                        Err(obstacle) => policy(obstacle),
                    }
                }
            };
            if let ControlFlow::Break(stop) = met {
                return Err(stop);
            }
        }
        Ok(None)
    }

    /// Has the table know a page, if that needs no waiting. `Ok` also where things have changed.
    fn look<'p>(
        &mut self,
        space: &Space,
        pinned: &'p Pinned,
        page: SegmentPage,
        may_map: &mut bool,
    ) -> Result<(), Obstacle<'p>> {
        let (segment, write) = (pinned.segment(), self.write);
        let map = |reach: Reach, may_map: &mut bool| {
            *may_map = false;
            segment.map_around(page, &reach.in_segment(page), write)
        };
        if self.missing && *may_map {
            self.missing = map(self.reach, may_map);
        }
        loop {
            let around = self.reach.in_segment(page);
            return match space.mirror(segment, page, &around, write, Locks::Try) {
                Ok(Mirrored::Again) => Ok(()),
                Ok(Mirrored::Invalidating) => Err(Obstacle::Invalidating),
                Ok(Mirrored::Busy) => Err(Obstacle::Busy(pinned, page)),
                Ok(Mirrored::Missing) if *may_map => {
                    if let Some(wider) = self.wider.filter(|_| segment.lacks_pages_again()) {
                        self.reach = wider();
                    }
                    self.missing = map(self.reach, may_map);
                    if self.missing {
                        continue;
                    }
                    Err(Obstacle::Missing(pinned, page))
                }
                Ok(Mirrored::Missing) => Err(Obstacle::Missing(pinned, page)),
                Err(_) => Err(Obstacle::NoMemory),
            };
        }
    }
}
