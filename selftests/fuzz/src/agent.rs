// SPDX-License-Identifier: GPL-2.0

//! Processes with attachments: children, forked or started anew, that serve orders.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
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
    Forked(i32),
    Failed(String),
}

/// A process, which ends when this is dropped.
pub struct Agent {
    channel: Channel,
    /// Its process id, if it was forked.
    pid: Option<i32>,
}

impl Agent {
    /// Starts this program again, in a process that inherits nothing.
    pub fn spawn() -> Result<Agent> {
        // Its end is noticed at this end of the channel.
        let (channel, _) = Channel::spawn(&["agent"])?;
        Agent::new(channel, None)
    }

    fn new(channel: Channel, pid: Option<i32>) -> Result<Agent> {
        channel.set_timeout(TIMEOUT)?;
        Ok(Agent { channel, pid })
    }

    /// Forks the calling process.
    pub fn fork() -> Result<Agent> {
        let (channel, theirs) = Channel::pair()?;
        let pid = fork(theirs)?;
        Agent::new(channel, Some(pid))
    }

    /// Forks this process.
    pub fn fork_it(&self) -> Result<Agent> {
        let (channel, theirs) = Channel::pair()?;
        self.channel.send(&Order::Fork, &[theirs.as_fd()])?;
        match self.channel.receive()? {
            Some((Answer::Forked(pid), _)) => Agent::new(channel, Some(pid)),
            other => bail!("fork: {:?}", other.map(|(answer, _)| answer)),
        }
    }

    /// Sends an order, and waits for the result.
    pub fn ask(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Seen> {
        self.start(order, fds)?;
        self.result()
    }

    /// Sends an order.
    pub fn start(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(order, fds)
    }

    /// Waits for the result of an order.
    pub fn result(&self) -> Result<Seen> {
        match self.channel.receive()? {
            Some((Answer::Done, _)) => Ok(Seen::Done),
            Some((Answer::Errno(errno), _)) => Ok(Seen::Errno(errno)),
            Some((Answer::Touched(touched), _)) => Ok(Seen::Touched(touched)),
            Some((Answer::Forked(pid), _)) => bail!("process {pid} was forked"),
            Some((Answer::Failed(why), _)) => bail!("a process: {why}"),
            None => bail!("a process has died"),
        }
    }

    /// Sends a signal to a process that was forked.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.pid.context("it was not forked")?;
        // SAFETY: A signal changes no memory of this process.
        let ret = unsafe { libc::kill(pid, signal) };
        ensure!(ret == 0, "kill: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Waits until it has been killed. Its attachments are gone then.
    pub fn killed(self) -> Result<()> {
        match self.channel.receive::<Answer>()? {
            None => Ok(()),
            Some((answer, _)) => bail!("a process that is killed answers {answer:?}"),
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

/// Lets the kernel reap children; and lets SIGUSR1 interrupt what waits, and do nothing else.
pub fn prepare_signals() {
    // SAFETY: To ignore a signal needs no handler, and the other does nothing.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::signal(libc::SIGUSR1, on_signal as *const () as usize);
    }
}

extern "C" fn on_signal(_: i32) {}

/// Forks a child that serves at `channel` and has no other file; returns its process id.
fn fork(channel: Channel) -> Result<i32> {
    // SAFETY: If there is another thread it is in the kernel, so that no lock is held in the
    // child.
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
        pid => Ok(pid),
    }
}

/// What a process does that [`Agent::spawn`] started.
pub fn run() -> Result<()> {
    prepare_signals();
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
        Order::Fork => return Ok(Answer::Forked(fork(fd()?.into())?)),
        Order::End => Ok(()),
    };
    Ok(match seen(result) {
        Seen::Errno(errno) => Answer::Errno(errno),
        _ => Answer::Done,
    })
}
