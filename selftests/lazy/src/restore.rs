// SPDX-License-Identifier: GPL-2.0

//! The manager of a lazy restore: brings from a snapshot what is touched, at once, and in
//! between what is not. A chunk that cannot be read is given up: who touches it is refused.

use address_space::{Event, EventKind, Events};
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};

use crate::chunks::Chunks;
use crate::memory::{CHUNK, CHUNKS, Memory, chunk_at};
use crate::snapshot::Snapshot;

/// What is brought before anybody touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Nothing: it ends when so many chunks have been touched.
    Nothing { until: usize },
    /// All, and then it ends.
    All,
}

/// What a manager has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// How many chunks it has brought because somebody waited.
    pub touched: usize,
    /// How many without.
    pub background: usize,
    /// Which chunks it could not bring, and why.
    pub lost: Vec<(usize, String)>,
    /// Whose accesses were refused: events that it was told of meanwhile.
    pub refused: Vec<Event>,
}

/// A manager, for a thread or a process.
pub struct Restore<'a> {
    memory: &'a Memory,
    snapshot: &'a Snapshot,
    chunks: Chunks,
    bytes: Vec<u8>,
    brought: Brought,
}

impl<'a> Restore<'a> {
    pub fn new(memory: &'a Memory, snapshot: &'a Snapshot) -> Restore<'a> {
        Restore {
            memory,
            snapshot,
            chunks: Chunks::new(CHUNKS),
            bytes: vec![0; CHUNK],
            brought: Brought::default(),
        }
    }

    /// Serves whoever touches what is not there, until all is there, or what `background` says:
    /// in the first case `events` may then be dropped, since nobody will wait any more.
    pub fn serve(&mut self, events: &Events, background: Background) -> Result<()> {
        events.set_nonblocking(true)?;
        while !self.chunks.all_done() {
            // Who waits comes first: it is asked for after each chunk.
            while let Some(event) = events.try_next()? {
                self.told(&event)?;
            }
            match background {
                Background::All => {
                    if let Some(chunk) = self.chunks.next() {
                        self.brought.background += 1;
                        self.bring(chunk)?;
                    }
                }
                Background::Nothing { until } => {
                    if self.brought.touched >= until {
                        break;
                    }
                    poll(&mut [PollFd::new(events, PollFlags::IN)], None)?;
                }
            }
        }
        Ok(())
    }

    /// Brings what an event tells of, unless that has been done.
    pub fn told(&mut self, event: &Event) -> Result<()> {
        let chunk = chunk_at(event.offset);
        if event.kind != EventKind::Wait {
            self.brought.refused.push(*event);
        } else if self.chunks.want(chunk) {
            self.brought.touched += 1;
            self.bring(chunk)?;
        }
        Ok(())
    }

    /// What has been done.
    pub fn brought(&self) -> &Brought {
        &self.brought
    }

    fn bring(&mut self, chunk: usize) -> Result<()> {
        self.chunks.done(chunk);
        match self.snapshot.read(chunk, &mut self.bytes) {
            Ok(true) => self.memory.bring(chunk, Some(&self.bytes)),
            Ok(false) => self.memory.bring(chunk, None),
            Err(error) => {
                self.brought.lost.push((chunk, format!("{error:#}")));
                self.memory.give_up_chunk(chunk)
            }
        }
    }
}
