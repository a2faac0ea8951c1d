// SPDX-License-Identifier: GPL-2.0

//! The changes of a layout.
//!
//! Each checks first whether it can be made, and only then changes anything. Each goes down the
//! tree by space page once, to the place before its first page; from there it follows the list. The
//! usual cases, a map in a hole and an unmap of one whole range, are recognised by that place and
//! the nodes on its two sides.

use super::{
    node::NIL,
    page::SpacePage,
    pool::Store,
    tree::Place,
    Layout,
    Prot,
    Range,
    Segment, //
};
use core::ops;

/// Why a change was not made; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The caller has not brought enough nodes: [`Layout::refill()`] with what [`Layout::need()`]
    /// wanted.
    NoNodes,
    /// The range is empty, does not lie in the space, or runs past the last page a segment can
    /// have.
    BadRange,
    /// Something is shown there already, and is not to be replaced.
    Exists,
    /// More ranges would be removed than the caller has room for.
    NoRoom,
}

/// A range that cannot be shown yet, and the place before its first page.
type Stopped<S> = (Range<S>, Place);

/// What [`Layout::try_remove()`] found.
enum Removal<S> {
    Nothing,
    /// One range, which is taken out.
    Whole(Range<S>),
    /// Parts of ranges, or more than one. They are shown still, from this place on.
    More(Place),
}

impl<S: Segment> Range<S> {
    /// Whether `next` is the same mapping going on where this one ends.
    #[inline]
    pub(super) fn continues_as(&self, next: &Self) -> bool {
        self.end == next.start
            && self.offset_end() == next.offset
            && self.prot == next.prot
            && self.segment.id() == next.segment.id()
    }

    /// The part from `start` to `end`, which lie within the range.
    pub(super) fn part(&self, start: SpacePage, end: SpacePage) -> Self {
        Self {
            start,
            end,
            segment: self.segment.clone(),
            offset: self.offset + (start - self.start),
            prot: self.prot,
            installed: self.installed.within(&(start..end)),
        }
    }
}

impl<M: Store> Layout<M> {
    /// Nodes that one [`Self::replace()`] takes at most.
    pub(crate) const REPLACE_NODES: usize = 2;
    /// Nodes that one [`Self::remove()`] takes at most.
    #[cfg(test)]
    pub(crate) const REMOVE_NODES: usize = 1;
    /// Nodes that one [`Self::protect()`] takes at most.
    #[cfg(test)]
    pub(crate) const PROTECT_NODES: usize = 2;

