// SPDX-License-Identifier: GPL-2.0

//! The processes of the play: how one is started and told, and how one lives.

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

/// How long any one answer may take. They are quick, but the guest may run on
/// an emulator on an emulator.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One of the three, as the play holds it. Dropping it ends it.
pub struct Process {
    name: &'static str,
    child: Child,
    channel: Channel,
}

impl Process {
    /// Starts this program again, to play a part.
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

    /// Tells it what to do, and waits for the answer.
    pub fn ask(&self, order: &impl Serialize) -> Result<Answer> {
        self.tell(order, &[])?;
        self.answer()
    }

    /// Tells it what to do.
    pub fn tell(&self, order: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
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

    /// Waits for it to end, which it must be about to do.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some((answer, _)) = self.channel.receive::<Answer>()? {
            bail!("{self}: it lives, and answers {answer:?}");
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
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The life of one of the three: does what it is told, one order after another,
/// until the play is over.
///
/// `serve` gets an order, the file descriptors that came with it, and the
/// channel, for an answer before the last one.
pub fn live<O: DeserializeOwned>(
    mut serve: impl FnMut(O, Vec<OwnedFd>, &Channel) -> Result<Answer>,
) -> Result<()> {
    // A guest that spins would otherwise do so long after the play has died.
    end_with_parent()?;
    let channel = Channel::from_stdin()?;
    while let Some((order, fds)) = channel.receive()? {
        let answer = serve(order, fds, &channel)
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        channel.send(&answer, &[])?;
    }
    Ok(())
}
