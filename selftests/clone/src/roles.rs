// SPDX-License-Identifier: GPL-2.0

//! The other processes: each clone has a VMM of its own, and a device is a process too.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use address_space::{Holes, View, Window};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::flat::CpuState;
use rig::role::Role;
use serde::{Deserialize, Serialize};

use crate::blocks::Counts;
use crate::guest::{Command, LENGTH, State};
use crate::machine::{Machine, Way};

/// What a VMM is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start a clone of the snapshot that comes with this.
    Start(Way, Box<CpuState>),
    /// Have the guest do something.
    Do(Command, u32),
    /// Compare the guest's memory with what it should be: that, but these words at these places.
    Compare(State, Vec<(u32, u32)>),
    /// What it has taken.
    Counts,
    /// Give a device a view of the guest's memory.
    Share,
}

/// What it answers.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    #[default]
    Done,
    /// The guest waits for a command; how long that took, in nanoseconds.
    Started(u64),
    /// The result of a command.
    Did(u32),
    /// What it has taken.
    Counts(Counts),
}

/// A VMM, with one clone.
#[derive(Default)]
pub struct Vmm {
    machine: Option<Machine>,
}

impl Role for Vmm {
    type Order = Order;
    type Answer = Answer;

    fn obey(&mut self, order: Order, mut fds: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>)> {
        if let Order::Start(way, cpu) = order {
            let begin = Instant::now();
            let snapshot = File::from(fds.pop().context("no snapshot came")?);
            self.machine = Some(Machine::start(way, &snapshot, &cpu)?);
            let took = begin.elapsed().as_nanos() as u64;
            return Ok((Answer::Started(took), None));
        }
        let machine = self.machine.as_mut().context("there is no guest")?;
        let answer = match order {
            Order::Do(command, argument) => Answer::Did(machine.obey(command, argument)?),
            Order::Compare(state, words) => {
                let mut should = state.image();
                for (at, word) in words {
                    should[at as usize..][..4].copy_from_slice(&word.to_le_bytes());
                }
                machine.compare(&should)?;
                Answer::Done
            }
            Order::Share => {
                let holes = Holes::WAIT | Holes::DENIED;
                let space = machine.blocks()?.space();
                let view = space.view_with(0..LENGTH as u64, READ_WRITE, holes)?;
                return Ok((Answer::Done, Some(view.as_fd().try_clone_to_owned()?)));
            }
            Order::Counts | Order::Start(..) => Answer::Counts(machine.counts()?),
        };
        Ok((answer, None))
    }
}

/// What a device is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum DeviceOrder {
    /// Attach the view that comes with this.
    Attach,
    /// Load the word at an address of the guest.
    Load(u32),
    /// Store one.
    Store(u32, u32),
}

/// A device, with a view of a clone's memory.
#[derive(Default)]
pub struct Device {
    window: Option<Window>,
}

impl Role for Device {
    type Order = DeviceOrder;
    type Answer = Answer;

    fn obey(
        &mut self,
        order: DeviceOrder,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>)> {
        if let DeviceOrder::Attach = order {
            let view = View::from(fds.pop().context("no view came")?);
            self.window = Some(view.attach(0..LENGTH as u64, READ_WRITE)?);
            return Ok((Answer::Done, None));
        }
        let window = self.window.as_ref().context("it has no view")?;
        let answer = match order {
            DeviceOrder::Load(at) => Answer::Did(window.read::<u32>(at as usize)?),
            DeviceOrder::Store(at, word) => {
                window.write::<u32>(at as usize, word)?;
                Answer::Done
            }
            DeviceOrder::Attach => Answer::Done,
        };
        Ok((answer, None))
    }
}
