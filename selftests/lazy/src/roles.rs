// SPDX-License-Identifier: GPL-2.0

//! The other processes: each is this program again, in a role, and does what it is told over a
//! channel. They are killed in the tests, or die.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use address_space::{AddressSpace, Events, View};
use anyhow::{Context as _, Result, bail, ensure};
use rig::channel::Channel;
use rig::process::{end_with_parent, no_core_files};
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::machine::{self, Machine};
use crate::memory::Memory;
use crate::snapshot::Snapshot;
use crate::source::{self, Sends, Sent};
use crate::wire;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a process is told to do; offsets are in the device's buffer, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The source: run a guest until so many reports.
    RunGuest { reports: usize },
    /// The source: migrate it over the socket that comes with this.
    Migrate { sends: Sends },
    /// A VMM: restore a guest from a snapshot on the address space that comes with this, and
    /// run it.
    Restore { snapshot: PathBuf },
    /// A manager: watch the address space that comes with this, and bring nothing.
    Watch,
    /// The device: take the view that comes with this.
    Attach,
    /// The device: compare bytes of its buffer with what they should be.
    Check { at: usize, length: usize },
    /// The device: have the kernel do that, which copies them out.
    CheckBySystemCall { at: usize, length: usize },
    /// The device: write bytes to its buffer.
    Write { at: usize, length: usize },
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The migration has ended.
    Sent(Sent),
    /// It failed.
    Failed(String),
}

/// Another process, which is killed when this is dropped.
pub struct Process {
    child: Child,
    channel: Channel,
}

impl Process {
    /// Starts it.
    pub fn start() -> Result<Process> {
        let (channel, child) = Channel::spawn(&["serve"])?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Process { child, channel })
    }

    /// Starts a device with a view.
    pub fn device(view: &View) -> Result<Process> {
        let device = Process::start()?;
        device.send(&Order::Attach, &[view.as_fd()])?;
        device.done()?;
        Ok(device)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something.
    pub fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(order, fds)
    }

    /// Waits for an answer.
    pub fn answer(&self) -> Result<Answer> {
        match self.channel.receive()? {
            Some((Answer::Failed(why), _)) => bail!("process {}: {why}", self.id()),
            Some((answer, _)) => Ok(answer),
            None => bail!("process {} has gone", self.id()),
        }
    }

    /// Waits until it is done.
    pub fn done(&self) -> Result<()> {
        let answer = self.answer()?;
        ensure!(answer == Answer::Done, "not done: {answer:?}");
        Ok(())
    }

    /// Tells it to do something, and waits until it is done.
    pub fn ask(&self, order: &Order) -> Result<()> {
        self.send(order, &[])?;
        self.done()
    }

    /// Waits for its end; fails if it answers.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some((answer, _)) = self.channel.receive::<Answer>()? {
            bail!("process {} answers {answer:?}", self.id());
        }
        Ok(self.child.wait()?)
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has made.
#[derive(Default)]
struct Role {
    guest: Option<(Machine, Memory)>,
    device: Option<Device>,
    events: Option<Events>,
}

/// Does what it is told, until the other side ends.
pub fn serve() -> Result<()> {
    end_with_parent()?;
    // It may die of a signal on purpose.
    no_core_files()?;
    let channel = Channel::from_stdin()?;
    let mut role = Role::default();
    while let Some((order, fds)) = channel.receive()? {
        let answer = role
            .obey(order, fds)
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        channel.send(&answer, &[])?;
    }
    Ok(())
}

impl Role {
    fn obey(&mut self, order: Order, mut fds: Vec<OwnedFd>) -> Result<Answer> {
        match order {
            Order::RunGuest { reports } => {
                let (memory, machine) = machine::running_guest(reports)?;
                self.guest = Some((machine, memory));
            }
            Order::Migrate { sends } => {
                let socket = UnixStream::from(fds.pop().context("no socket came")?);
                let (machine, memory) = self.guest.as_mut().context("there is no guest")?;
                wire::send_cpus(&socket, &machine.save()?)?;
                return Ok(Answer::Sent(source::serve(&socket, memory, sends)?));
            }
            Order::Restore { snapshot } => {
                let snapshot = Snapshot::open(&snapshot)?;
                let space = AddressSpace::from(fds.pop().context("no address space came")?);
                Machine::restored(&space, snapshot.cpus())?.run(usize::MAX)?;
            }
            Order::Watch => {
                let space = AddressSpace::from(fds.pop().context("no address space came")?);
                self.events = Some(space.watch(0..space.length()?, None)?);
            }
            Order::Attach => {
                let view = View::from(fds.pop().context("no view came")?);
                self.device = Some(Device::attach(&view)?);
            }
            Order::Check { at, length } => self.device()?.check(at, length)?,
            Order::CheckBySystemCall { at, length } => {
                self.device()?.check_by_system_call(at, length)?;
            }
            Order::Write { at, length } => self.device()?.write(at, length)?,
        }
        Ok(Answer::Done)
    }

    fn device(&self) -> Result<&Device> {
        self.device.as_ref().context("it has no view")
    }
}
