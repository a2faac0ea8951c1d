// SPDX-License-Identifier: GPL-2.0

//! The processes of the demo: how one is started and gets orders, and how it serves them.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::process::end_with_parent;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Answer;

/// How long one answer may take. Answers are quick, but the guest may run on an
/// emulator on an emulator.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One of the three processes, which is killed when this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    channel: Channel,
}

impl Process {
    /// Starts this program again, in one of the roles.
    pub fn start(name: &'static str, role: &str) -> Result<Process> {
        let (channel, child) =
            Channel::spawn(&[role]).with_context(|| format!("cannot start the {name}"))?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Process {
            name,
            child,
            channel,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends an order, and waits for the answer.
    pub fn ask(&self, order: &impl Serialize) -> Result<Answer> {
        self.send(order, &[])?;
        self.answer()
    }

    /// Sends an order.
    pub fn send(&self, order: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel
            .send(order, fds)
            .with_context(|| format!("{self}"))
    }

    /// Waits for an answer.
    pub fn answer(&self) -> Result<Answer> {
        match self.channel.receive().with_context(|| format!("{self}"))? {
            Some((Answer::Failed(why), _)) => bail!("{self}: {why}"),
            Some((answer, _)) => Ok(answer),
            None => bail!("{self}: it has gone"),
        }
    }

    /// Waits for its end; fails if it answers.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some((answer, _)) = self.channel.receive::<Answer>()? {
            bail!("{self}: it is alive, and answers {answer:?}");
        }
        self.child.wait().with_context(|| format!("{self}"))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What each of the three does: serves one order after another, until the demo ends.
///
/// `handle` gets an order, the file descriptors that came with it, and the channel,
/// over which it can send an answer before the one that it returns.
pub fn serve<O: DeserializeOwned>(
    mut handle: impl FnMut(O, Vec<OwnedFd>, &Channel) -> Result<Answer>,
) -> Result<()> {
    // A guest that spins would otherwise do so after the demo has died.
    end_with_parent()?;
    let channel = Channel::from_stdin()?;
    while let Some((order, fds)) = channel.receive()? {
        let answer = handle(order, fds, &channel)
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        channel.send(&answer, &[])?;
    }
    Ok(())
}
