// SPDX-License-Identifier: GPL-2.0

//! What the guest finds where a file in the window has become shorter than what is mapped of
//! it: a page of zeroes.
//!
//! The guest's access ends KVM_RUN, and nothing says where. So the VMM first makes a hole of
//! all that is past the end of its file: what was there is moved aside, to a part of the
//! space that nobody sees. The guest repeats its access, which now meets a hole, and fdinfo
//! says where those are met. There it gets its page; all else is put back, since a file may
//! become longer, and the guest counts on what it has mapped of it beyond its end.
//!
//! What the guest writes to such a page is lost, and it keeps the page until the file server
//! maps anew.
//!
//! The file server may map something else at any moment. Nothing that it maps is replaced:
//! nothing is mapped or put back but where there is a hole. What is aside by mistake is put
//! back at the next access to it.

use std::fs::File;
use std::ops::Range;

use address_space::{Errno, Prot, Window, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::{READ_WRITE, fdinfo, memfd};
use rustix::fs::{FallocateFlags, fallocate};

use crate::guest_memory::GuestMemory;
use crate::probe::Probe;

const ZEROES: &str = "past-the-end";

/// How many accesses in succession may end without a new page. It happens when two CPUs meet
/// holes at the same time.
const IN_VAIN: u32 = 100;

pub struct PastEnd {
    /// As long as the window, and mapped in it at the same offsets.
    zeroes: File,
    aside: Window,
    probe: Probe,
    /// The ranges of the window that are aside.
    moved: Vec<Range<u64>>,
    in_vain: u32,
    pages: u64,
}

impl PastEnd {
    pub fn new(memory: &GuestMemory) -> Result<PastEnd> {
        let aside = memory.aside();
        Ok(PastEnd {
            zeroes: memfd::sparse(ZEROES, aside.end - aside.start)?,
            aside: memory.space().attach(aside, Prot::READ)?,
            probe: Probe::new()?,
            moved: Vec::new(),
            in_vain: 0,
            pages: 0,
        })
    }

    /// How many pages the guest got.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The guest has accessed something that is not there, and will again.
    pub fn met(&mut self, memory: &GuestMemory) -> Result<()> {
        self.in_vain += 1;
        ensure!(
            self.in_vain < IN_VAIN,
            "the guest has accessed a hole, where no file has become shorter"
        );
        if self.moved.is_empty() {
            return self.make_holes(memory);
        }
        let hole = fdinfo::number(&fdinfo::read(memory.space())?, "last-hole")?;
        for range in std::mem::take(&mut self.moved) {
            if range.contains(&hole) && !self.is_there(memory, hole)? {
                let page = hole..hole + page_size();
                self.put_back(memory, range.start..page.start)?;
                self.give(memory, page.clone())?;
                self.put_back(memory, page.end..range.end)?;
            } else {
                self.put_back(memory, range)?;
            }
        }
        Ok(())
    }

    /// Moves aside all that is past the end of its file.
    fn make_holes(&mut self, memory: &GuestMemory) -> Result<()> {
        for mapping in memory.in_window()? {
            let start = self.first_missing(memory, &mapping.range)?;
            let range = start..mapping.range.end;
            if range.is_empty() {
                continue;
            }
            let to = aside(memory, range.start);
            match memory.space().move_to(range.clone(), to) {
                Ok(()) => self.moved.push(range),
                // The server has unmapped some of it.
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether what is aside can be read by now.
    fn is_there(&self, memory: &GuestMemory, at: u64) -> Result<bool> {
        let offset = at - memory.window().start;
        self.probe.can_read(&self.aside, offset)
    }

    fn put_back(&self, memory: &GuestMemory, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let start = aside(memory, range.start);
        let from = start..start + (range.end - range.start);
        match memory.space().move_to(from.clone(), range.start) {
            // The server has mapped something there.
            Err(error) if error.errno() == Some(Errno::EXIST) => Ok(memory.space().unmap(from)?),
            done => Ok(done?),
        }
    }

    /// Maps zeroes at a page, in place of what is aside.
    fn give(&mut self, memory: &GuestMemory, page: Range<u64>) -> Result<()> {
        let start = aside(memory, page.start);
        memory.space().unmap(start..start + page_size())?;
        let offset = page.start - memory.window().start;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.zeroes, punch, offset, page_size()).context("fallocate")?;
        let map = memory.space().map(&self.zeroes).offset(offset);
        let map = map.length(page_size()).at(page.start).prot(READ_WRITE);
        match map.commit() {
            Ok(_) => {
                self.pages += 1;
                self.in_vain = 0;
                Ok(())
            }
            // The server has mapped something there.
            Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first page of a mapping that cannot be read, or its end. There is none after it
    /// that can be.
    fn first_missing(&self, memory: &GuestMemory, mapping: &Range<u64>) -> Result<u64> {
        let page = page_size();
        let window = memory.window();
        let (mut present, mut missing) = (0, (mapping.end - mapping.start) / page);
        let last = missing - 1;
        // The last page first: mostly it is there.
        let mut next = last;
        while present < missing {
            let at = mapping.start + next * page;
            if self.probe.can_read(memory.memory(), at - window.start)? {
                present = next + 1;
            } else {
                missing = next;
            }
            next = present + (missing - present) / 2;
        }
        Ok(mapping.start + missing * page)
    }
}

/// Where a place in the window is moved to.
fn aside(memory: &GuestMemory, at: u64) -> u64 {
    at - memory.window().start + memory.aside().start
}
