// SPDX-License-Identifier: GPL-2.0

//! Another process of this program with all that it forks, none of which outlives the row
//! that started it, whatever happens.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::channel::Channel;
use rig::process::end_with_parent;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, setpgid, waitpgid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long an answer may take beyond what was asked for. An attack that delays for longer
/// makes the row fail.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A process and its children, which are killed and reaped when this is dropped. If this
/// process is killed they die too, since each asks for the death of its parent.
pub struct Group {
    pub channel: Channel,
    child: Child,
}

impl Group {
    /// Starts this program again with an argument, on which it must [`join()`].
    pub fn start(argument: &str) -> Result<Group> {
        // What outlives its parent becomes a child of this process, which can reap it.
        set_child_subreaper(Some(getpid())).context("PR_SET_CHILD_SUBREAPER")?;
        let (channel, child) = Channel::spawn(&[argument])?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Group { channel, child })
    }

    /// Whether its first process has not ended yet.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // All of it fails where there is nothing left to kill or to reap. Before there is a
        // group there is only the first process.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
        while waitpgid(group, WaitOptions::empty()).is_ok() {}
    }
}

/// What the started process does first: it leads a group, ends with its parent, and stays on
/// one CPU, as its children will.
pub fn join(cpu: usize) -> Result<Channel> {
    setpgid(None, None).context("setpgid")?;
    end_with_parent()?;
    pin_to(cpu)?;
    Channel::from_stdin()
}

/// Keeps this thread on one CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu}"))
}
