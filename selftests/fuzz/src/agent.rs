// SPDX-License-Identifier: GPL-2.0

//! Processes with attachments: children, forked or started anew, that serve orders.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use serde::{Deserialize, Serialize};

use crate::op::*;
use crate::probe;
use crate::region::{Region, seen};

/// How long any one answer may take: an emulated debug kernel is slow.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    Touch(Vec<Touch>),
    /// Comes with an asfd or view.
    Attach(Span, u32, u64),
    Detach(Span),
    Mprotect(Span, u32),
    Mremap(Span, u64),
    /// Comes with the child's end of a channel.
    Fork,
    End,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Errno(i32),
    Touched(Vec<Touched>),
    Failed(String),
}

/// A process, which ends when this is dropped.
pub struct Agent {
    channel: Channel,
}

impl Agent {
    /// Starts this program again, in a process that inherits nothing.
    pub fn spawn() -> Result<Agent> {
        // Its end is noticed at this end of the channel.
        let (channel, _) = Channel::spawn(&["agent"])?;
        Agent::new(channel)
    }

    fn new(channel: Channel) -> Result<Agent> {
        channel.set_timeout(TIMEOUT)?;
        Ok(Agent { channel })
    }

    /// Forks the calling process.
    pub fn fork() -> Result<Agent> {
        let (channel, theirs) = Channel::pair()?;
        fork(theirs)?;
        Agent::new(channel)
    }

    /// Forks this process.
    pub fn fork_it(&self) -> Result<Agent> {
        let (channel, theirs) = Channel::pair()?;
        match self.ask(&Order::Fork, &[theirs.as_fd()])? {
            Seen::Done => Agent::new(channel),
            other => bail!("fork: {other:?}"),
        }
    }

    /// Sends an order, and waits for the result.
    pub fn ask(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Seen> {
        self.channel.send(order, fds)?;
        match self.channel.receive()? {
            Some((Answer::Done, _)) => Ok(Seen::Done),
            Some((Answer::Errno(errno), _)) => Ok(Seen::Errno(errno)),
            Some((Answer::Touched(touched), _)) => Ok(Seen::Touched(touched)),
            Some((Answer::Failed(why), _)) => bail!("a process: {why}"),
            None => bail!("a process has died"),
        }
    }

    /// Ends it. When this returns its attachments are gone, since the kernel closes its files
    /// after it has unmapped them.
    pub fn end(self) -> Result<()> {
        self.channel.send(&Order::End, &[])?;
        match self.channel.receive::<Answer>()? {
            None => Ok(()),
            Some((answer, _)) => bail!("a process answers {answer:?} to its end"),
        }
    }
}

/// Lets the kernel reap children.
pub fn ignore_children() {
    // SAFETY: To ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Forks a child that serves at `channel` and has no other file.
fn fork(channel: Channel) -> Result<()> {
    // SAFETY: This is the only thread, so that no lock is held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => {
            // SAFETY: The child never returns from here, so that nothing uses the closed
            // files. Standard output and error stay, and the socket as standard input.
            unsafe {
                libc::dup2(channel.as_fd().as_raw_fd(), 0);
                std::mem::forget(channel);
                libc::close_range(3, u32::MAX, 0);
            }
            let served = Channel::from_stdin().and_then(|it| serve(&it, Region::forked()));
            std::process::exit(if served.is_ok() { 0 } else { 1 });
        }
        _ => Ok(()),
    }
}

/// What a process does that [`Agent::spawn`] started.
pub fn run() -> Result<()> {
    ignore_children();
    probe::install()?;
    serve(&Channel::from_stdin()?, Region::new()?)
}

fn serve(channel: &Channel, mut region: Region) -> Result<()> {
    while let Some((order, fds)) = channel.receive()? {
        if matches!(order, Order::End) {
            break;
        }
        let answer = obey(&mut region, order, fds)
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        channel.send(&answer, &[])?;
    }
    Ok(())
}

fn obey(region: &mut Region, order: Order, mut fds: Vec<OwnedFd>) -> Result<Answer> {
    let mut fd = || fds.pop().context("no file came with it");
    let result = match order {
        Order::Touch(touches) => return Ok(Answer::Touched(region.touch(&touches)?)),
        Order::Attach(at, prot, place) => region.attach(fd()?.as_fd(), at, prot, place),
        Order::Detach(at) => region.detach(at),
        Order::Mprotect(at, prot) => region.mprotect(at, prot),
        Order::Mremap(at, to) => region.mremap(at, to),
        Order::Fork => {
            fork(fd()?.into())?;
            Ok(())
        }
        Order::End => Ok(()),
    };
    Ok(match seen(result) {
        Seen::Errno(errno) => Answer::Errno(errno),
        _ => Answer::Done,
    })
}
