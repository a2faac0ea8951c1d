// SPDX-License-Identifier: GPL-2.0

//! A search tree through the nodes of a pool: a treap.
//!
//! Both trees of a layout are this one, with different links, keys and summaries ([`Order`]). A
//! treap is ordered by key from left to right and by priority from the root down; with random
//! priorities it is as deep as a tree that was built in random order: O(log n), whatever the order
//! of the keys. Nothing here recurses.
//!
//! There are no rotations. A new node goes to a leaf's place, and then above all the nodes on its
//! path that have a lower priority: these are dealt out, from the lowest up, to the two halves
//! that hang below it then. When a node goes, the two trees below it are merged from the top down.
//! On average that concerns less than two nodes, whatever the number of nodes.
//!
//! # Summaries
//!
//! A summary is the maximum of something over a subtree, or a bound of it from above; it is never
//! less than those of the nodes right below, so code that raises one can stop going up where it is
//! high enough.
//!
//! - The node that goes above others gets the summary of the topmost of them, whose subtree it has
//!   now, raised by what it brings itself.
//! - Of two trees that are merged, the higher root has all of both below it then, so its summary
//!   is the greater of both; and so on, down the seam.
//! - What the nodes keep that lose something below them, [`Order`] decides: those that are dealt
//!   out ([`Order::narrowed`]), and those above a node that goes ([`Order::lost`]).

use super::{
    node::{
        Links,
        Node,
        NIL, //
    },
    pool::{
        Pool,
        Store, //
    },
};
use core::marker::PhantomData;

/// What distinguishes one tree from the other.
pub(super) trait Order {
    /// What the tree is sorted by. No two nodes have the same.
    type Key: Ord;

    /// What is known of a subtree.
    type Summary: Copy + Ord;

    /// The node's key.
    fn key<S>(node: &Node<S>) -> Self::Key;

    /// Whether the node's key is less than `key`.
    fn is_before<S>(node: &Node<S>, key: &Self::Key) -> bool;

    /// The node's place in this tree.
    fn links<S>(node: &Node<S>) -> &Links;

    /// As [`Self::links()`].
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links;

    /// The summary of the subtree under the node.
    fn summary<S>(node: &Node<S>) -> Self::Summary;

    /// As [`Self::summary()`].
    fn summary_mut<S>(node: &mut Node<S>) -> &mut Self::Summary;

    /// All that is below `gone`, and that itself, is no longer below `index`.
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
    /// Whether it is the one before that has nothing below it at this place; else the one after.
    below_previous: bool,
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
    #[inline]
    pub(super) fn find<M: Store>(&self, pool: &Pool<M>, key: &O::Key) -> Place {
        let (mut previous, mut next) = (NIL, NIL);
        let (mut index, mut below_previous) = (self.root, false);
        while index != NIL {
            let node = pool.get(index);
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
            return Self::above(pool, index, 1);
        }
        loop {
            let next = Self::links(pool, below).child[0];
            if next == NIL {
                return below;
            }
            below = next;
        }
    }

    /// The nearest node above `index` that has it on the other side than `side`, or [`NIL`]: with
    /// side 1, the one that follows everything below `index`.
    pub(super) fn above<M: Store>(pool: &Pool<M>, mut index: u32, side: usize) -> u32 {
        loop {
            let parent = Self::links(pool, index).parent;
            if parent == NIL || Self::links(pool, parent).child[1 - side] == index {
                return parent;
            }
            index = parent;
        }
    }

    /// Makes the node `index`, which is not in the tree, part of it at `place`, where its key
    /// belongs; it brings `own` into the summaries. Its links and its summary are left to the
    /// caller, which gets both. O(1) on average but for the summaries; with those
    /// O(log n).
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
            if parent == NIL {
                self.root = index;
                break;
            }
            let node = pool.get_mut(parent);
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
                    Self::deal_out(pool, from, 1, less, greater);
                }
                less = from;
            } else {
                if less != NIL {
                    Self::deal_out(pool, from, 0, greater, less);
                }
                greater = from;
            }
        }
        for half in [less, greater] {
            if half != NIL {
                Self::links_mut(pool, half).parent = index;
            }
        }
        Self::raise(pool, parent, own);
        let links = Links {
            parent,
            child: [less, greater],
        };
        (links, summary.max(own))
    }

    /// Lets `half` be all that is below `index` on one side, where `gone` was among it too.
    #[inline]
    fn deal_out<M: Store>(pool: &mut Pool<M>, index: u32, side: usize, half: u32, gone: u32) {
        Self::links_mut(pool, index).child[side] = half;
        if half != NIL {
            Self::links_mut(pool, half).parent = index;
        }
        O::narrowed(pool, index, gone);
    }

    /// Takes the node `index` out. O(1) on average but for the summaries; with those O(log n).
    #[inline(always)]
    pub(super) fn remove<M: Store>(&mut self, pool: &mut Pool<M>, index: u32) {
        let Links {
            parent,
            child: [mut left, mut right],
        } = Self::links(pool, index);
        let mut above = parent;
        let mut on_right = parent != NIL && Self::links(pool, parent).child[1] == index;
        while left != NIL && right != NIL {
            let (less, greater) = (pool.get(left), pool.get(right));
            let summary = O::summary(less).max(O::summary(greater));
            let is_less = less.priority > greater.priority;
            let top = if is_less { left } else { right };
            self.hang(pool, above, on_right, top);
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
        self.hang(pool, above, on_right, last);
        O::lost(pool, parent, index);
    }

    /// Lets `index` hang below `parent`.
    #[inline]
    fn hang<M: Store>(&mut self, pool: &mut Pool<M>, parent: u32, on_right: bool, index: u32) {
        if parent == NIL {
            self.root = index;
        } else {
            Self::links_mut(pool, parent).child[usize::from(on_right)] = index;
        }
        if index != NIL {
            Self::links_mut(pool, index).parent = parent;
        }
    }

    /// Sees to it that the summaries of `index` and of what is above it are no less than `least`.
    /// O(log n); only as many as are less cost anything.
    #[inline]
    pub(super) fn raise<M: Store>(pool: &mut Pool<M>, mut index: u32, least: O::Summary) {
        while index != NIL {
            let node = pool.get_mut(index);
            if O::summary(node) >= least {
                break;
            }
            *O::summary_mut(node) = least;
            index = O::links(node).parent;
        }
    }
}
