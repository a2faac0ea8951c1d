// SPDX-License-Identifier: GPL-2.0

//! The source of a migration: a VMM whose guest has stopped, and which sends its memory: what
//! the target asks for, at once, and in between all else.

use std::os::unix::net::UnixStream;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::memory::{CHUNKS, Memory};
use crate::packed::pack;
use crate::wire;

/// What the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sends {
    /// All, also what nobody has asked for.
    All,
    /// What is asked for, and that only so many times: then it is alive, and silent.
    Asked {
        /// How many times.
        most: usize,
    },
}

/// What has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// How many chunks that were asked for.
    pub asked: usize,
    /// How many others.
    pub unasked: usize,
}

/// Sends chunks until the target has gone.
pub fn serve(socket: &UnixStream, memory: &Memory, sends: Sends) -> Result<Sent> {
    let mut chunks = Chunks::new(CHUNKS);
    let mut sent = Sent::default();
    let send = |chunk| wire::send_chunk(socket, chunk, &pack(&memory.read(chunk)?));
    loop {
        let next = match sends {
            Sends::All => chunks.next(),
            Sends::Asked { .. } => None,
        };
        if is_asked(socket, next.is_none())? {
            let Some(chunk) = wire::receive_question(socket)? else {
                return Ok(sent);
            };
            // It may have been on its way already.
            if chunks.want(chunk) {
                let silent = matches!(sends, Sends::Asked { most } if sent.asked >= most);
                if !silent {
                    send(chunk)?;
                    chunks.done(chunk);
                    sent.asked += 1;
                }
            }
        } else if let Some(chunk) = next {
            send(chunk)?;
            chunks.done(chunk);
            sent.unasked += 1;
        }
    }
}

/// Whether the target asks for something, or has gone. Waits for that if there is nothing else
/// to do.
fn is_asked(socket: &UnixStream, wait: bool) -> Result<bool> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let timeout = if wait { None } else { Some(&now) };
    Ok(poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout)? > 0)
}
