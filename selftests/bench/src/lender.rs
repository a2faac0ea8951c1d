// SPDX-License-Identifier: GPL-2.0

//! Another process of this program, which lends memory of its own: anonymous, in single pages.

use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::NonNull;

use address_space::Lend;
use anyhow::{Context as _, Result, bail};
use rig::READ_WRITE;
use rig::channel::Channel;
use rig::plain::Plain;
use rustix::mm::{Advice, madvise};
use rustix::process::getpid;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::group::{Group, join};
use crate::memory::{PAGE, Touch, in_order, touch_pages};

/// How much it lends, in bytes.
pub const LENGTH: usize = 16 << 20;

/// How many pages it drops and touches again when that is measured.
pub const CYCLE: usize = 64;

/// The argument that makes a process of this program a lender.
pub const ARGUMENT: &str = "lender";

/// What it is told to do.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Drop all that it has in the memory that it lends.
    Drop,
    /// Touch all of it.
    Touch,
    /// Drop some pages and touch them again: of what it lends, or of other memory. Answer what
    /// a page took.
    Cycle { lent: bool, instructions: bool },
}

/// The lender.
pub struct Lender {
    group: Group,
    pub lend: Lend,
    /// Where the memory is in it.
    pub address: usize,
    pub pid: i32,
}

impl Lender {
    /// Starts one, which has all of what it lends in memory.
    pub fn start() -> Result<Lender> {
        let group = Group::start(ARGUMENT)?;
        let ((address, pid), mut fds) = group.channel.receive()?.context("no lender")?;
        let lend: OwnedFd = fds.pop().context("nothing was lent")?;
        Ok(Lender {
            group,
            lend: lend.into(),
            address,
            pid,
        })
    }

    fn ask(&self, order: &Order) -> Result<f64> {
        self.group.channel.send(order, &[])?;
        let (took, _) = self
            .group
            .channel
            .receive()?
            .context("the lender has gone")?;
        Ok(took)
    }

    /// Has it drop all.
    pub fn drop_all(&self) -> Result<()> {
        self.ask(&Order::Drop).map(drop)
    }

    /// Has it touch all.
    pub fn touch_all(&self) -> Result<()> {
        self.ask(&Order::Touch).map(drop)
    }

    /// What a page takes that it drops and touches again.
    pub fn cycle(&self, clock: Clock, lent: bool) -> Result<f64> {
        let instructions = clock == Clock::Instructions;
        self.ask(&Order::Cycle { lent, instructions })
    }
}

/// Anonymous memory in single pages, all there.
fn memory() -> Result<Plain> {
    let memory = Plain::anonymous(LENGTH)?;
    // SAFETY: Advice changes nothing that can be read.
    unsafe { madvise(memory.as_ptr().cast(), LENGTH, Advice::LinuxNoHugepage) }?;
    touch_all(&memory, LENGTH);
    Ok(memory)
}

fn touch_all(memory: &Plain, length: usize) {
    // SAFETY: It is this process's own, writable, and at least as long.
    unsafe { touch_pages(memory.as_ptr(), &in_order(length / PAGE), Touch::Write) };
}

fn drop_pages(memory: &Plain, length: usize) -> Result<()> {
    // SAFETY: Only raw pointers lead there, and no content is promised behind them.
    Ok(unsafe { madvise(memory.as_ptr().cast(), length, Advice::LinuxDontNeed) }?)
}

/// What the started process does.
pub fn live() -> Result<()> {
    let channel: Channel = join(0)?;
    let (lent, other) = (memory()?, memory()?);
    let start = NonNull::new(lent.as_ptr()).context("memory at address 0")?;
    // SAFETY: Only raw pointers lead there.
    let lend = unsafe { Lend::new(start, LENGTH, READ_WRITE) }?;
    let hello = (lent.as_ptr().expose_provenance(), getpid().as_raw_pid());
    channel.send(&hello, &[lend.as_fd()])?;
    while let Some((order, _)) = channel.receive()? {
        let mut took = 0.0;
        match order {
            Order::Drop => drop_pages(&lent, LENGTH)?,
            Order::Touch => touch_all(&lent, LENGTH),
            Order::Cycle {
                lent: of_lent,
                instructions,
            } => {
                let memory = if of_lent { &lent } else { &other };
                let clock = match instructions {
                    true => Clock::Instructions,
                    false => Clock::Time,
                };
                took = clock.time(|| {
                    drop_pages(memory, CYCLE * PAGE)?;
                    touch_all(memory, CYCLE * PAGE);
                    Ok(())
                })? / CYCLE as f64;
            }
        }
        channel.send(&took, &[])?;
    }
    bail!("told nothing more")
}
