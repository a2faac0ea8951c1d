// SPDX-License-Identifier: GPL-2.0

//! The changes of a layout.
//!
//! Each looks first whether it has the nodes that it needs, and only then changes anything.

use super::{
    by_segment::BySegment,
    by_space::BySpace,
    pool::{
        Store,
        NIL, //
    },
    tree::Tree,
    Layout,
    Prot,
    Range,
    Segment, //
};

/// Why a change was refused; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are not enough nodes: [`Layout::refill()`] did not bring what [`Layout::need()`]
    /// wanted.
    Nodes,
    /// The range is empty, does not lie in the space, or runs past the last page a segment can
    /// have; or it must lie in a hole and does not.
    Range,
}

impl<S: Segment> Range<S> {
    /// Whether `next` is the same mapping going on where this one ends.
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
        }
    }
}

impl<M: Store> Layout<M> {
    /// Nodes that one [`Self::insert()`] takes at most.
    pub(crate) const INSERT_NODES: usize = 1;
    /// Nodes that one [`Self::replace()`] takes at most.
    pub(crate) const REPLACE_NODES: usize = 2;
    /// Nodes that one [`Self::remove()`] takes at most.
    pub(crate) const REMOVE_NODES: usize = 1;
    /// Nodes that one [`Self::protect()`] takes at most.
    pub(crate) const PROTECT_NODES: usize = 2;

    /// Shows `range`, where nothing may be shown yet.
    ///
    /// A neighbour of the same segment and protection that it continues, or that continues it, is
    /// joined with it, and then no node is taken. O(log n).
    pub(crate) fn insert(&mut self, range: Range<M::Segment>) -> Result<(), Refused> {
        self.admit(&range)?;
        let next = self.space.ending_after(&self.pool, range.start);
        if next != NIL && self.pool.get(next).bounds().0 < range.end {
            return Err(Refused::Range);
        }
        self.add(range, next)
    }

