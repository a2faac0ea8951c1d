// SPDX-License-Identifier: GPL-2.0

//! The other processes: each is this program again, in a role, and does what it is told over a
//! channel. Some die of a signal on purpose.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::process::{end_with_parent, no_core_files};
use serde::{Deserialize, Serialize};

use crate::list::Walked;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

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
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
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
    /// It failed, and why.
    Failed(String),
}

/// A role.
pub trait Role {
    /// Does what it is told; answers may have a file descriptor.
    fn obey(&mut self, order: Order, fds: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>)>;
}

/// Does what it is told, until the other side ends.
pub fn serve(mut role: impl Role) -> Result<()> {
    end_with_parent()?;
    no_core_files()?;
    let channel = Channel::from_stdin()?;
    while let Some((order, fds)) = channel.receive()? {
        let (answer, fd) = role
            .obey(order, fds)
            .unwrap_or_else(|error| (Answer::Failed(format!("{error:#}")), None));
        let fds: Vec<_> = fd.iter().map(std::os::fd::AsFd::as_fd).collect();
        channel.send(&answer, &fds)?;
    }
    Ok(())
}

/// Another process, which is killed when this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    channel: Channel,
}

impl Process {
    /// Starts it in a role.
    pub fn start(name: &'static str) -> Result<Process> {
        let (channel, child) = Channel::spawn(&[name])?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Process {
            name,
            child,
            channel,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something, and waits for the answer.
    pub fn ask(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>)> {
        self.channel.send(order, fds)?;
        match self.channel.receive()? {
            Some((Answer::Failed(why), _)) => bail!("{}: {why}", self.name),
            Some(answer) => Ok(answer),
            None => bail!("the {} has gone", self.name),
        }
    }

    /// Tells it to do something, and waits until it is done.
    pub fn does(&self, order: &Order) -> Result<()> {
        match self.ask(order, &[])?.0 {
            Answer::Done => Ok(()),
            other => bail!("the {} answers {other:?}", self.name),
        }
    }

    /// Tells it to do something, and waits for the answer, an error among them.
    pub fn tries(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        self.channel.send(order, fds)?;
        let answer = self.channel.receive()?;
        Ok(answer
            .with_context(|| format!("the {} has gone", self.name))?
            .0)
    }

    /// Tells it to do what it dies of; returns the signal.
    pub fn dies_of(&mut self, order: &Order) -> Result<Option<i32>> {
        self.channel.send(order, &[])?;
        if let Some((answer, _)) = self.channel.receive::<Answer>()? {
            bail!("the {} answers {answer:?}", self.name);
        }
        Ok(self.child.wait()?.signal())
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
