// SPDX-License-Identifier: GPL-2.0

//! The other processes: what each is told to do, and answers. They are killed in the tests, or
//! die.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use address_space::{AddressSpace, Events, View};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::machine::{self, Machine};
use crate::memory::Memory;
use crate::snapshot::Snapshot;
use crate::source::{self, Sends, Sent};
use crate::wire;

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
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    #[default]
    Done,
    /// The migration has ended.
    Sent(Sent),
}

/// Another process.
pub type Process = rig::role::Process<Role>;

/// Starts one.
pub fn start() -> Result<Process> {
    Process::start("serve")
}

/// Starts a device with a view.
pub fn start_device(view: &View) -> Result<Process> {
    let device = start()?;
    device.does(&Order::Attach, &[view.as_fd()])?;
    Ok(device)
}

/// What a process has made.
#[derive(Default)]
pub struct Role {
    guest: Option<(Machine, Memory)>,
    device: Option<Device>,
    events: Option<Events>,
}

impl rig::role::Role for Role {
    type Order = Order;
    type Answer = Answer;

    fn obey(&mut self, order: Order, mut fds: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>)> {
        match order {
            Order::RunGuest { reports } => {
                let (memory, machine) = machine::running_guest(reports)?;
                self.guest = Some((machine, memory));
            }
            Order::Migrate { sends } => {
                let socket = UnixStream::from(fds.pop().context("no socket came")?);
                let (machine, memory) = self.guest.as_mut().context("there is no guest")?;
                wire::send_cpus(&socket, &machine.save()?)?;
                let sent = source::serve(&socket, memory, sends)?;
                return Ok((Answer::Sent(sent), None));
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
        Ok((Answer::Done, None))
    }
}

impl Role {
    fn device(&self) -> Result<&Device> {
        self.device.as_ref().context("it has no view")
    }
}
