// SPDX-License-Identifier: GPL-2.0

//! What must hold between any two changes, looked at from end to end. Only for tests.

use super::{
    by_segment::BySegment,
    by_space::BySpace,
    pool::{
        Store,
        NIL, //
    },
    tree::{
        Order,
        Tree, //
    },
    Layout, //
};

impl<M: Store> Layout<M> {
    /// Panics if the layout is not sound in itself.
    ///
    /// `joined` says that joins were never held, so that no two neighbours may be one mapping.
    pub(crate) fn check(&mut self, joined: bool) {
        self.pool.check();
        let root = self.space.root();
        self.check_tree::<BySpace>(root);
        let root = self.segments.root();
        self.check_tree::<BySegment>(root);

        let (mut page, mut previous) = (0, None);
        for range in self.ranges(0, u64::MAX) {
            assert!(page <= range.start && range.start < range.end && range.end <= self.pages);
            assert!(range.offset.checked_add(range.pages()).is_some());
            assert!(!joined || !self.joins(previous, Some(range)), "{page}");
            page = range.end;
            previous = Some(range);
        }
    }

    /// Links lead back to where they came from, keys ascend from left to right, priorities do not
    /// from the root down, summaries are what the nodes below make of them, and all nodes are
    /// there.
    fn check_tree<O: Order>(&mut self, root: u32) {
        let mut index = root;
        if index != NIL {
            assert_eq!(Tree::<O>::links(&self.pool, index).parent, NIL);
            while Tree::<O>::links(&self.pool, index).child[0] != NIL {
                index = Tree::<O>::links(&self.pool, index).child[0];
            }
        }
        let mut count = 0;
        while index != NIL {
            count += 1;
            let priority = self.pool.get(index).priority;
            let links = Tree::<O>::links(&self.pool, index);
            for (side, below) in links.child.into_iter().enumerate() {
                if below != NIL {
                    let (node, below) = (self.pool.get(index), self.pool.get(below));
                    assert_eq!(O::links(below).parent, index);
                    assert!(below.priority <= priority, "not a heap below {index}");
                    let sorted = [O::key(below) < O::key(node), O::key(below) > O::key(node)];
                    assert!(sorted[side], "not sorted below {index}");
                }
            }
            assert!(!O::summarize(&mut self.pool, index), "summary of {index}");
            let next = Tree::<O>::next(&self.pool, index);
            if next != NIL {
                assert!(O::key(self.pool.get(index)) < O::key(self.pool.get(next)));
                assert_eq!(Tree::<O>::previous(&self.pool, next), index);
            }
            index = next;
        }
        assert_eq!(count, self.len(), "nodes in the tree");
    }
}
