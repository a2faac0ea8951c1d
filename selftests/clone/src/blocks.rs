// SPDX-License-Identifier: GPL-2.0

//! The memory of a clone: the snapshot, mapped private in an address space, and for reading
//! only. So all that the guest reads is the snapshot's. A block is for writing too from the
//! first write to it on: from then on each page of it that is accessed is copied.
//!
//! Who writes where that is not allowed yet waits, and an event tells the manager of it: a
//! device always, a guest where it has no entry for the page. Where it has one, KVM has its
//! VMM do the write. If it cannot, it does not say where: then nobody may access what is not for
//! writing, until the events have told. An instruction may read a page first and write to it
//! then, which KVM cannot do once more: so what it has read is allowed, the last page first.
//!
//! Locks: what is allowed. The manager's thread and the CPU's take it for one call.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use address_space::{AddressSpace, Device, Event, EventKind, Events, Holes, Prot};
use anyhow::Result;
use rig::{READ_WRITE, fdinfo};
use serde::{Deserialize, Serialize};

use crate::guest::{LENGTH, PAGE};

/// How often it happened that
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// the VMM did a write for the guest,
    pub done: u64,
    /// a write waited,
    pub waited: u64,
    /// it had to be found out where an instruction writes;
    pub searches: u64,
    /// and how many blocks are allowed,
    pub blocks: u64,
    /// and pages are copied, as the kernel counts.
    pub copies: u64,
}

/// What is allowed.
struct Allowed {
    blocks: Vec<bool>,
    /// While what is not allowed to be written cannot be read either.
    search: Option<Search>,
    counts: Counts,
}

/// A search for the page that an instruction writes to.
#[derive(Default)]
struct Search {
    /// The pages that may be read since it began.
    read: Vec<u64>,
    /// Whether one of these has been allowed, and it is not known yet whether it was the right
    /// one.
    guessed: bool,
}

/// The memory of a clone.
pub struct Blocks {
    space: AddressSpace,
    block: usize,
    allowed: Mutex<Allowed>,
}

impl Blocks {
    /// Memory that shows the snapshot, in blocks of so many bytes; and the thread that allows
    /// what is waited for, until the process ends.
    pub fn new(snapshot: impl AsFd, block: usize) -> Result<Arc<Blocks>> {
        let length = LENGTH as u64;
        let space = Device::open()?.create_with(length, Holes::WAIT | Holes::DENIED)?;
        // For writing, or no part of it could be later.
        space
            .batch()
            .map(&snapshot, 0, 0..length, READ_WRITE)
            .private()
            .protect(0..length, Prot::READ)
            .commit()?;
        let events = space.watch(0..length, None)?;
        let allowed = Allowed {
            blocks: vec![false; LENGTH.div_ceil(block)],
            search: None,
            counts: Counts::default(),
        };
        let blocks = Arc::new(Blocks {
            space,
            block,
            allowed: Mutex::new(allowed),
        });
        let manager = blocks.clone();
        thread::spawn(move || {
            // Without the events, who waits is refused: KVM_RUN fails.
            if let Err(error) = manager.serve(events) {
                eprintln!("clone: the manager of its memory: {error:#}");
            }
        });
        Ok(blocks)
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Allows the blocks of a range to be written, since the VMM is about to do that.
    pub fn allow(&self, range: Range<usize>) -> Result<()> {
        let mut allowed = self.allowed();
        allowed.counts.done += 1;
        for block in range.start / self.block..range.end.div_ceil(self.block) {
            self.allow_block(&mut allowed, block)?;
        }
        Ok(())
    }

    /// Makes the instruction wait that the guest executes next, wherever it writes, so that an
    /// event tells where. Or allows what it has read, if that is where it writes: no event tells
    /// of that, since KVM has an entry for reading.
    pub fn search(&self) -> Result<()> {
        let mut allowed = self.allowed();
        if let Some(search) = &mut allowed.search {
            if let Some(page) = search.read.pop() {
                search.guessed = true;
                return self.allow_block(&mut allowed, page as usize / self.block);
            }
        }
        allowed.counts.searches += 1;
        allowed.search = Some(Search::default());
        self.protect_rest(&allowed, Prot::empty())
    }

    pub fn counts(&self) -> Result<Counts> {
        let blocks = self.allowed();
        let copied = fdinfo::number(&fdinfo::read(&self.space)?, "copies")?;
        Ok(Counts {
            blocks: blocks.blocks.iter().filter(|allowed| **allowed).count() as u64,
            copies: copied / PAGE as u64,
            ..blocks.counts
        })
    }

    fn serve(&self, events: Events) -> Result<()> {
        for event in events {
            let event = event?;
            if event.kind == EventKind::Wait {
                self.told(&event)?;
            }
        }
        Ok(())
    }

    fn told(&self, event: &Event) -> Result<()> {
        let mut allowed = self.allowed();
        if event.access.contains(Prot::WRITE) {
            allowed.counts.waited += 1;
            self.allow_block(&mut allowed, event.offset as usize / self.block)?;
            self.end_search(&mut allowed)
        } else {
            match &mut allowed.search {
                None => Ok(()),
                // Another page is read only if the instruction is done.
                Some(search) if search.guessed => self.end_search(&mut allowed),
                Some(search) => {
                    search.read.push(event.offset);
                    // This page alone: what is installed with it must not be what it writes.
                    let page = event.offset..event.offset + PAGE as u64;
                    Ok(self.space.protect(page, Prot::READ)?)
                }
            }
        }
    }

    fn end_search(&self, allowed: &mut Allowed) -> Result<()> {
        match allowed.search.take() {
            Some(_) => self.protect_rest(allowed, Prot::READ),
            None => Ok(()),
        }
    }

    fn allow_block(&self, allowed: &mut Allowed, block: usize) -> Result<()> {
        if !allowed.blocks[block] {
            self.space
                .protect(self.range(block..block + 1), READ_WRITE)?;
            allowed.blocks[block] = true;
        }
        Ok(())
    }

    /// Protects all that is not allowed to be written, in one step.
    fn protect_rest(&self, allowed: &Allowed, prot: Prot) -> Result<()> {
        let mut batch = self.space.batch();
        let mut start = 0;
        for run in allowed.blocks.chunk_by(|one, other| one == other) {
            let blocks = start..start + run.len();
            start = blocks.end;
            if !run[0] {
                batch = batch.protect(self.range(blocks), prot);
            }
        }
        Ok(batch.commit()?)
    }

    fn range(&self, blocks: Range<usize>) -> Range<u64> {
        let end = (blocks.end * self.block).min(LENGTH);
        (blocks.start * self.block) as u64..end as u64
    }

    fn allowed(&self) -> MutexGuard<'_, Allowed> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
