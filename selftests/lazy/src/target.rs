// SPDX-License-Identifier: GPL-2.0

//! The target of a migration: the manager that asks the source for what is touched, and brings
//! what comes. If the source goes before all has come, what has not is given up: who waits for
//! it is refused, and so is who touches it from then on.

use std::os::unix::net::UnixStream;

use address_space::{EventKind, Events};
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};

use crate::chunks::Chunks;
use crate::memory::{CHUNK, CHUNKS, Memory, chunk_at};
use crate::packed::unpack;
use crate::wire;

/// What has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// How many chunks were asked for, because somebody waited.
    pub asked: usize,
    /// How many chunks have come.
    pub chunks: usize,
    /// How many bytes that was.
    pub packed: usize,
}

impl Came {
    /// Whether that is all of the memory.
    pub fn is_all(&self) -> bool {
        self.chunks == CHUNKS
    }
}

/// Serves whoever touches what is not there, until all has come or the source has gone. In the
/// first case `events` may then be dropped, since nobody will wait any more.
pub fn receive(socket: &UnixStream, memory: &Memory, events: &Events) -> Result<Came> {
    let mut chunks = Chunks::new(CHUNKS);
    let mut came = Came::default();
    let mut bytes = vec![0; CHUNK];
    events.set_nonblocking(true)?;
    while !chunks.all_done() {
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(events, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        let arrived = !fds[0].revents().is_empty();
        while let Some(event) = events.try_next()? {
            if event.kind == EventKind::Wait && chunks.want(chunk_at(event.offset)) {
                came.asked += 1;
                // If it has gone, the next receive says so.
                let _ = wire::ask(socket, chunk_at(event.offset));
            }
        }
        if !arrived {
            continue;
        }
        let Some((chunk, packed)) = wire::receive_chunk(socket)? else {
            memory.give_up()?;
            break;
        };
        if chunks.done(chunk) {
            let there = unpack(&packed, &mut bytes)?;
            memory.bring(chunk, there.then_some(&bytes[..]))?;
            came.chunks += 1;
            came.packed += packed.len();
        }
    }
    Ok(came)
}
