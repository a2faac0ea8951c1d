// SPDX-License-Identifier: GPL-2.0

//! The changes of a layout.
//!
//! Each looks first whether anything stands against it, and only then changes anything. Each goes
//! down the tree by space page once, to the place before its first page; from there it follows the
//! thread. What is usual, a map in a hole and an unmap of one whole range, is told from that place
//! and from the nodes on its two sides.

use super::{
    by_segment::{
        wide,
        BySegment, //
    },
    by_space::BySpace,
    pool::{
        Store,
        NIL, //
    },
    tree::{
        Order,
        Place,
        Tree, //
    },
    Layout,
    Prot,
    Range,
    Segment, //
};
use core::ops;

/// Why a change was refused; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are not enough nodes: [`Layout::refill()`] did not bring what [`Layout::need()`]
    /// wanted.
    Nodes,
    /// The range is empty, does not lie in the space, or runs past the last page a segment can
    /// have.
    Range,
    /// Something is shown there already.
    Shown,
    /// More would have to be handed out than there is room for.
    Room,
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
    fn continues_as(&self, next: &Self) -> bool {
        self.end == next.start
            && self.offset_end() == next.offset
            && self.prot == next.prot
            && self.segment.id() == next.segment.id()
    }

    /// The part from `start` to `end`, which lie within the range.
    fn part(&self, start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            segment: self.segment.clone(),
            offset: self.offset + (start - self.start),
            prot: self.prot,
            entered: self.entered.within(start, end),
        }
    }
}

impl<M: Store> Layout<M> {
    /// Nodes that one [`Self::replace()`] takes at most.
    pub(crate) const REPLACE_NODES: usize = 2;
    /// Nodes that one [`Self::remove()`] takes at most.
    pub(crate) const REMOVE_NODES: usize = 1;
    /// Nodes that one [`Self::protect()`] takes at most.
    pub(crate) const PROTECT_NODES: usize = 2;

