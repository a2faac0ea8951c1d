// SPDX-License-Identifier: GPL-2.0

//! The changes of a layout.
//!
//! This file owns what a change is allowed to do, and the way it looks for the ranges it concerns;
//! `edit.rs` makes it. Each change first checks everything that stands against it, and only then
//! changes anything. Each goes down the tree by space page once at most, to the place before its
//! first page, and not even that right behind the last change; from there it follows the list. The
//! usual cases, a map in a hole and an unmap of one whole range, need that place and the nodes on
//! its two sides only. A change is O(log n), and O(log n) for each range that it removes.

use super::{
    chunks::Store,
    node::NIL,
    page::SpacePage,
    tree::Place,
    Layout,
    Prot,
    Range,
    Segment, //
};
use core::ops;

/// Why a change was not made. The layout is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The caller asked for a change without enough free nodes: it has not brought with
    /// [`Layout::refill()`] what [`Layout::need()`] asked for.
    NoNodes,
    /// The caller gave a range that is empty, is not within the space, or runs past the last page
    /// that a segment can have.
    BadRange,
    /// The caller gave a range where something is shown, and did not ask to replace it.
    Exists,
    /// The caller has no room for as many ranges as the change would remove.
    NoRoom,
}

/// A place and the hole there.
pub(super) struct Finger {
    pub(super) place: Place,
    pub(super) hole: ops::Range<SpacePage>,
}

/// What [`Layout::try_remove()`] found.
enum Removal {
    /// Nothing, or one range, which is removed.
    Done,
    /// Parts of ranges, or more than one. They are still shown, from this place on.
    More(Place),
}

impl<S: Segment> Range<S> {
    /// Whether `next` is the same mapping and goes on where this one ends.
    #[inline]
    pub(super) fn continues_as(&self, next: &Self) -> bool {
        self.end == next.start
            && self.offset_end() == next.offset
            && self.prot == next.prot
            && self.segment.id() == next.segment.id()
    }

    /// The part that has `pages`, which lie within the range.
    pub(super) fn part(&self, pages: ops::Range<SpacePage>) -> Self {
        Self {
            start: pages.start,
            end: pages.end,
            segment: self.segment.clone(),
            offset: self.offset + (pages.start - self.start),
            prot: self.prot,
            installed: self.installed.within(&pages),
        }
    }
}

impl<M: Store> Layout<M> {
    /// Nodes that one [`Self::replace()`] takes at most. No other change takes more.
    pub(crate) const REPLACE_NODES: usize = 2;
    /// Nodes that one [`Self::remove()`] takes at most.
    #[cfg(test)]
    pub(crate) const REMOVE_NODES: usize = 1;
    /// Nodes that one [`Self::protect()`] takes at most.
    #[cfg(test)]
    pub(crate) const PROTECT_NODES: usize = 2;

