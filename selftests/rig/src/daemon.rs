// SPDX-License-Identifier: GPL-2.0

//! The process of a vhost-user device: start, connect, watch, stop.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::folder::Folder;
use crate::process::end_with_parent;

/// How long a daemon may take for anything, on an emulated machine.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// How long to wait before trying something again.
const INTERVAL: Duration = Duration::from_millis(10);

/// A running daemon, which is killed when this is dropped.
pub struct Daemon {
    child: Child,
    pidfd: OwnedFd,
    socket: PathBuf,
    output: PathBuf,
}

impl Daemon {
    /// Starts a program, and waits until it listens at `socket`. What it prints goes to a
    /// file in the folder.
    pub fn start(command: &mut Command, folder: &Folder, socket: &Path) -> Result<Daemon> {
        let _ = fs::remove_file(socket);
        let output = folder.path().join("output");
        let program = command.get_program().to_string_lossy().into_owned();
        let log = File::create(&output)?;
        command.stdout(log.try_clone()?).stderr(log);
        // SAFETY: Between fork and exec the closure makes one system call, and neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| end_with_parent().map_err(io::Error::from));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let pid = Pid::from_child(&child);
        let mut daemon = Daemon {
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            child,
            socket: socket.to_owned(),
            output,
        };
        let start = Instant::now();
        while !socket.exists() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{program} ended: {status}: {}", daemon.output());
            }
            if start.elapsed() > TIMEOUT {
                bail!("{program} does not listen: {}", daemon.output());
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(daemon)
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        text.trim().to_owned()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Whether the kernel is ending it, which takes time.
    pub fn is_dying(&self) -> Result<bool> {
        const PF_EXITING: u32 = 4;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // After the name, which may have anything in it: state, five ids, flags.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        let flags = fields.and_then(|fields| fields.split(' ').nth(6));
        let flags: u32 = flags.context("no flags in /proc/PID/stat")?.parse()?;
        Ok(flags & PF_EXITING != 0)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A file descriptor that is readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Connects to it. Its socket exists before it listens there.
    pub fn connect(&self) -> Result<UnixStream> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    return Ok(stream);
                }
                Err(_) if start.elapsed() < TIMEOUT => std::thread::sleep(INTERVAL),
                Err(error) => return Err(error).context("cannot connect to the device"),
            }
        }
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        self.wait()
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> Result<usize> {
        let mut sockets = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.id()))? {
            let link = fs::read_link(entry?.path())?;
            let link = link.to_string_lossy().into_owned();
            // With the inode's number: a duplicate is the same socket.
            sockets.extend(link.starts_with("socket:").then_some(link));
        }
        Ok(sockets.len())
    }

    /// What it holds of the guest's memory: lines of /proc/PID/maps, and links of
    /// /proc/PID/fd.
    pub fn holdings(&self) -> Result<Vec<String>> {
        let process = PathBuf::from(format!("/proc/{}", self.id()));
        let mut holdings = Vec::new();
        for line in fs::read_to_string(process.join("maps"))?.lines() {
            holdings.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        for entry in fs::read_dir(process.join("fd"))? {
            // The process may have closed it since the directory was read.
            if let Ok(link) = fs::read_link(entry?.path()) {
                holdings.push(format!("a file descriptor of {}", link.display()));
            }
        }
        holdings
            .retain(|holding| holding.contains("address_space") || holding.contains("guest-ram"));
        Ok(holdings)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
