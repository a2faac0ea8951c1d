// SPDX-License-Identifier: GPL-2.0

//! A Linux guest that reads a file as it is told: the VMM of selftests/vmm, in a process of its
//! own, with the file servers that it starts.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::channel::Channel;
use rig::folder::Folder;
use vmm_guest::reading::{Job, Mount, numbers};

/// How long its boot or a job may take, on an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// A guest, whose process is killed when this is dropped.
pub struct Linux {
    channel: Channel,
    child: Child,
    folder: Folder,
}

impl Linux {
    /// Starts so many guests with the same directory, and waits until all are ready.
    pub fn start(directory: &Path, count: usize) -> Result<Vec<Linux>> {
        let guests: Vec<_> = (0..count)
            .map(|_| Linux::boot(directory))
            .collect::<Result<_>>()?;
        for guest in &guests {
            guest.done().context("the guest does not boot")?;
        }
        Ok(guests)
    }

    fn boot(directory: &Path) -> Result<Linux> {
        let folder = Folder::new("guest")?;
        let output = File::create(folder.path().join("output"))?;
        let mut command = Command::new("build/release/vmm");
        command
            .arg("reading")
            .args(["--guest", "build/guest"])
            .args(["--server", "build/release/virtiofs"])
            // It is this process that counts the time.
            .args(["--limit", "1000000"])
            .arg("--directory")
            .arg(directory)
            .stdout(output.try_clone()?)
            .stderr(output);
        let (channel, child) = Channel::start(&mut command).context("build/release/vmm")?;
        channel.set_timeout(TIMEOUT)?;
        Ok(Linux {
            channel,
            child,
            folder,
        })
    }

    /// Lets the guest do something.
    pub fn run(&self, mount: Mount, job: Job) -> Result<()> {
        self.channel.send(&numbers(mount, job), &[])?;
        self.done().with_context(|| format!("{mount:?}, {job:?}"))
    }

    fn done(&self) -> Result<()> {
        let done = self.channel.receive::<()>();
        let done = done.and_then(|done| done.context("the VMM has ended"));
        done.with_context(|| {
            let output = self.folder.path().join("output");
            fs::read_to_string(output).unwrap_or_default()
        })?;
        Ok(())
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
