// SPDX-License-Identifier: GPL-2.0

//! What must hold between any two changes, checked from end to end. Only for tests. O(n log n).

use super::{
    by_segment::BySegment,
    by_space::BySpace,
    change::Finger,
    chunks::Store,
    node::{
        wide,
        NIL, //
    },
    page::{
        SegmentPage,
        SpacePage, //
    },
    tree::{
        Order,
        Tree, //
    },
    waiting::MOST,
    Layout,
    Segment, //
};
use std::vec::Vec;

impl<M: Store> Layout<M> {
    /// Panics if the layout is not sound in itself.
    ///
    /// If joins were never held, `joined` is set: then no two neighbours may be one mapping.
    pub(crate) fn check(&mut self, joined: bool) {
        self.pool.check();
        self.check_tree(&self.space, self.len());
        let waiting = self.waiting.count();
        self.check_tree(&self.segments, self.len() - waiting);
        assert!(waiting <= if self.holds == 0 { MOST } else { 0 });
        self.waiting.check(&self.pool);
        let listed: Vec<u32> = self.waiting.iter(&self.pool).collect();
        assert_eq!(listed.len(), waiting, "nodes that wait");
        assert!(listed.into_iter().all(|index| self.waits(index)));
        self.check_bounds(false);
        self.check_reach();
        if let Some(Finger { place, hole }) = &self.finger {
            let between = Tree::<BySpace>::between(&self.pool, place.previous, place.next);
            assert_eq!(*hole, self.hole(*place), "the hole of the last change");
            assert!(self.space.find(&self.pool, &hole.end).next == place.next);
            assert!(between.below_previous == place.below_previous);
        }

        let (mut page, mut previous, mut mapped) = (SpacePage::FIRST, None, 0);
        for range in self.ranges(SpacePage::FIRST..SpacePage::END) {
            assert!(page <= range.start && range.start < range.end && range.end <= self.end);
            assert!(range.offset.checked_add(range.pages()).is_some());
            let installed = range.installed.pages();
            let none = installed == (SpacePage::FIRST..SpacePage::FIRST);
            assert!(none || range.start <= installed.start && installed.end <= range.end);
            assert!(!joined || !self.joins(previous, Some(range)), "{page:?}");
            page = range.end;
            previous = Some(range);
            mapped += range.pages();
        }
        assert_eq!(mapped, self.mapped(), "pages that show something");
    }

    /// Panics unless the bounds of holes are exact: they must be after a search for a single page
    /// that found none.
    pub(crate) fn check_bounds_are_exact(&self) {
        self.check_bounds(true);
    }

    /// Links lead back to where they came from, keys ascend from left to right, priorities do not
    /// from the root down, copies are what they are copies of, and all nodes are there.
    fn check_tree<O: Order>(&self, tree: &Tree<O>, nodes: usize) {
        let mut index = tree.root();
        if index != NIL {
            assert_eq!(Tree::<O>::links(&self.pool, index).parent, NIL);
            while Tree::<O>::links(&self.pool, index).child[0] != NIL {
                index = Tree::<O>::links(&self.pool, index).child[0];
            }
        }
        let mut count = 0;
        while index != NIL {
            count += 1;
            let node = self.pool.get(index);
            for (side, below) in O::links(node).child.into_iter().enumerate() {
                if below != NIL {
                    let below = self.pool.get(below);
                    assert_eq!(O::links(below).parent, index);
                    assert!(below.priority <= node.priority, "not a heap below {index}");
                    let sorted = [O::key(below) < O::key(node), O::key(below) > O::key(node)];
                    assert!(sorted[side], "not sorted below {index}");
                    assert!(O::summary(below) <= O::summary(node), "summary of {index}");
                }
            }
            let range = self.range(index).expect("a vacant node is in a tree");
            assert_eq!(node.start, range.start);
            assert_eq!(node.segment_id, range.segment.id());
            let next = Tree::<O>::next(&self.pool, index);
            if next != NIL {
                assert!(O::key(node) < O::key(self.pool.get(next)));
            }
            index = next;
        }
        assert_eq!(count, nodes, "nodes in the tree");
    }

    /// The list by space page is in the order of the tree; no hole is longer than the bound of its
    /// range's node, and no bound is higher than it must be if they are to be `exact`.
    fn check_bounds(&self, exact: bool) {
        let mut index = self.space.ending_after(&self.pool, SpacePage::FIRST);
        while index != NIL {
            let node = self.pool.get(index);
            assert_eq!(node.next, Tree::<BySpace>::next(&self.pool, index));
            let hole = Tree::<BySpace>::hole_after(&self.pool, index);
            assert!(hole <= node.gap, "bound of {index}");
            let below = self.summaries_below::<BySpace>(index);
            assert!(!exact || below.fold(hole, u64::max) == node.gap, "{index}");
            index = node.next;
        }
    }

    /// The summaries by segment page are what the nodes below make of them.
    fn check_reach(&self) {
        let mut index = self
            .segments
            .lower_bound(&self.pool, &(wide(0, SegmentPage::FIRST), SpacePage::FIRST));
        while index != NIL {
            let node = self.pool.get(index);
            let below = self.summaries_below::<BySegment>(index);
            assert_eq!(below.fold(node.own_reach(), Ord::max), node.reach);
            index = Tree::<BySegment>::next(&self.pool, index);
        }
    }

    fn summaries_below<O: Order>(&self, index: u32) -> impl Iterator<Item = O::Summary> + '_ {
        let below = Tree::<O>::links(&self.pool, index).child.into_iter();
        below
            .filter(|below| *below != NIL)
            .map(|below| O::summary(self.pool.get(below)))
    }

    /// Breaks a part of the node `index`, as a defect might: one of its links leads to no node
    /// then, or it has no range.
    pub(crate) fn break_node(&mut self, index: u32, part: usize) {
        let node = self.pool.get_mut(index);
        let nowhere = NIL - 1;
        match part {
            0 => node.next = nowhere,
            1 => node.space.parent = nowhere,
            2 | 3 => node.space.child[part - 2] = nowhere,
            4 => node.segment.parent = nowhere,
            5 | 6 => node.segment.child[part - 5] = nowhere,
            _ => node.range = None,
        }
    }
}

/// The parts of a node that [`Layout::break_node()`] can break.
pub(crate) const PARTS: usize = 8;
