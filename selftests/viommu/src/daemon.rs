// SPDX-License-Identifier: GPL-2.0

//! A vhost-user device's process: started, watched, connected to, ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};

/// How long a daemon may take for anything, on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that goes with what is in it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Folder> {
        // There may be several of a name.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (id, number) = (std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(format!("viommu-{id}-{name}-{number}"));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The daemon.
pub struct Daemon {
    child: Child,
    pidfd: OwnedFd,
    socket: PathBuf,
    complaints: PathBuf,
}

impl Daemon {
    /// Starts a program that listens at `socket` once it is ready.
    pub fn start(command: &mut Command, folder: &Path, socket: &Path) -> Result<Daemon> {
        let _ = fs::remove_file(socket);
        let complaints = folder.join("complaints");
        let program = command.get_program().to_string_lossy().into_owned();
        let log = File::create(&complaints)?;
        command.stdout(log.try_clone()?).stderr(log);
        // SAFETY: One system call, in which nothing can go wrong.
        unsafe {
            command.pre_exec(|| {
                set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let pid = Pid::from_child(&child);
        let mut daemon = Daemon {
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            child,
            socket: socket.to_owned(),
            complaints,
        };
        let start = Instant::now();
        while !socket.exists() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{} ended: {status}: {}", program, daemon.complaints());
            }
            if start.elapsed() > PATIENCE {
                bail!("{} does not listen: {}", program, daemon.complaints());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    /// What it has printed.
    pub fn complaints(&self) -> String {
        let text = fs::read_to_string(&self.complaints).unwrap_or_default();
        text.trim().to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Whether it is on its way out of the kernel, which takes its time.
    pub fn is_dying(&self) -> Result<bool> {
        const PF_EXITING: u32 = 4;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // After the name, which may have anything in it: state, five ids, flags.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        let flags = fields.and_then(|fields| fields.split(' ').nth(6));
        let flags: u32 = flags.context("no flags in /proc/PID/stat")?.parse()?;
        Ok(flags & PF_EXITING != 0)
    }

    /// Readable once it has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
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
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(_) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error).context("cannot connect to the device"),
            }
        }
    }

    /// Ends it as a crash of its own would.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// What it has of the guest's memory: lines of /proc/PID/maps, and links of
    /// /proc/PID/fd.
    pub fn holdings(&self) -> Result<Vec<String>> {
        let process = PathBuf::from(format!("/proc/{}", self.id()));
        let mut holdings = Vec::new();
        for line in fs::read_to_string(process.join("maps"))?.lines() {
            holdings.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        for entry in fs::read_dir(process.join("fd"))? {
            // One that it has closed meanwhile is none.
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
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