    /// Shows `range`. What is shown there gives way if `over`, and is handed out, in order, ranges
    /// or parts of such as reach beyond; at most `room` of them.
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
    ) -> Result<(), Refused> {
        match self.try_show(range, over)? {
            None => Ok(()),
            Some((range, place)) => self.replace_shown(range, place, room, each_removed),
        }
    }

    /// Shows nothing in `start..end` any more, and hands out what was, in order: ranges, or parts
    /// of such as reach beyond; at most `room` of them. Holes are fine.
    ///
    /// Takes a node only when it cuts a range in two. O(log n), and as much for each range that
    /// goes.
    pub(crate) fn remove(
        &mut self,
        start: u64,
        end: u64,
        room: usize,
        mut each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Refused> {
        if start >= end {
            return Ok(());
        }
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
            return Err(Refused::Nodes);
        }
        self.cut_out(place, start, end, each_removed);
        Ok(())
    }

    /// Gives what is shown in `start..end` the protection `prot`. Holes are fine;
    /// [`Self::covered()`] tells whether there are any.
    ///
    /// Ranges are cut at the borders where they must, and joined where they can. O(log n), and O(1)
    /// for each range within that is not joined, O(log n) for each that is.
    pub(crate) fn protect(&mut self, start: u64, end: u64, prot: Prot) -> Result<(), Refused> {
        if start >= end {
            return Ok(());
        }
        let borders = [start, end];
        let cuts = borders.map(|page| self.cut_needed(page, prot));
        if self.pool.free() < cuts.iter().filter(|cut| cut.is_some()).count() {
            return Err(Refused::Nodes);
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

    /// Shows `range` if nothing is shown there. If something is, and is to give way, the range is
    /// returned, with its place.
    #[inline(never)]
    fn try_show(
        &mut self,
        range: Range<M::Segment>,
        over: bool,
    ) -> Result<Option<Stopped<M::Segment>>, Refused> {
        self.admit(&range)?;
        let place = self.space.find(&self.pool, &range.start);
        let hole = self.hole(place);
        if hole.start <= range.start && range.end <= hole.end {
            self.show(range, place, hole)?;
            Ok(None)
        } else if over {
            Ok(Some((range, place)))
        } else {
            Err(Refused::Shown)
        }
    }

    /// Takes out what is shown in `start..end` if that is nothing, or one range as it is.
    #[inline(never)]
    fn try_remove(
        &mut self,
        start: u64,
        end: u64,
        room: usize,
    ) -> Result<Removal<M::Segment>, Refused> {
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
            return Err(Refused::Room);
        }
        match self.take_out(place.previous, place.next) {
            Some(range) => Ok(Removal::Whole(range)),
            None => Ok(Removal::Nothing),
        }
    }

    /// Refuses what could never be a range of this space.
    #[inline]
    fn admit(&self, range: &Range<M::Segment>) -> Result<(), Refused> {
        if range.start < range.end
            && range.end <= self.pages
            && range.offset.checked_add(range.pages()).is_some()
        {
            Ok(())
        } else {
            Err(Refused::Range)
        }
    }

    /// The hole at a place, if there is one: else it ends before it starts. Behind the last range
    /// it has no end.
    #[inline]
    fn hole(&self, place: Place) -> ops::Range<u64> {
        self.end_of(place.previous)..self.start_of(place.next)
    }

    /// Where the range ends that is the last before a place; 0 if there is none.
    #[inline]
    fn end_of(&self, previous: u32) -> u64 {
        if previous == NIL {
            0
        } else {
            self.pool.get(previous).end()
        }
    }

    /// Where the range starts that is the first after a place; if there is none, no page does.
    #[inline]
    fn start_of(&self, next: u32) -> u64 {
        if next == NIL {
            u64::MAX
        } else {
            self.pool.get(next).start
        }
    }

    /// The first range that has a page after `place`, which is before `start`, or the next.
    fn first_shown(&self, place: Place, start: u64) -> u32 {
        if self.end_of(place.previous) > start {
            place.previous
        } else {
            place.next
        }
    }

    /// Refuses to hand out more than `room` ranges of `start..end`.
    fn check_room(
        &self,
        place: Place,
        start: u64,
        end: u64,
        mut room: usize,
    ) -> Result<(), Refused> {
        let mut index = self.first_shown(place, start);
        while self.start_of(index) < end {
            room = room.checked_sub(1).ok_or(Refused::Room)?;
            index = self.pool.get(index).next;
        }
        Ok(())
    }

    /// Nodes that [`Self::cut_out()`] takes before it frees any, up to `end`.
    fn nodes_to_cut_out(&self, place: Place, end: u64) -> usize {
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

    /// Shows `range`, which lies in the `hole` at `place`.
    #[inline(always)]
    fn show(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        hole: ops::Range<u64>,
    ) -> Result<(), Refused> {
        let continues =
            hole.start == range.start && self.joins(self.range(place.previous), Some(&range));
        let continued = hole.end == range.end && self.joins(Some(&range), self.range(place.next));
        if continues || continued {
            self.show_joined(range, place, continues, continued);
            return Ok(());
        }
        self.enter(range, place, hole)
    }

    /// Makes a node for `range`, which lies in the `hole` at `place`.
    #[inline(always)]
    fn enter(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        hole: ops::Range<u64>,
    ) -> Result<(), Refused> {
        let taken = self.pool.take().ok_or(Refused::Nodes)?;
        let (index, priority) = taken;
        let Place { previous, next, .. } = place;
        let behind = if next == NIL {
            0
        } else {
            hole.end.wrapping_sub(range.end)
        };
        if previous != NIL {
            self.pool.get_mut(previous).next = index;
            if next == NIL {
                // It had no hole behind it before.
                let between = range.start.wrapping_sub(hole.start);
                Tree::<BySpace>::raise(&mut self.pool, previous, between);
            }
        }
        let (space, gap) = self.space.add(&mut self.pool, taken, place, behind);
        let key = BySegment::key_of(&range);
        let own = wide(range.segment.id(), range.offset_end());
        let place = self.segments.find(&self.pool, &key);
        let (segment, reach) = self.segments.add(&mut self.pool, taken, place, own);
        let node = self.pool.get_mut(index);
        node.next = next;
        node.priority = priority;
        (node.space, node.gap) = (space, gap);
        (node.segment, node.reach) = (segment, reach);
        node.fill(range);
        Ok(())
    }

    /// As [`Self::show()`], or without joining, for what is less usual.
    #[inline(never)]
    fn show_at(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        join: bool,
    ) -> Result<(), Refused> {
        let hole = self.hole(place);
        if join {
            self.show(range, place, hole)
        } else {
            self.enter(range, place, hole)
        }
    }

    /// Shows `range`, which lies in the hole at `place`, as more of the range that it continues,
    /// or that continues it, or both.
    #[inline(never)]
    fn show_joined(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        continues: bool,
        continued: bool,
    ) {
        let Place { previous, next, .. } = place;
        let into = if continues { previous } else { next };
        if let Some(shown) = self.range(into) {
            shown.entered.unite(&range.entered);
        }
        if continues {
            self.set_end(previous, range.end);
        } else {
            self.set_start(previous, next, range.start, range.offset);
        }
        if continues && continued {
            self.join(previous, next);
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
    ) -> Result<(), Refused> {
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
            return Err(Refused::Nodes);
        }
        let place = self.cut_out(place, start, end, each_removed);
        self.show_at(range, place, true)
    }

    /// Joins the range with the one before it if they are one mapping, and says which node has its
    /// pages now.
    fn join(&mut self, previous: u32, index: u32) -> u32 {
        let (Some(left), Some(right)) = (self.range(previous), self.range(index)) else {
            return index;
        };
        if !self.joins(Some(left), Some(right)) {
            return index;
        }
        left.entered.unite(&right.entered);
        let end = right.end;
        // First, lest a hole be seen between the two.
        self.set_end(previous, end);
        self.erase(previous, index);
        previous
    }

    /// Lets the node stand for another range of the same pages.
    fn exchange(&mut self, index: u32, range: Range<M::Segment>) -> Option<Range<M::Segment>> {
        self.remove_from_segment(index);
        let node = self.pool.get_mut(index);
        let old = node.range.take();
        node.fill(range);
        self.add_to_segment(index);
        old
    }

    /// Takes a node out of the tree by segment page.
    #[inline(never)]
    fn remove_from_segment(&mut self, index: u32) {
        self.segments.remove(&mut self.pool, index);
    }

    /// Adds a node to the tree by segment page.
    #[inline(never)]
    fn add_to_segment(&mut self, index: u32) {
        let node = self.pool.get(index);
        let (key, own) = (BySegment::key(node), node.own_reach());
        let taken = (index, node.priority);
        let place = self.segments.find(&self.pool, &key);
        let (segment, reach) = self.segments.add(&mut self.pool, taken, place, own);
        let node = self.pool.get_mut(index);
        (node.segment, node.reach) = (segment, reach);
    }

    /// As [`Self::take_out()`], for what is less usual.
    #[inline(never)]
    fn erase(&mut self, previous: u32, index: u32) -> Option<Range<M::Segment>> {
        self.take_out(previous, index)
    }

    /// Takes out a range, the one after `previous`.
    #[inline(always)]
    fn take_out(&mut self, previous: u32, index: u32) -> Option<Range<M::Segment>> {
        let next = self.pool.get(index).next;
        self.space.remove(&mut self.pool, index);
        if previous != NIL {
            let node = self.pool.get_mut(previous);
            node.next = next;
            if next != NIL {
                let end = node.end();
                let hole = self.pool.get(next).start.wrapping_sub(end);
                Tree::<BySpace>::raise(&mut self.pool, previous, hole);
            }
        }
        self.segments.remove(&mut self.pool, index);
        self.pool.put(index)
    }

    /// Lets a range end elsewhere, where it meets no other that stays.
    fn set_end(&mut self, index: u32, end: u64) {
        let node = self.pool.get_mut(index);
        let old = node.own_reach();
        let Some(range) = &mut node.range else { return };
        if end < range.end {
            range.entered = range.entered.within(range.start, end);
        }
        range.end = end;
        let reach = node.own_reach();
        if reach > old {
            Tree::<BySegment>::raise(&mut self.pool, index, reach);
        } else {
            BySegment::lower(&mut self.pool, index, old);
            Tree::<BySpace>::hole_grew(&mut self.pool, index);
        }
    }

    /// Lets a range, the one after `previous`, start elsewhere, where it meets no other; `offset`
    /// is what it shows there.
    fn set_start(&mut self, previous: u32, index: u32, start: u64, offset: u64) {
        // Its place among the ranges of its segment may be another then.
        self.remove_from_segment(index);
        let node = self.pool.get_mut(index);
        node.start = start;
        if let Some(range) = &mut node.range {
            if start > range.start {
                range.entered = range.entered.within(start, range.end);
            }
            range.start = start;
            range.offset = offset;
        }
        Tree::<BySpace>::hole_grew(&mut self.pool, previous);
        self.add_to_segment(index);
    }

    /// The range that must be cut before `page` so that what is on one side of it can have the
    /// protection `prot`.
    fn cut_needed(&self, page: u64, prot: Prot) -> Option<u32> {
        let index = self.space.at(&self.pool, page);
        match self.range(index) {
            Some(range) if range.start < page && range.prot != prot => Some(index),
            _ => None,
        }
    }

    /// Makes two of a range, the second of which starts at `page`, and says which node that is;
    /// there is a free node.
    fn cut(&mut self, index: u32, page: u64) -> u32 {
        let Some(range) = self.range(index) else {
            return NIL;
        };
        let behind = range.part(page, range.end);
        let next = self.pool.get(index).next;
        self.set_end(index, page);
        let place = Tree::<BySpace>::between(&self.pool, index, next);
        // There is a node.
        let _ = self.show_at(behind, place, false);
        self.pool.get(index).next
    }

    /// Takes out what is shown in `start..end`, and says where that was; `place` is before
    /// `start`, and there is a free node if it takes one.
    fn cut_out(
        &mut self,
        place: Place,
        start: u64,
        end: u64,
        mut each_removed: impl FnMut(Range<M::Segment>),
    ) -> Place {
        let Place {
            previous,
            next: mut index,
            ..
        } = place;
        if let Some(range) = self.range(previous).filter(|range| range.end > start) {
            let to = range.end.min(end);
            let removed = range.part(start, to);
            if range.end > to {
                index = self.cut(previous, to);
            }
            self.set_end(previous, start);
            each_removed(removed);
        }
        while let Some(range) = self.range(index).filter(|range| range.start < end) {
            if range.end > end {
                let removed = range.part(range.start, end);
                let offset = range.offset + (end - range.start);
                self.set_start(previous, index, end, offset);
                each_removed(removed);
                break;
            }
            let next = self.pool.get(index).next;
            if let Some(removed) = self.erase(previous, index) {
                each_removed(removed);
            }
            index = next;
        }
        Tree::<BySpace>::between(&self.pool, previous, index)
    }
}
