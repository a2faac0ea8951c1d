// SPDX-License-Identifier: GPL-2.0

//! What the processes are told to do, and answer.

use serde::{Deserialize, Serialize};

use crate::list::Walked;

/// What a process is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The target: lend all of its memory.
    Lend,
    /// The target: push so many nodes.
    Push(u64),
    /// The target: pop so many.
    Pop(u64),
    /// The target: add to the value of a node.
    Add { node: usize, more: u64 },
    /// The target: change the list all the time, or stop.
    Churn(bool),
    /// The target: map a page of its own, and write a word to it.
    MapPage(u64),
    /// The target: unmap that page.
    UnmapPage,
    /// The target: what its list comes to.
    Totals,
    /// The target: take its memory back.
    TakeBack,

    /// The tool: look at the memory that comes with this; end by a signal, or read zeroes,
    /// where there is nothing.
    Look { ends: bool },
    /// The tool: walk the list so often, each time until a walk meets no change.
    Walk { head: u64, times: u64 },
    /// The tool: load the word at an address.
    Load(u64),
    /// The tool: have the kernel copy the word at an address.
    Copy(u64),
}

/// What it answers.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    #[default]
    Done,
    /// An address.
    Address(u64),
    /// What the list comes to.
    Totals(Walked),
    /// What the walks found that met no change, the first and the last; how many did; and how
    /// many page faults the process took.
    Walked {
        first: Walked,
        last: Walked,
        met_change: u64,
        faults: u64,
    },
    /// A word.
    Word(u64),
    /// There is nothing: EFAULT.
    Hole,
}
