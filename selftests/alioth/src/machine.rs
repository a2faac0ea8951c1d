// SPDX-License-Identifier: GPL-2.0

//! The VMM, a process of its own, and the guest in it, which does what it is asked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rig::folder::Folder;
use rig::initramfs::initramfs;
use rig::process::{end_with_parent, inherit};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use vmm_guest::dax::TAG;
use vmm_guest::desk::{DESK, DONE, FAILED, JOB, Job, NUMBER, RESULT, WHY, WHY_LENGTH};
use vmm_guest::mapping::{Mapping, Stores};

/// How long the guest may take for anything: its boot, in a machine that is emulated.
const PATIENCE: Duration = Duration::from_secs(170);

/// It waits for no hardware that is missing.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=0 mitigations=off audit=0 apparmor=0 \
     nokaslr cryptomgr.notests i8042.nokbd i8042.noaux no_timer_check tsc=reliable";

/// A running VMM, which is killed when this is dropped.
pub struct Machine {
    child: Child,
    output: PathBuf,
    desk: Mapping,
    number: u64,
    /// The other side of the terminal that is its input.
    _terminal: OwnedFd,
    _folder: Folder,
}

impl Machine {
    /// Starts the VMM: it connects to the file server, and has the window, of which it gets
    /// the length and a file descriptor. `desk` is where the guest is asked.
    pub fn start(
        vmm: &Path,
        guest: &Path,
        socket: &Path,
        window: OwnedFd,
        length: u64,
        desk: &File,
    ) -> Result<Machine> {
        let folder = Folder::new("alioth")?;
        let initrd = folder.path().join("initrd");
        fs::write(&initrd, initramfs(guest, "alioth-init", &[])?)?;
        let output = folder.path().join("output");
        let log = File::create(&output)?;

        // The guest's console is the VMM's input and output, the former of which has to be a
        // terminal.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).context("/dev/ptmx")?;
        unlockpt(&terminal).context("a terminal")?;
        let input = ioctl_tiocgptpeer(&terminal, flags).context("a terminal")?;

        let mut command = Command::new(vmm);
        let window = inherit(&mut command, window);
        command
            .arg(guest.join("vmlinux"))
            .arg(&initrd)
            .arg(KERNEL_ARGUMENTS)
            .arg(socket)
            .args([TAG, &window.to_string(), &length.to_string()])
            .stdin(input)
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: Between fork and exec the closure makes one system call, and neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| end_with_parent().map_err(io::Error::from));
        }
        let child = command.spawn();
        Ok(Machine {
            child: child.with_context(|| format!("cannot start {}", vmm.display()))?,
            output,
            desk: Mapping::new(desk, DESK.length, Stores::Shared)?,
            number: 0,
            _terminal: terminal,
            _folder: folder,
        })
    }

    /// The process id of the VMM.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the guest to do something, and waits until it is done.
    pub fn ask(&mut self, job: Job) -> Result<u64> {
        self.number += 1;
        self.desk.word(JOB)?.store(job as u64, Relaxed);
        self.desk.word(NUMBER)?.store(self.number, Release);
        let end = Instant::now() + PATIENCE;
        while self.desk.word(DONE)?.load(Acquire) != self.number {
            if let Some(status) = self.child.try_wait()? {
                bail!("the VMM ended: {status}: {}", self.output());
            }
            ensure!(
                Instant::now() < end,
                "the guest does not answer {job:?}: {}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.desk.word(RESULT)?.load(Relaxed) {
            FAILED => {
                let length = self.desk.word(WHY_LENGTH)?.load(Relaxed) as usize;
                let why = self.desk.bytes(WHY..WHY + length)?;
                bail!("the guest: {}", String::from_utf8_lossy(&why));
            }
            result => Ok(result),
        }
    }

    /// Has the guest turn the machine off, and waits for the VMM's end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        self.ask(Job::End)?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < end,
                "the VMM does not end: {}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What VMM and guest have printed.
    pub fn output(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// What the VMM has done for the device so far, as the kernel counts it.
    pub fn footprint(&self) -> Result<Footprint> {
        let process = PathBuf::from(format!("/proc/{}", self.id()));
        let mut waits = BTreeMap::new();
        for task in fs::read_dir(process.join("task"))? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
            // That of the CPU runs the guest, and the kernel's does not run the VMM.
            if name.starts_with("vcpu") || name.starts_with("kvm-") {
                continue;
            }
            let status = fs::read_to_string(task.join("status"))?;
            let count = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                .context("no switches in status")?;
            waits.insert(name, count.trim().parse()?);
        }
        let mut unread = Vec::new();
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        for entry in fs::read_dir(process.join("fd"))? {
            let entry = entry?;
            let link = fs::read_link(entry.path())?;
            if link.to_string_lossy().starts_with("socket:") {
                let number = entry.file_name().to_string_lossy().parse()?;
                let socket = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?;
                unread.push(ioctl_fionread(socket)?);
            }
        }
        let maps = fs::read_to_string(process.join("maps"))?;
        Ok(Footprint {
            waits,
            unread,
            maps: maps.lines().map(str::to_owned).collect(),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the VMM has done.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    /// How often each of its threads has waited, which one that waits for events does again
    /// after each of them.
    pub waits: BTreeMap<String, u64>,
    /// How many bytes there are in each of its sockets that it has not read.
    pub unread: Vec<u64>,
    /// What it has mapped.
    pub maps: Vec<String>,
}

impl Footprint {
    /// The mappings that have this in their path.
    pub fn of(&self, path: &str) -> Vec<&str> {
        let is_of = |line: &&str| line.contains(path);
        self.maps.iter().map(String::as_str).filter(is_of).collect()
    }
}
