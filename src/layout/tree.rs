// SPDX-License-Identifier: GPL-2.0

//! A search tree whose nodes are those of a pool: a treap.
//!
//! This file owns the shape of both trees of a layout, which differ in links, keys and summaries
//! ([`Order`]). A treap is ordered by key from left to right and by priority from the root down;
//! with random priorities it is as deep as a tree that was built in random order: O(log n),
//! whatever the order of the keys. Nothing here recurses.
//!
//! There are no rotations. A new node goes to a leaf's place, and then above all the nodes on its
//! path that have a lower priority: these are split, from the lowest up, into the two halves that
//! are below it then. When a node goes, the two trees below it are merged from the top down. On
//! average that changes less than two nodes, whatever the number of nodes.
//!
//! # Summaries
//!
//! A summary is the maximum of something over a subtree, or an upper bound of it; it is never less
//! than those of the nodes right below, so a walk up that raises summaries can stop at the first
//! that is high enough.
//!
//! - The node that goes above others gets the summary of the topmost of them, whose subtree it has
//!   now, raised by its own.
//! - Of two trees that are merged, the higher root has all of both below it then, so its summary
//!   is the greater of both; and so on, down the seam.
//! - [`Order`] decides on the summaries of nodes that lose something below them: those that are
//!   split ([`Order::narrowed`]), and those above a node that goes ([`Order::lost`]).

use super::{
    chunks::Store,
    node::{
        Links,
        Node,
        NIL, //
    },
    pool::Pool,
};
use core::marker::PhantomData;

/// What distinguishes one tree from the other.
pub(super) trait Order {
    /// What the tree is sorted by. No two nodes have the same.
    type Key: Ord;

    /// What a node keeps of its subtree.
    type Summary: Copy + Ord;

    /// The node's key.
    fn key<M: Store>(node: &Node<M>) -> Self::Key;

    /// Whether the node's key is less than `key`.
    fn is_before<M: Store>(node: &Node<M>, key: &Self::Key) -> bool;

    /// The node's place in this tree.
    fn links<M: Store>(node: &Node<M>) -> &Links;

    /// As [`Self::links()`].
    fn links_mut<M: Store>(node: &mut Node<M>) -> &mut Links;

    /// The summary of the subtree under the node.
    fn summary<M: Store>(node: &Node<M>) -> Self::Summary;

    /// As [`Self::summary()`].
    fn summary_mut<M: Store>(node: &mut Node<M>) -> &mut Self::Summary;

    /// `gone`, and all that is below it, is no longer below `index`.
    fn narrowed<M: Store>(pool: &mut Pool<M>, index: u32, gone: u32);

    /// `gone`, which had this summary, is no longer below `parent`, but what was below it is.
    fn lost<M: Store>(pool: &mut Pool<M>, parent: u32, gone: u32);
}

/// A place where a node can be added: between two that follow each other.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The last node before it, or [`NIL`].
    pub(super) previous: u32,
    /// The first node after it, or [`NIL`].
    pub(super) next: u32,
    /// Whether the node before has nothing below it at this place; else the node after has not.
    pub(super) below_previous: bool,
}

/// One tree.
pub(super) struct Tree<O> {
    root: u32,
    order: PhantomData<O>,
}

impl<O: Order> Tree<O> {
    /// A tree of no nodes.
    pub(super) const fn new() -> Self {
        Self {
            root: NIL,
            order: PhantomData,
        }
    }

    /// The topmost node, or [`NIL`].
    #[inline]
    pub(super) fn root(&self) -> u32 {
        self.root
    }

    /// The nodes above and below `index`.
    #[inline]
    pub(super) fn links<M: Store>(pool: &Pool<M>, index: u32) -> Links {
        *O::links(pool.get(index))
    }

    #[inline]
    fn links_mut<M: Store>(pool: &mut Pool<M>, index: u32) -> &mut Links {
        O::links_mut(pool.get_mut(index))
    }

    /// The place before the first node whose key is not less than `key`. O(log n).
    #[inline(always)]
    pub(super) fn find<M: Store>(&self, pool: &Pool<M>, key: &O::Key) -> Place {
        let (mut previous, mut next) = (NIL, NIL);
        let (mut index, mut below_previous) = (self.root, false);
        while let Some(node) = pool.linked(index) {
            below_previous = O::is_before(node, key);
            (previous, next) = if below_previous {
                (index, next)
            } else {
                (previous, index)
            };
            index = O::links(node).child[usize::from(below_previous)];
        }
        Place {
            previous,
            next,
            below_previous,
        }
    }

    /// The place between two nodes that follow each other, or [`NIL`]. O(1).
    pub(super) fn between<M: Store>(pool: &Pool<M>, previous: u32, next: u32) -> Place {
        // Of two neighbours one is below the other, and so has nothing below it on that side.
        let left = next != NIL && Self::links(pool, next).child[0] == NIL;
        Place {
            previous,
            next,
            below_previous: !left,
        }
    }

    /// The first node whose key is not less than `key`, or [`NIL`]. O(log n).
    pub(super) fn lower_bound<M: Store>(&self, pool: &Pool<M>, key: &O::Key) -> u32 {
        self.find(pool, key).next
    }

