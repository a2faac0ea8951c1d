// SPDX-License-Identifier: GPL-2.0

//! The steps of which the changes of a layout are made.
//!
//! This file owns how ranges are added, removed, grown, shrunk, cut and joined, and keeps the list,
//! both trees, their summaries and the finger in step. A step fails only without a free node, which
//! `change.rs` has checked before. A step is O(log n).

use super::{
    by_segment::BySegment,
    by_space::BySpace,
    change::{
        Error,
        Finger, //
    },
    chunks::Store,
    node::{
        corrupt,
        AllLinks,
        Node,
        NIL, //
    },
    page::{
        Pages,
        SegmentPage,
        SpacePage, //
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

impl<M: Store> Layout<M> {
    /// Shows `range`, which lies in the `hole` at `place`.
    #[inline(always)]
    pub(super) fn show(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        hole: ops::Range<SpacePage>,
    ) -> Result<(), Error> {
        let continues =
            hole.start == range.start && self.joins(self.range(place.previous), Some(&range));
        let continued = hole.end == range.end && self.joins(Some(&range), self.range(place.next));
        if continues || continued {
            self.show_joined(range, place, continues, continued);
            return Ok(());
        }
        self.add_node(range, place, hole)
    }

    /// Makes a node for `range`, which lies in the `hole` at `place`.
    #[inline(always)]
    fn add_node(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        hole: ops::Range<SpacePage>,
    ) -> Result<(), Error> {
        let taken = self.pool.take().ok_or(Error::NoNodes)?;
        self.mapped = self.mapped.wrapping_add(range.pages());
        let (index, priority) = taken;
        let Place { previous, next, .. } = place;
        let end = range.end;
        let after = if next == NIL { 0 } else { hole.end - end };
        if let Some(node) = self.pool.linked_mut(previous) {
            node.next = index;
            if next == NIL {
                // There was no hole after it before.
                let between = range.start - hole.start;
                Tree::<BySpace>::raise(&mut self.pool, previous, between);
            }
        }
        let (space, gap) = self.space.add(&mut self.pool, taken, place, after);
        let (segment, reach) = self.wait(index, range.segment.id());
        let node = self.pool.get_mut(index);
        node.next = next;
        node.priority = priority;
        (node.space, node.gap) = (space, gap);
        (node.segment, node.reach) = (segment, reach);
        node.fill(range);
        let place = Place {
            previous: index,
            next,
            below_previous: space.child[1] == NIL,
        };
        let hole = end..hole.end;
        self.finger = Some(Finger { place, hole });
        self.add_overdue();
        Ok(())
    }

    /// As [`Self::show()`], or without joining, for what is less usual.
    #[inline(never)]
    pub(super) fn show_at(
        &mut self,
        range: Range<M::Segment>,
        place: Place,
        join: bool,
    ) -> Result<(), Error> {
        let hole = self.hole(place);
        if join {
            self.show(range, place, hole)
        } else {
            self.add_node(range, place, hole)
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
            shown.installed.unite(&range.installed);
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

    /// Joins the range with the one before it if they are one mapping, and returns the node that
    /// has its pages now.
    pub(super) fn join(&mut self, previous: u32, index: u32) -> u32 {
        let (Some(left), Some(right)) = (self.range(previous), self.range(index)) else {
            return index;
        };
        if !self.joins(Some(left), Some(right)) {
            return index;
        }
        left.installed.unite(&right.installed);
        let end = right.end;
        // First, so that no hole appears between the two.
        self.set_end(previous, end);
        self.erase(previous, index);
        previous
    }

    /// Gives the node another range of the same pages, and returns the old one.
    pub(super) fn exchange(
        &mut self,
        index: u32,
        range: Range<M::Segment>,
    ) -> Option<Range<M::Segment>> {
        let mut old = None;
        self.rekey(index, |node| {
            old = node.range.take();
            node.fill(range);
        });
        old
    }

    /// Changes what a node shows of which segment.
    fn rekey(&mut self, index: u32, change: impl FnOnce(&mut Node<M>)) {
        if self.waits(index) {
            self.change_waiting(index, change);
            return;
        }
        let links = self.pool.get(index).all_links();
        self.remove_by_segment(index, &links);
        let node = self.pool.get_mut(index);
        change(node);
        let id = node.segment_id;
        let (segment, reach) = self.wait(index, id);
        let node = self.pool.get_mut(index);
        (node.segment, node.reach) = (segment, reach);
        self.add_overdue();
    }

    /// Adds a node to the tree by segment page.
    #[inline(never)]
    pub(super) fn add_to_tree(&mut self, index: u32) {
        let node = self.pool.get(index);
        let (key, own) = (BySegment::key(node), node.own_reach());
        let taken = (index, node.priority);
        let place = self.segments.find(&self.pool, &key);
        let (segment, reach) = self.segments.add(&mut self.pool, taken, place, own);
        let node = self.pool.get_mut(index);
        (node.segment, node.reach) = (segment, reach);
    }

    /// As [`Self::unlink()`], for what is less usual.
    #[inline(never)]
    fn erase(&mut self, previous: u32, index: u32) -> Option<Range<M::Segment>> {
        let links = self.pool.get(index).all_links();
        self.unlink(previous, index, links)
    }

    /// Removes a range, the one after `previous`, whose node is linked so.
    #[inline(always)]
    pub(super) fn unlink(
        &mut self,
        previous: u32,
        index: u32,
        links: AllLinks,
    ) -> Option<Range<M::Segment>> {
        let next = links.next;
        self.space.remove(&mut self.pool, index, links.space);
        let (end, below_previous) = match self.pool.linked(next) {
            // As in `Tree::between`.
            Some(node) => (node.start, node.space.child[0] != NIL),
            None => (SpacePage::END, true),
        };
        let mut hole = SpacePage::FIRST..end;
        if let Some(node) = self.pool.linked_mut(previous) {
            node.next = next;
            hole.start = node.end();
            if next != NIL {
                Tree::<BySpace>::raise(&mut self.pool, previous, hole.count());
            }
        }
        let place = Place {
            previous,
            next,
            below_previous,
        };
        // Of a link that leads nowhere nothing is known.
        let known = next == NIL || end != SpacePage::END;
        self.finger = known.then_some(Finger { place, hole });
        self.remove_by_segment(index, &links);
        let removed = self.pool.put(index);
        let pages = removed.as_ref().map_or(0, Range::pages);
        self.mapped = self.mapped.wrapping_sub(pages);
        removed
    }

    /// Moves the end of a range. It must not run into another range that stays.
    fn set_end(&mut self, index: u32, end: SpacePage) {
        self.finger = None;
        let waits = self.waits(index);
        let node = self.pool.get_mut(index);
        let old = node.own_reach();
        let Some(range) = &mut node.range else { return };
        if end < range.end {
            range.installed = range.installed.within(&(range.start..end));
        }
        self.mapped = self.mapped.wrapping_add(end - range.start);
        self.mapped = self.mapped.wrapping_sub(range.pages());
        range.end = end;
        let reach = node.own_reach();
        let grew = reach > old;
        if grew && !waits {
            Tree::<BySegment>::raise(&mut self.pool, index, reach);
        } else if !waits {
            BySegment::lower(&mut self.pool, index, old);
        }
        if !grew {
            Tree::<BySpace>::hole_grew(&mut self.pool, index);
        }
    }

    /// Moves the start of a range, the one after `previous`, which it must not run into; `offset`
    /// is what it shows there.
    fn set_start(&mut self, previous: u32, index: u32, start: SpacePage, offset: SegmentPage) {
        self.finger = None;
        let mut mapped = self.mapped;
        // Its place among the ranges of its segment may change.
        self.rekey(index, |node| {
            node.start = start;
            if let Some(range) = &mut node.range {
                if start > range.start {
                    range.installed = range.installed.within(&(start..range.end));
                }
                mapped = mapped.wrapping_add(range.end - start);
                mapped = mapped.wrapping_sub(range.pages());
                range.start = start;
                range.offset = offset;
            }
        });
        self.mapped = mapped;
        Tree::<BySpace>::hole_grew(&mut self.pool, previous);
    }

    /// The range that must be cut before `page` so that what is on one side of it can have the
    /// protection `prot`.
    pub(super) fn cut_needed(&self, page: SpacePage, prot: Prot) -> Option<u32> {
        let (index, range) = self.space.at(&self.pool, page)?;
        (range.start < page && range.prot != prot).then_some(index)
    }

    /// Cuts a range in two, the second of which starts at `page`, and returns the second's node;
    /// there is a free node.
    pub(super) fn cut(&mut self, index: u32, page: SpacePage) -> u32 {
        let Some(range) = self.range(index) else {
            return NIL;
        };
        let second = range.part(page..range.end);
        let next = self.pool.get(index).next;
        self.set_end(index, page);
        let place = Tree::<BySpace>::between(&self.pool, index, next);
        if self.show_at(second, place, false).is_err() {
            corrupt::<M>("no free node for a cut");
        }
        self.pool.get(index).next
    }

    /// Removes what is shown in `pages`, and returns the place where that was; `place` is before
    /// the first page, and there is a free node if it takes one.
    pub(super) fn cut_out(
        &mut self,
        place: Place,
        pages: ops::Range<SpacePage>,
        mut each_removed: impl FnMut(Range<M::Segment>),
    ) -> Place {
        let ops::Range { start, end } = pages;
        let Place {
            previous,
            next: mut index,
            ..
        } = place;
        if let Some(range) = self.range(previous).filter(|range| range.end > start) {
            let to = range.end.min(end);
            let removed = range.part(start..to);
            if range.end > to {
                index = self.cut(previous, to);
            }
            self.set_end(previous, start);
            each_removed(removed);
        }
        while let Some(range) = self.range(index).filter(|range| range.start < end) {
            if range.end > end {
                let removed = range.part(range.start..end);
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
