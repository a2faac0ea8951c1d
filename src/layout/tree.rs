// SPDX-License-Identifier: GPL-2.0

//! A search tree threaded through the nodes of a pool: a treap.
//!
//! Both trees of a layout are this one, with different links, keys and summaries ([`Order`]). A
//! treap is ordered by key from left to right and by priority from the root down; with random
//! priorities it is as deep as a tree that was built in random order: O(log n), whatever the order
//! of the keys. Nothing here recurses.

use super::pool::{
    Node,
    Pool,
    Store,
    NIL, //
};
use core::marker::PhantomData;

/// A node's place in one tree.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub(super) parent: u32,
    /// Left: smaller keys. Right: greater keys.
    pub(super) child: [u32; 2],
}

impl Links {
    pub(super) const NONE: Self = Self {
        parent: NIL,
        child: [NIL; 2],
    };
}

/// What distinguishes one tree from the other.
pub(super) trait Order {
    /// What the tree is sorted by. No two nodes have the same.
    type Key: Ord;

    /// The node's key.
    fn key<S>(node: &Node<S>) -> Self::Key;

    /// The node's place in this tree.
    fn links<S>(node: &Node<S>) -> &Links;

    /// As [`Self::links()`].
    fn links_mut<S>(node: &mut Node<S>) -> &mut Links;

    /// Makes the summary of the subtree under `index` anew from the node itself and from its
    /// children's summaries, and says whether it changed.
    fn summarize<M: Store>(pool: &mut Pool<M>, index: u32) -> bool;
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

    /// The first node whose key is not less than `key`, or [`NIL`]. O(log n).
    pub(super) fn lower_bound<M: Store>(&self, pool: &Pool<M>, key: &O::Key) -> u32 {
        let (mut index, mut found) = (self.root, NIL);
        while index != NIL {
            let node = pool.get(index);
            if O::key(node) < *key {
                index = O::links(node).child[1];
            } else {
                found = index;
                index = O::links(node).child[0];
            }
        }
        found
    }

    /// The node after `index` in the order of keys, or [`NIL`]. O(log n), O(1) on average.
    pub(super) fn next<M: Store>(pool: &Pool<M>, index: u32) -> u32 {
        Self::neighbour(pool, index, 1)
    }

    /// The node before `index` in the order of keys, or [`NIL`]. O(log n), O(1) on average.
    pub(super) fn previous<M: Store>(pool: &Pool<M>, index: u32) -> u32 {
        Self::neighbour(pool, index, 0)
    }

    fn neighbour<M: Store>(pool: &Pool<M>, index: u32, side: usize) -> u32 {
        let links = Self::links(pool, index);
        let mut below = links.child[side];
        if below != NIL {
            loop {
                let next = Self::links(pool, below).child[1 - side];
                if next == NIL {
                    return below;
                }
                below = next;
            }
        }
        Self::above(pool, index, side)
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

    /// The last node before `index`, the last of all if that is [`NIL`]; or [`NIL`]. O(log n).
    pub(super) fn before<M: Store>(&self, pool: &Pool<M>, index: u32) -> u32 {
        if index != NIL {
            return Self::previous(pool, index);
        }
        let (mut last, mut below) = (NIL, self.root);
        while below != NIL {
            last = below;
            below = Self::links(pool, below).child[1];
        }
        last
    }

    /// Adds the node `index`, which is not in the tree. O(log n).
    pub(super) fn insert<M: Store>(&mut self, pool: &mut Pool<M>, index: u32) {
        let key = O::key(pool.get(index));
        let (mut parent, mut side, mut below) = (NIL, 0, self.root);
        while below != NIL {
            let node = pool.get(below);
            parent = below;
            side = usize::from(O::key(node) < key);
            below = O::links(node).child[side];
        }
        self.attach(pool, index, parent, side);
    }

    /// Adds the node `index`, which is not in the tree and belongs right between `previous` and
    /// `next`, the nodes at the hole where it goes, or [`NIL`]. O(log n), O(1) on average but for
    /// the summaries.
    pub(super) fn insert_between<M: Store>(
        &mut self,
        pool: &mut Pool<M>,
        previous: u32,
        index: u32,
        next: u32,
    ) {
        // Of two neighbours one is below the other, and so has nothing below it on that side.
        if next != NIL && Self::links(pool, next).child[0] == NIL {
            self.attach(pool, index, next, 0);
        } else {
            self.attach(pool, index, previous, 1);
        }
    }

    /// Adds the node `index` below `parent`, where there is none on that side.
    fn attach<M: Store>(&mut self, pool: &mut Pool<M>, index: u32, mut parent: u32, side: usize) {
        *Self::links_mut(pool, index) = Links {
            parent,
            child: [NIL; 2],
        };
        if parent == NIL {
            self.root = index;
        } else {
            Self::links_mut(pool, parent).child[side] = index;
        }
        O::summarize(pool, index);
        let priority = pool.get(index).priority;
        while parent != NIL && pool.get(parent).priority < priority {
            self.rotate_up(pool, index, parent);
            parent = Self::links(pool, index).parent;
        }
        Self::refresh(pool, parent);
    }

    /// Takes the node `index` out. O(log n).
    pub(super) fn remove<M: Store>(&mut self, pool: &mut Pool<M>, index: u32) {
        let (parent, below) = loop {
            match Self::links(pool, index) {
                Links {
                    parent,
                    child: [NIL, below] | [below, NIL],
                } => break (parent, below),
                Links {
                    child: [left, right],
                    ..
                } => {
                    let left_first = pool.get(left).priority > pool.get(right).priority;
                    self.rotate_up(pool, if left_first { left } else { right }, index);
                }
            }
        };
        if below != NIL {
            Self::links_mut(pool, below).parent = parent;
        }
        self.replace_child(pool, parent, index, below);
        Self::refresh(pool, parent);
    }

    /// Makes the summaries of `index` and of what is above it true again. O(log n).
    pub(super) fn refresh<M: Store>(pool: &mut Pool<M>, mut index: u32) {
        while index != NIL && O::summarize(pool, index) {
            index = Self::links(pool, index).parent;
        }
    }

    /// Lets `new` stand where `old` stood under `parent`.
    fn replace_child<M: Store>(&mut self, pool: &mut Pool<M>, parent: u32, old: u32, new: u32) {
        if parent == NIL {
            self.root = new;
            return;
        }
        let links = Self::links_mut(pool, parent);
        links.child[usize::from(links.child[1] == old)] = new;
    }

    /// Swaps `index` with `parent`, which is right above it; the order of keys stays.
    fn rotate_up<M: Store>(&mut self, pool: &mut Pool<M>, index: u32, parent: u32) {
        let above = Self::links(pool, parent);
        let side = usize::from(above.child[1] == index);
        // What lies between the two in the order of keys changes hands.
        let between = Self::links(pool, index).child[1 - side];

        let links = Self::links_mut(pool, parent);
        links.child[side] = between;
        links.parent = index;
        if between != NIL {
            Self::links_mut(pool, between).parent = parent;
        }
        let links = Self::links_mut(pool, index);
        links.child[1 - side] = parent;
        links.parent = above.parent;
        self.replace_child(pool, above.parent, parent, index);

        O::summarize(pool, parent);
        O::summarize(pool, index);
    }
}