    /// Shows `range` instead of what is shown there, and hands out what was.
    ///
    /// O(log n) for each range that goes.
    pub(crate) fn replace(
        &mut self,
        range: Range<M::Segment>,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Refused> {
        self.admit(&range)?;
        let (start, end) = (range.start, range.end);
        let first = self.space.ending_after(&self.pool, start);
        if first != NIL && self.pool.get(first).bounds() == (start, end) {
            let previous = Tree::<BySpace>::previous(&self.pool, first);
            let next = Tree::<BySpace>::next(&self.pool, first);
            if !self.joins(self.range(previous), Some(&range))
                && !self.joins(Some(&range), self.range(next))
            {
                self.exchange(first, range)
                    .into_iter()
                    .for_each(each_removed);
                return Ok(());
            }
        }
        if self.pool.free() < Self::INSERT_NODES + self.nodes_to_cut_out(first, start, end) {
            return Err(Refused::Nodes);
        }
        let next = self.cut_out(first, start, end, each_removed);
        self.add(range, next)
    }

    /// Shows nothing in `start..end` any more, and hands out what was: ranges, or parts of such as
    /// reach beyond. Holes are fine.
    ///
    /// Takes a node only when it cuts a range in two. O(log n) for each range that goes.
    pub(crate) fn remove(
        &mut self,
        start: u64,
        end: u64,
        each_removed: impl FnMut(Range<M::Segment>),
    ) -> Result<(), Refused> {
        if start >= end {
            return Ok(());
        }
        let first = self.space.ending_after(&self.pool, start);
        if self.pool.free() < self.nodes_to_cut_out(first, start, end) {
            return Err(Refused::Nodes);
        }
        self.cut_out(first, start, end, each_removed);
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
        let mut index = self.space.ending_after(&self.pool, start);
        while index != NIL && self.pool.get(index).bounds().0 < end {
            if let Some(range) = &mut self.pool.get_mut(index).range {
                range.prot = prot;
            }
            index = self.join_previous(index);
            index = Tree::<BySpace>::next(&self.pool, index);
        }
        if index != NIL {
            self.join_previous(index);
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

    /// Refuses what could never be a range of this space.
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

    /// Nodes that [`Self::cut_out()`] takes before it frees any.
    fn nodes_to_cut_out(&self, first: u32, start: u64, end: u64) -> usize {
        let cuts_in_two = match self.range(first) {
            Some(range) => range.start < start && range.end > end,
            None => false,
        };
        usize::from(cuts_in_two)
    }

    /// Whether the two ranges are to be one.
    pub(super) fn joins(
        &self,
        left: Option<&Range<M::Segment>>,
        right: Option<&Range<M::Segment>>,
    ) -> bool {
        match (left, right) {
            (Some(left), Some(right)) => self.holds == 0 && left.continues_as(right),
            _ => false,
        }
    }

    /// Shows `range`, which lies in the hole before the node `next`.
    fn add(&mut self, range: Range<M::Segment>, next: u32) -> Result<(), Refused> {
        let previous = self.space.before(&self.pool, next);
        let continues = self.joins(self.range(previous), Some(&range));
        let continued = self.joins(Some(&range), self.range(next));
        if continues {
            let mut end = range.end;
            if continued {
                end = self.pool.get(next).bounds().1;
                self.erase(next);
            }
            self.set_end(previous, end);
        } else if continued {
            self.set_start(next, range.start, range.offset);
        } else {
            let index = self.pool.take(range).ok_or(Refused::Nodes)?;
            self.space
                .insert_between(&mut self.pool, previous, index, next);
            self.segments.insert(&mut self.pool, index);
        }
        Ok(())
    }

    /// Joins the range with the one before it if they are one mapping, and says which node has its
    /// pages now.
    fn join_previous(&mut self, index: u32) -> u32 {
        let previous = Tree::<BySpace>::previous(&self.pool, index);
        if !self.joins(self.range(previous), self.range(index)) {
            return index;
        }
        let end = self.pool.get(index).bounds().1;
        self.erase(index);
        self.set_end(previous, end);
        previous
    }

    /// Lets the node stand for another range of the same pages.
    fn exchange(&mut self, index: u32, range: Range<M::Segment>) -> Option<Range<M::Segment>> {
        self.segments.remove(&mut self.pool, index);
        let old = self.pool.get_mut(index).fill(range);
        self.segments.insert(&mut self.pool, index);
        old
    }

    /// Takes a range out.
    fn erase(&mut self, index: u32) -> Option<Range<M::Segment>> {
        self.space.remove(&mut self.pool, index);
        self.segments.remove(&mut self.pool, index);
        self.pool.put(index)
    }

    /// Lets a range end elsewhere, where it meets no other.
    fn set_end(&mut self, index: u32, end: u64) {
        if let Some(range) = &mut self.pool.get_mut(index).range {
            range.end = end;
        }
        Tree::<BySpace>::refresh(&mut self.pool, index);
        Tree::<BySegment>::refresh(&mut self.pool, index);
    }

    /// Lets a range start elsewhere, where it meets no other; `offset` is what it shows there.
    fn set_start(&mut self, index: u32, start: u64, offset: u64) {
        // Its place among the ranges of its segment may be another then.
        self.segments.remove(&mut self.pool, index);
        if let Some(range) = &mut self.pool.get_mut(index).range {
            range.start = start;
            range.offset = offset;
        }
        Tree::<BySpace>::refresh(&mut self.pool, index);
        self.segments.insert(&mut self.pool, index);
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
        let Some(range) = &self.pool.get(index).range else {
            return NIL;
        };
        let behind = range.part(page, range.end);
        let next = Tree::<BySpace>::next(&self.pool, index);
        self.set_end(index, page);
        let Some(new) = self.pool.take(behind) else {
            return NIL;
        };
        self.space.insert_between(&mut self.pool, index, new, next);
        self.segments.insert(&mut self.pool, new);
        new
    }

    /// Takes what is shown in `start..end` out, of which `first` is the first node that ends after
    /// `start`, and says which node follows; there is a free node if it takes one.
    fn cut_out(
        &mut self,
        first: u32,
        start: u64,
        end: u64,
        mut each_removed: impl FnMut(Range<M::Segment>),
    ) -> u32 {
        let mut index = first;
        while let Some(range) = self.range(index) {
            if range.start >= end {
                break;
            }
            let (from, to) = (range.start.max(start), range.end.min(end));
            let reaches_before = range.start < from;
            let reaches_behind = range.end > to;
            let mut next = Tree::<BySpace>::next(&self.pool, index);
            let removed = if reaches_before || reaches_behind {
                let part = range.part(from, to);
                let behind = range.offset + (to - range.start);
                match (reaches_before, reaches_behind) {
                    (true, true) => {
                        next = self.cut(index, to);
                        self.set_end(index, from);
                    }
                    (true, false) => self.set_end(index, from),
                    (false, _) => {
                        self.set_start(index, to, behind);
                        next = index;
                    }
                }
                Some(part)
            } else {
                self.erase(index)
            };
            if let Some(removed) = removed {
                each_removed(removed);
            }
            index = next;
        }
        index
    }
}