    /// Shows `range`. If `over`, it replaces what is shown there: `each_removed` gets that, in
    /// order, as ranges, or parts of ranges that reach beyond; at most `room` of them.
    ///
    /// A neighbour of the same segment and protection that it continues, or that continues it, is
    /// joined with it. In a hole it takes a node at most, and none if it is joined. O(log n), and
    /// O(log n) for each range that is removed.
    pub(crate) fn replace(
        &mut self,
        range: Range<M::Segment>,
        over: bool,
        room: usize,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Error> {
        let mut range = Some(range);
        match (self.try_show(&mut range, over)?, range) {
            (Some(place), Some(range)) => self.replace_shown(range, place, room, each_removed),
            _ => Ok(()),
        }
    }

    /// Removes what is shown in `pages`: `each_removed` gets that, in order, as ranges, or parts of
    /// ranges that reach beyond; at most `room` of them. There may be holes.
    ///
    /// Takes a node only if it cuts a range in two. O(log n), and O(log n) for each range that is
    /// removed.
    pub(crate) fn remove(
        &mut self,
        pages: ops::Range<SpacePage>,
        room: usize,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Error> {
        if pages.is_empty() {
            return Ok(());
        }
        let mut removed = None;
        let place = match self.try_remove(&pages, room, &mut removed)? {
            Removal::Done => {
                removed.into_iter().for_each(each_removed);
                return Ok(());
            }
            Removal::More(place) => place,
        };
        self.check_room(place, &pages, room)?;
        if !self.pool.has(self.nodes_to_cut_out(place, pages.end)) {
            return Err(Error::NoNodes);
        }
        self.cut_out(place, pages, each_removed);
        Ok(())
    }

    /// Gives what is shown in `pages` the protection `prot`. There may be holes:
    /// [`Self::covered()`] finds out.
    ///
    /// Ranges are cut at the borders where they must be, and joined where they can be. O(log n),
    /// and for each range within O(1) if it is not joined, O(log n) if it is.
    pub(crate) fn protect(
        &mut self,
        pages: ops::Range<SpacePage>,
        prot: Prot,
    ) -> Result<(), Error> {
        if pages.is_empty() {
            return Ok(());
        }
        let borders = [pages.start, pages.end];
        let cuts = borders.map(|page| self.cut_needed(page, prot));
        if !self.pool.has(cuts.iter().flatten().count()) {
            return Err(Error::NoNodes);
        }
        for page in borders {
            // Searched again, because the first cut may have made another range of the second's.
            if let Some(index) = self.cut_needed(page, prot) {
                self.cut(index, page);
            }
        }
        let Place {
            mut previous,
            next: mut index,
            ..
        } = self.space.find(&self.pool, &pages.start);
        while index != NIL && self.pool.get(index).start < pages.end {
            let node = self.pool.get_mut(index);
            let next = node.next;
            if let Some(range) = &mut node.range {
                range.prot = prot;
            }
            previous = self.join(previous, index);
            index = next;
        }
        if index != NIL {
            self.join(previous, index);
        }
        Ok(())
    }

    /// Keeps ranges from being joined until [`Self::release_joins()`] was called as often as this.
    ///
    /// For [`Self::next_showing()`]. A range that is not joined costs a node, and nothing else. What
    /// waits is added to the tree by segment page, and nothing waits then.
    pub(crate) fn hold_joins(&mut self) {
        self.add_waiting();
        self.holds = self.holds.saturating_add(1);
    }

    /// See [`Self::hold_joins()`].
    pub(crate) fn release_joins(&mut self) {
        self.holds = self.holds.saturating_sub(1);
    }

    /// Shows `range`, and takes it, if nothing is shown there. If something is, and it is to be
    /// replaced, returns the place before the first page. (The range is not returned, since it is
    /// large to be moved.)
    #[inline(never)]
    fn try_show(
        &mut self,
        range: &mut Option<Range<M::Segment>>,
        over: bool,
    ) -> Result<Option<Place>, Error> {
        let Some(wanted) = range.as_ref() else {
            return Ok(None);
        };
        self.check_range(wanted)?;
        let (place, hole) = self.place_before(wanted.start);
        if hole.start <= wanted.start && wanted.end <= hole.end {
            match range.take() {
                Some(range) => self.show(range, place, hole).map(|()| None),
                None => Ok(None),
            }
        } else if over {
            Ok(Some(place))
        } else {
            Err(Error::Exists)
        }
    }

    /// Removes what is shown in `pages` if that is nothing, or one whole range, which is `removed`
    /// then. (It is not returned, since it is large to be moved.)
    #[inline(never)]
    fn try_remove(
        &mut self,
        pages: &ops::Range<SpacePage>,
        room: usize,
        removed: &mut Option<Range<M::Segment>>,
    ) -> Result<Removal, Error> {
        let (place, hole) = self.place_before(pages.start);
        if hole.start > pages.start {
            return Ok(Removal::More(place));
        }
        if place.next == NIL || hole.end >= pages.end {
            return Ok(Removal::Done);
        }
        let node = self.pool.get(place.next);
        if node.end() > pages.end || self.start_of(node.next) < pages.end {
            return Ok(Removal::More(place));
        }
        if room == 0 {
            return Err(Error::NoRoom);
        }
        let links = node.all_links();
        *removed = self.unlink(place.previous, place.next, links);
        Ok(Removal::Done)
    }

    /// Checks that `range` can be a range of this space.
    #[inline]
    fn check_range(&self, range: &Range<M::Segment>) -> Result<(), Error> {
        if range.start < range.end
            && range.end <= self.end
            && range.offset.checked_add(range.pages()).is_some()
        {
            Ok(())
        } else {
            Err(Error::BadRange)
        }
    }

    /// The place before the first range that starts at `page` or later, and [`Self::hole()`] there.
    /// O(log n); O(1) right behind the last change, where the next one of a batch often is.
    #[inline(always)]
    fn place_before(&self, page: SpacePage) -> (Place, ops::Range<SpacePage>) {
        if let Some(Finger { place, hole }) = &self.finger {
            if hole.start <= page && page <= hole.end {
                return (*place, hole.clone());
            }
        }
        let place = self.space.find(&self.pool, &page);
        (place, self.hole(place))
    }

    /// The hole at a place, if there is one: else it ends before it starts. After the last range
    /// it runs to the last page that there can be.
    #[inline]
    pub(super) fn hole(&self, place: Place) -> ops::Range<SpacePage> {
        self.end_of(place.previous)..self.start_of(place.next)
    }

    /// The end of the last range before a place; the first page if there is none.
    #[inline]
    fn end_of(&self, previous: u32) -> SpacePage {
        match self.pool.linked(previous) {
            Some(node) => node.end(),
            None => SpacePage::FIRST,
        }
    }

    /// The start of the first range after a place; the end of all pages if there is none.
    #[inline]
    fn start_of(&self, next: u32) -> SpacePage {
        match self.pool.linked(next) {
            Some(node) => node.start,
            None => SpacePage::END,
        }
    }

    /// The first range that has a page after `place`, which is before `start`, or the next.
    fn first_shown(&self, place: Place, start: SpacePage) -> u32 {
        if self.end_of(place.previous) > start {
            place.previous
        } else {
            place.next
        }
    }

    /// Checks that no more than `room` ranges have pages among `pages`.
    fn check_room(
        &self,
        place: Place,
        pages: &ops::Range<SpacePage>,
        mut room: usize,
    ) -> Result<(), Error> {
        let mut index = self.first_shown(place, pages.start);
        while self.start_of(index) < pages.end {
            room = room.checked_sub(1).ok_or(Error::NoRoom)?;
            index = self.pool.get(index).next;
        }
        Ok(())
    }

    /// Nodes that [`Self::cut_out()`] takes before it frees any, up to `end`.
    fn nodes_to_cut_out(&self, place: Place, end: SpacePage) -> usize {
        usize::from(self.end_of(place.previous) > end)
    }

    /// Whether the two ranges are to be joined.
    #[inline]
    pub(super) fn joins(
        &self,
        left: Option<&Range<M::Segment>>,
        right: Option<&Range<M::Segment>>,
    ) -> bool {
        match (left, right) {
            (Some(left), Some(right)) => left.continues_as(right) && self.holds == 0,
            _ => false,
        }
    }

    /// Shows `range` instead of what is shown there: at least one range after `place`, which is
    /// before its first page.
    #[inline(never)]
    fn replace_shown(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        room: usize,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Error> {
        let pages = range.start..range.end;
        self.check_room(place, &pages, room)?;
        let Place { previous, next, .. } = place;
        if self.end_of(previous) <= pages.start {
            let node = self.pool.get(next);
            let same = node.start == pages.start && node.end() == pages.end;
            if same
                && !self.joins(self.range(previous), Some(&range))
                && !self.joins(Some(&range), self.range(node.next))
            {
                self.exchange(next, range)
                    .into_iter()
                    .for_each(each_removed);
                return Ok(());
            }
        }
        if !self.pool.has(1 + self.nodes_to_cut_out(place, pages.end)) {
            return Err(Error::NoNodes);
        }
        let place = self.cut_out(place, pages, each_removed);
        self.show_at(range, place, true)
    }
}
