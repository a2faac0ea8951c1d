// SPDX-License-Identifier: GPL-2.0

//! Processes with a role: each is this program again, and does what it is told over a channel.
//! Some are killed in a test, or die of a signal on purpose.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::Channel;
use crate::process::{end_with_parent, no_core_files};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a process has, and what it does when it is told.
pub trait Role {
    /// What it is told to do.
    type Order: Serialize + DeserializeOwned + Debug;
    /// What it answers. The default is that it is done.
    type Answer: Serialize + DeserializeOwned + Debug + Default + PartialEq;

    /// Does what it is told; answers may have a file descriptor.
    fn obey(
        &mut self,
        order: Self::Order,
        fds: Vec<OwnedFd>,
    ) -> Result<(Self::Answer, Option<OwnedFd>)>;
}

/// An answer as it is sent: an error is its message.
type Sent<A> = std::result::Result<A, String>;

/// An answer, and the file descriptors that come with it.
pub type Answered<A> = (A, Vec<OwnedFd>);

/// Does what it is told, until the other side ends.
pub fn serve<R: Role>(mut role: R) -> Result<()> {
    end_with_parent()?;
    // It may die of a signal on purpose.
    no_core_files()?;
    let channel = Channel::from_stdin()?;
    while let Some((order, fds)) = channel.receive()? {
        let (answer, fd): (Sent<R::Answer>, _) = match role.obey(order, fds) {
            Ok((answer, fd)) => (Ok(answer), fd),
            Err(error) => (Err(format!("{error:#}")), None),
        };
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        channel.send(&answer, &fds)?;
    }
    Ok(())
}

/// Another process, which is killed when this is dropped.
pub struct Process<R> {
    name: &'static str,
    child: Child,
    channel: Channel,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Process<R> {
    /// Starts it, with the name of its role as this program's argument.
    pub fn start(name: &'static str) -> Result<Process<R>> {
        let (channel, child) = Channel::spawn(&[name])?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Process {
            name,
            child,
            channel,
            role: PhantomData,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something.
    pub fn send(&self, order: &R::Order, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(order, fds)
    }

    /// Waits for an answer, or for why there is none.
    fn receive(&self) -> Result<Option<Answered<Sent<R::Answer>>>> {
        self.channel.receive()
    }

    /// Waits for an answer.
    pub fn answer(&self) -> Result<Answered<R::Answer>> {
        let (answer, fds) = self.receive()?.with_context(|| self.has("gone"))?;
        let answer = answer.map_err(|why| anyhow!("{} {}: {why}", self.name, self.id()))?;
        Ok((answer, fds))
    }

    /// Waits until it is done.
    pub fn done(&self) -> Result<()> {
        let (answer, _) = self.answer()?;
        let is_done = answer == R::Answer::default();
        ensure!(is_done, self.has(&format!("answered {answer:?}")));
        Ok(())
    }

    /// Tells it to do something, and waits for the answer.
    pub fn ask(&self, order: &R::Order, fds: &[BorrowedFd<'_>]) -> Result<Answered<R::Answer>> {
        self.send(order, fds)?;
        self.answer()
    }

    /// Tells it to do something, and waits until it is done.
    pub fn does(&self, order: &R::Order, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send(order, fds)?;
        self.done()
    }

    /// Tells it to do something that fails, and returns why.
    pub fn fails(&self, order: &R::Order, fds: &[BorrowedFd<'_>]) -> Result<String> {
        self.send(order, fds)?;
        match self.receive()?.with_context(|| self.has("gone"))?.0 {
            Ok(answer) => bail!(self.has(&format!("answered {answer:?}"))),
            Err(why) => Ok(why),
        }
    }

    /// Waits for its end; fails if it answers.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some((answer, _)) = self.receive()? {
            bail!(self.has(&format!("answered {answer:?}")));
        }
        Ok(self.child.wait()?)
    }

    /// Tells it to do what it dies of; returns the signal.
    pub fn dies_of(&mut self, order: &R::Order) -> Result<Option<i32>> {
        self.send(order, &[])?;
        Ok(self.end()?.signal())
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    fn has(&self, what: &str) -> String {
        format!("{} {} has {what}", self.name, self.id())
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