    /// The node after `index` in the order of keys, or [`NIL`]. O(log n), O(1) on average.
    #[cfg(test)]
    pub(super) fn next<M: Store>(pool: &Pool<M>, index: u32) -> u32 {
        let mut below = Self::links(pool, index).child[1];
        if below == NIL {
            return Self::after_subtree(pool, index);
        }
        loop {
            let next = Self::links(pool, below).child[0];
            if next == NIL {
                return below;
            }
            below = next;
        }
    }

    /// The node that follows everything below `index`, or [`NIL`]: the nearest above that has it
    /// on the left.
    pub(super) fn after_subtree<M: Store>(pool: &Pool<M>, mut index: u32) -> u32 {
        loop {
            let parent = Self::links(pool, index).parent;
            if parent == NIL || Self::links(pool, parent).child[0] == index {
                return parent;
            }
            index = parent;
        }
    }

    /// Makes the node `index`, which is not in the tree, part of it at `place`, where its key
    /// belongs; `own` is its own part in the summaries. Returns its links and its summary, which
    /// the caller stores in it. O(1) on average but for the summaries; with those O(log n).
    #[inline(always)]
    #[must_use]
    pub(super) fn add<M: Store>(
        &mut self,
        pool: &mut Pool<M>,
        (index, priority): (u32, u32),
        place: Place,
        own: O::Summary,
    ) -> (Links, O::Summary) {
        let mut on_right = place.below_previous;
        let mut parent = if on_right { place.previous } else { place.next };
        // What is below the node, on either side, and the summary of all of it.
        let (mut less, mut greater) = (NIL, NIL);
        let mut summary = own;
        let mut from = NIL;
        loop {
            let Some(node) = pool.linked_mut(parent) else {
                self.root = index;
                break;
            };
            if from != NIL {
                on_right = O::links(node).child[1] == from;
            }
            if node.priority >= priority {
                O::links_mut(node).child[usize::from(on_right)] = index;
                break;
            }
            summary = O::summary(node);
            from = parent;
            parent = O::links(node).parent;
            // As long as the path does not turn, all stays as it is.
            if on_right {
                if greater != NIL {
                    Self::narrow(pool, from, true, less, greater);
                }
                less = from;
            } else {
                if less != NIL {
                    Self::narrow(pool, from, false, greater, less);
                }
                greater = from;
            }
        }
        for half in [less, greater] {
            if let Some(node) = pool.linked_mut(half) {
                O::links_mut(node).parent = index;
            }
        }
        Self::raise(pool, parent, own);
        let links = Links {
            parent,
            child: [less, greater],
        };
        (links, summary.max(own))
    }

    /// Makes `half` all that is below `index` on one side, where `gone` was too.
    #[inline]
    fn narrow<M: Store>(pool: &mut Pool<M>, index: u32, on_right: bool, half: u32, gone: u32) {
        Self::links_mut(pool, index).child[usize::from(on_right)] = half;
        if let Some(node) = pool.linked_mut(half) {
            O::links_mut(node).parent = index;
        }
        O::narrowed(pool, index, gone);
    }

    /// Takes the node `index` out, which has these links. O(1) on average but for the summaries;
    /// with those O(log n).
    #[inline(always)]
    pub(super) fn remove<M: Store>(&mut self, pool: &mut Pool<M>, index: u32, links: Links) {
        let Links {
            parent,
            child: [mut left, mut right],
        } = links;
        let mut above = parent;
        let mut on_right = parent != NIL && Self::links(pool, parent).child[1] == index;
        while left != NIL && right != NIL {
            let (less, greater) = (pool.get(left), pool.get(right));
            let summary = O::summary(less).max(O::summary(greater));
            let is_less = less.priority > greater.priority;
            let top = if is_less { left } else { right };
            self.link(pool, above, on_right, top);
            let node = pool.get_mut(top);
            *O::summary_mut(node) = summary;
            (above, on_right) = (top, is_less);
            if is_less {
                left = O::links(node).child[1];
            } else {
                right = O::links(node).child[0];
            }
        }
        let last = if left != NIL { left } else { right };
        self.link(pool, above, on_right, last);
        O::lost(pool, parent, index);
    }

    /// Links `index` below `parent`, or as the root.
    #[inline]
    fn link<M: Store>(&mut self, pool: &mut Pool<M>, parent: u32, on_right: bool, index: u32) {
        match pool.linked_mut(parent) {
            Some(node) => O::links_mut(node).child[usize::from(on_right)] = index,
            None => self.root = index,
        }
        if let Some(node) = pool.linked_mut(index) {
            O::links_mut(node).parent = parent;
        }
    }

    /// Raises the summaries of `index` and of the nodes above it to `least` where they are less.
    /// O(log n), and O(1) for each that is less.
    #[inline]
    pub(super) fn raise<M: Store>(pool: &mut Pool<M>, mut index: u32, least: O::Summary) {
        while let Some(node) = pool.linked_mut(index) {
            if O::summary(node) >= least {
                break;
            }
            *O::summary_mut(node) = least;
            index = O::links(node).parent;
        }
    }
}
