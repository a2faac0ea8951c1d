// SPDX-License-Identifier: GPL-2.0

//! Clones of one snapshot, each in a process of its own.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use rig::check::expect;
use rig::role::Process;

use crate::blocks::Counts;
use crate::guest::{Command, State};
use crate::machine::Way;
use crate::roles::{Answer, Device, DeviceOrder, Order, Vmm};
use crate::snapshot::Snapshot;

/// A VMM, with a clone or without.
pub struct Clone(Process<Vmm>);

impl Clone {
    /// A VMM that can start one.
    pub fn vmm() -> Result<Clone> {
        Ok(Clone(Process::start("vmm")?))
    }

    /// The VMM's process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// A clone.
    pub fn start(snapshot: &Snapshot, way: Way) -> Result<Clone> {
        let clone = Clone::vmm()?;
        clone.begin(snapshot, way)?;
        clone.started()?;
        Ok(clone)
    }

    /// So many of them.
    pub fn start_many(count: usize, snapshot: &Snapshot, way: Way) -> Result<Vec<Clone>> {
        (0..count).map(|_| Clone::start(snapshot, way)).collect()
    }

    /// Tells the VMM to start a clone.
    pub fn begin(&self, snapshot: &Snapshot, way: Way) -> Result<()> {
        let order = Order::Start(way, Box::new(snapshot.cpu));
        self.0.send(&order, &[snapshot.file.as_fd()])
    }

    /// Waits until it has started, and returns how long that took, in nanoseconds.
    pub fn started(&self) -> Result<u64> {
        match self.0.answer()?.0 {
            Answer::Started(took) => Ok(took),
            other => bail!("the VMM answers {other:?}"),
        }
    }

    /// Tells its guest to do something.
    pub fn tell(&self, command: Command, argument: u32) -> Result<()> {
        self.0.send(&Order::Do(command, argument), &[])
    }

    /// Waits for the result.
    pub fn result(&self) -> Result<u32> {
        match self.0.answer()?.0 {
            Answer::Did(result) => Ok(result),
            other => bail!("the VMM answers {other:?}"),
        }
    }

    /// Has its guest do something, and returns the result.
    pub fn does(&self, command: Command, argument: u32) -> Result<u32> {
        self.tell(command, argument)?;
        self.result()
    }

    /// Fails unless its memory is that, but for these words at these places.
    pub fn compare(&self, state: State, words: &[(u32, u32)]) -> Result<()> {
        self.0.does(&Order::Compare(state, words.to_vec()), &[])
    }

    /// What it has taken to have an address space as memory.
    pub fn counts(&self) -> Result<Counts> {
        match self.0.ask(&Order::Counts, &[])?.0 {
            Answer::Counts(counts) => Ok(counts),
            other => bail!("the VMM answers {other:?}"),
        }
    }

    /// What a device of it gets.
    pub fn view(&self) -> Result<OwnedFd> {
        let (_, mut fds) = self.0.ask(&Order::Share, &[])?;
        fds.pop().context("the VMM gives no view")
    }

    pub fn kill(&mut self) -> Result<()> {
        self.0.kill().map(drop)
    }
}

/// Has all of them do the same at once, each with its argument; checks the results.
pub fn all_do(
    clones: &[Clone],
    command: Command,
    argument: impl Fn(u32) -> u32,
    result: impl Fn(u32) -> u32,
) -> Result<()> {
    for (number, clone) in (0..).zip(clones) {
        clone.tell(command, argument(number))?;
    }
    for (number, clone) in (0..).zip(clones) {
        let what = format!("clone {number}: {command:?}");
        expect(&what, clone.result()?, result(number))?;
    }
    Ok(())
}

/// A device of a clone.
pub struct Attached(Process<Device>);

impl Attached {
    pub fn to(clone: &Clone) -> Result<Attached> {
        let device = Process::start("device")?;
        device.does(&DeviceOrder::Attach, &[clone.view()?.as_fd()])?;
        Ok(Attached(device))
    }

    pub fn load(&self, at: u32) -> Result<u32> {
        match self.0.ask(&DeviceOrder::Load(at), &[])?.0 {
            Answer::Did(word) => Ok(word),
            other => bail!("the device answers {other:?}"),
        }
    }

    pub fn store(&self, at: u32, word: u32) -> Result<()> {
        self.0.does(&DeviceOrder::Store(at, word), &[])
    }
}