    /// Shows `range`. What is shown there is replaced if `over`, and passed to `each_removed`, in
    /// order: ranges, or parts of those that reach beyond; at most `room` of them.
    ///
    /// A neighbour of the same segment and protection that it continues, or that continues it, is
    /// joined with it. In a hole it takes a node at most, and none if it is joined. O(log n), and
    /// as much for each range that goes.
    pub(crate) fn replace(
        &mut self,
        range: Range<M::Segment>,
        over: bool,
        room: usize,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Error> {
        match self.try_show(range, over)? {
            None => Ok(()),
            Some((range, place)) => self.replace_shown(range, place, room, each_removed),
        }
    }

    /// Shows nothing in `pages` any more, and passes to `each_removed` what was shown, in order:
    /// ranges, or parts of those that reach beyond; at most `room` of them. Holes are fine.
    ///
    /// Takes a node only when it cuts a range in two. O(log n), and as much for each range that
    /// goes.
    pub(crate) fn remove(
        &mut self,
        pages: ops::Range<SpacePage>,
        room: usize,
        mut each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Error> {
        if pages.is_empty() {
            return Ok(());
        }
        let (start, end) = (pages.start, pages.end);
        let place = match self.try_remove(start, end, room)? {
            Removal::Nothing => return Ok(()),
            Removal::Whole(range) => {
                each_removed(range);
                return Ok(());
            }
            Removal::More(place) => place,
        };
        self.check_room(place, start, end, room)?;
        if self.pool.free() < self.nodes_to_cut_out(place, end) {
            return Err(Error::NoNodes);
        }
        self.cut_out(place, start, end, each_removed);
        Ok(())
    }

    /// Gives what is shown in `pages` the protection `prot`. Holes are fine; [`Self::covered()`]
    /// says whether there are any.
    ///
    /// Ranges are cut at the borders where they must, and joined where they can. O(log n), and O(1)
    /// for each range within that is not joined, O(log n) for each that is.
    pub(crate) fn protect(
        &mut self,
        pages: ops::Range<SpacePage>,
        prot: Prot,
    ) -> Result<(), Error> {
        if pages.is_empty() {
            return Ok(());
        }
        let (start, end) = (pages.start, pages.end);
        let borders = [start, end];
        let cuts = borders.map(|page| self.cut_needed(page, prot));
        if self.pool.free() < cuts.iter().filter(|cut| cut.is_some()).count() {
            return Err(Error::NoNodes);
        }
        for page in borders {
            // Asked anew, because the first cut may have made another range of the second's.
            if let Some(index) = self.cut_needed(page, prot) {
                self.cut(index, page);
            }
        }
        let Place {
            mut previous,
            next: mut index,
            ..
        } = self.space.find(&self.pool, &start);
        while index != NIL && self.pool.get(index).start < end {
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

    /// From now on no two ranges become one, until [`Self::release_joins()`] was called as often.
    ///
    /// For [`Self::next_showing()`]. What is not joined costs a node more, and nothing else.
    pub(crate) fn hold_joins(&mut self) {
        self.holds = self.holds.saturating_add(1);
    }

    /// See [`Self::hold_joins()`].
    pub(crate) fn release_joins(&mut self) {
        self.holds = self.holds.saturating_sub(1);
    }

    /// Shows `range` if nothing is shown there. If something is, and is to be replaced, the range
    /// is returned, with its place.
    #[inline(never)]
    fn try_show(
        &mut self,
        range: Range<M::Segment>,
        over: bool,
    ) -> Result<Option<Stopped<M::Segment>>, Error> {
        self.admit(&range)?;
        let place = self.space.find(&self.pool, &range.start);
        let hole = self.hole(place);
        if hole.start <= range.start && range.end <= hole.end {
            self.show(range, place, hole)?;
            Ok(None)
        } else if over {
            Ok(Some((range, place)))
        } else {
            Err(Error::Exists)
        }
    }

    /// Takes out what is shown in `start..end` if that is nothing, or one range as it is.
    #[inline(never)]
    fn try_remove(
        &mut self,
        start: SpacePage,
        end: SpacePage,
        room: usize,
    ) -> Result<Removal<M::Segment>, Error> {
        let place = self.space.find(&self.pool, &start);
        let hole = self.hole(place);
        if hole.start > start {
            return Ok(Removal::More(place));
        }
        if place.next == NIL || hole.end >= end {
            return Ok(Removal::Nothing);
        }
        let node = self.pool.get(place.next);
        if node.end() > end || self.start_of(node.next) < end {
            return Ok(Removal::More(place));
        }
        if room == 0 {
            return Err(Error::NoRoom);
        }
        match self.take_out(place.previous, place.next) {
            Some(range) => Ok(Removal::Whole(range)),
            None => Ok(Removal::Nothing),
        }
    }

    /// Refuses what could never be a range of this space.
    #[inline]
    fn admit(&self, range: &Range<M::Segment>) -> Result<(), Error> {
        if range.start < range.end && range.end <= self.end && range.offset <= range.offset_end() {
            Ok(())
        } else {
            Err(Error::BadRange)
        }
    }

    /// The hole at a place, if there is one: else it ends before it starts. Behind the last range
    /// it has no end.
    #[inline]
    pub(super) fn hole(&self, place: Place) -> ops::Range<SpacePage> {
        self.end_of(place.previous)..self.start_of(place.next)
    }

    /// Where the range ends that is the last before a place; 0 if there is none.
    #[inline]
    fn end_of(&self, previous: u32) -> SpacePage {
        if previous == NIL {
            SpacePage::new(0)
        } else {
            self.pool.get(previous).end()
        }
    }

    /// Where the range starts that is the first after a place; if there is none, no page does.
    #[inline]
    fn start_of(&self, next: u32) -> SpacePage {
        if next == NIL {
            SpacePage::new(u64::MAX)
        } else {
            self.pool.get(next).start
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

    /// Refuses to remove more than `room` ranges of `start..end`.
    fn check_room(
        &self,
        place: Place,
        start: SpacePage,
        end: SpacePage,
        mut room: usize,
    ) -> Result<(), Error> {
        let mut index = self.first_shown(place, start);
        while self.start_of(index) < end {
            room = room.checked_sub(1).ok_or(Error::NoRoom)?;
            index = self.pool.get(index).next;
        }
        Ok(())
    }

    /// Nodes that [`Self::cut_out()`] takes before it frees any, up to `end`.
    fn nodes_to_cut_out(&self, place: Place, end: SpacePage) -> usize {
        usize::from(self.end_of(place.previous) > end)
    }

    /// Whether the two ranges are to be one.
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
        let (start, end) = (range.start, range.end);
        self.check_room(place, start, end, room)?;
        let Place { previous, next, .. } = place;
        if self.end_of(previous) <= start {
            let node = self.pool.get(next);
            let same = (node.start, node.end()) == (start, end);
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
        if self.pool.free() < 1 + self.nodes_to_cut_out(place, end) {
            return Err(Error::NoNodes);
        }
        let place = self.cut_out(place, start, end, each_removed);
        self.show_at(range, place, true)
    }
}
