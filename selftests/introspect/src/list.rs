// SPDX-License-Identifier: GPL-2.0

//! The linked list: as the process has it that it belongs to, and how others find their way
//! through its memory.
//!
//! A sequence number says whether a walk met a change, which it then does not count: odd while
//! the list is being changed, and another number after it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// How many nodes a walk follows at most: a change that it meets may lead it in circles.
const MOST: u64 = 1 << 20;

/// The head of a list.
#[derive(Default)]
#[repr(C)]
struct Head {
    sequence: AtomicU64,
    /// The address of the first node; 0 for none.
    first: AtomicU64,
    nodes: AtomicU64,
    /// The sum of all values.
    sum: AtomicU64,
}

/// A node.
#[repr(C)]
struct Node {
    /// The address of the next; 0 for none.
    next: AtomicU64,
    value: AtomicU64,
}

/// A list, each node of which is an allocation of its own.
#[derive(Default)]
pub struct List {
    head: Box<Head>,
    /// The nodes, the first of the list at the front.
    nodes: VecDeque<Box<Node>>,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    pub nodes: u64,
    pub sum: u64,
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of).expose_provenance() as u64
}

impl List {
    /// The address of its head.
    pub fn address(&self) -> u64 {
        address(&*self.head)
    }

    /// What a walk should find.
    pub fn totals(&self) -> Walked {
        Walked {
            nodes: self.head.nodes.load(Relaxed),
            sum: self.head.sum.load(Relaxed),
        }
    }

    /// Puts a new node at the front, and returns its address.
    pub fn push(&mut self, value: u64) -> u64 {
        let first = self.head.first.load(Relaxed);
        let node = Box::new(Node {
            next: AtomicU64::new(first),
            value: AtomicU64::new(value),
        });
        let at = address(&*node);
        self.change(|head| {
            head.first.store(at, Relaxed);
            head.nodes.fetch_add(1, Relaxed);
            head.sum.fetch_add(value, Relaxed);
        });
        self.nodes.push_front(node);
        at
    }

    /// Takes the first node out, and frees it.
    pub fn pop(&mut self) {
        let Some(node) = self.nodes.pop_front() else {
            return;
        };
        self.change(|head| {
            head.first.store(node.next.load(Relaxed), Relaxed);
            head.nodes.fetch_sub(1, Relaxed);
            head.sum.fetch_sub(node.value.load(Relaxed), Relaxed);
        });
    }

    /// Adds to the value of a node.
    pub fn add(&self, node: usize, more: u64) {
        self.change(|head| {
            self.nodes[node].value.fetch_add(more, Relaxed);
            head.sum.fetch_add(more, Relaxed);
        });
    }

    fn change(&self, change: impl FnOnce(&Head)) {
        let head = &*self.head;
        let sequence = head.sequence.load(Relaxed);
        head.sequence.store(sequence + 1, Relaxed);
        fence(Release);
        change(head);
        head.sequence.store(sequence + 2, Release);
    }
}

/// Walks the list whose head is at `head` in some memory, of which `word` reads the word at an
/// address. `None` if it met a change.
pub fn walk(head: u64, mut word: impl FnMut(u64) -> Result<u64>) -> Result<Option<Walked>> {
    let sequence = word(head)?;
    fence(Acquire);
    let mut next = word(head + 8)?;
    let totals = Walked {
        nodes: word(head + 16)?,
        sum: word(head + 24)?,
    };
    let mut walked = Walked { nodes: 0, sum: 0 };
    while next != 0 && walked.nodes < MOST {
        // What was freed may be anything by now.
        let is_node = next % 8 == 0 && next < 1 << 47;
        if !is_node {
            return Ok(None);
        }
        walked.sum = walked.sum.wrapping_add(word(next + 8)?);
        walked.nodes += 1;
        next = word(next)?;
    }
    fence(Acquire);
    let met_change = sequence % 2 != 0 || word(head)? != sequence;
    Ok(Some(walked).filter(|_| !met_change && walked == totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads this process's own memory.
    fn own_word(list: &List) -> impl FnMut(u64) -> Result<u64> {
        let words = [(list.address(), &list.head.sequence)]
            .into_iter()
            .chain([(list.address() + 8, &list.head.first)])
            .chain([(list.address() + 16, &list.head.nodes)])
            .chain([(list.address() + 24, &list.head.sum)])
            .chain(list.nodes.iter().flat_map(|node| {
                let at = address(&**node);
                [(at, &node.next), (at + 8, &node.value)]
            }));
        let words: std::collections::HashMap<u64, u64> =
            words.map(|(at, word)| (at, word.load(Relaxed))).collect();
        move |at| {
            words
                .get(&at)
                .copied()
                .ok_or_else(|| anyhow::anyhow!("no word at {at:#x}"))
        }
    }

    #[test]
    fn walk_finds_what_was_pushed_and_not_popped() {
        let mut list = List::default();
        let empty = walk(list.address(), own_word(&list)).unwrap().unwrap();
        assert_eq!(empty, Walked { nodes: 0, sum: 0 });
        for value in 1..=10 {
            list.push(value);
        }
        list.pop();
        list.add(3, 100);
        let walked = walk(list.address(), own_word(&list)).unwrap().unwrap();
        assert_eq!(walked, Walked { nodes: 9, sum: 145 });
        assert_eq!(walked, list.totals());
    }

    #[test]
    fn walk_that_meets_a_change_does_not_count() {
        let mut list = List::default();
        list.push(7);
        list.head.sequence.fetch_add(1, Relaxed);
        assert_eq!(walk(list.address(), own_word(&list)).unwrap(), None);
        list.head.sequence.fetch_add(1, Relaxed);
        list.head.sum.fetch_add(1, Relaxed);
        assert_eq!(walk(list.address(), own_word(&list)).unwrap(), None);
    }
}
