// SPDX-License-Identifier: GPL-2.0

//! A vhost-user device in a process of its own, and the VMM's end of it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use vhost::VhostBackend as _;
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::ram::{Bus, Ram};
use crate::ring::{Ring, SIZE};

/// How long a daemon may take for anything, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon.
pub struct Daemon {
    child: Child,
    pidfd: OwnedFd,
    socket: PathBuf,
    complaints: PathBuf,
}

/// What became of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It has called: something is completed.
    Called,
    /// It is gone, by this signal if it was one.
    Died(Option<i32>),
    /// It has hung up, and lives.
    HungUp,
    /// Nothing.
    Silence,
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
            .with_context(|| format!("cannot start {}", program))?;
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
    fn is_dying(&self) -> Result<bool> {
        const PF_EXITING: u32 = 4;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // After the name, which may have anything in it: state, five ids, flags.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        let flags = fields.and_then(|fields| fields.split(' ').nth(6));
        let flags: u32 = flags.context("no flags in /proc/PID/stat")?.parse()?;
        Ok(flags & PF_EXITING != 0)
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

/// A connection to a device.
pub struct Device {
    _frontend: Frontend,
    stream: UnixStream,
    kicks: Vec<EventFd>,
    call: EventFd,
}

impl Device {
    /// Connects to the daemon, tells it of its memory and its queues, and starts
    /// them.
    pub fn connect(daemon: &Daemon, bus: &Bus, ram: &Ram, rings: &[Ring]) -> Result<Device> {
        let stream = connect(&daemon.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut frontend = Frontend::from_stream(stream.try_clone()?, rings.len() as u64);
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        let wanted = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC);
        let protocol = frontend.get_protocol_features()?;
        frontend.set_protocol_features(protocol & VhostUserProtocolFeatures::REPLY_ACK)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(offered & wanted)?;
        frontend
            .set_mem_table(&[bus.region(ram)])
            .context("SET_MEM_TABLE")?;

        let call = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let mut kicks = Vec::new();
        for (index, ring) in rings.iter().enumerate() {
            let kick = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            frontend.set_vring_num(index, SIZE)?;
            frontend.set_vring_base(index, 0)?;
            frontend
                .set_vring_addr(index, &ring.config())
                .context("SET_VRING_ADDR")?;
            frontend.set_vring_call(index, &call)?;
            frontend.set_vring_kick(index, &kick)?;
            frontend.set_vring_enable(index, true)?;
            kicks.push(kick);
        }
        Ok(Device {
            _frontend: frontend,
            stream,
            kicks,
            call,
        })
    }

    pub fn kick(&self, queue: usize) -> Result<()> {
        Ok(self.kicks[queue].write(1)?)
    }

    /// Waits for something to happen.
    pub fn wait(&self, daemon: &mut Daemon, patience: Duration) -> Result<Event> {
        let mut events = [
            PollFd::from_borrowed_fd(self.call_fd(), PollFlags::IN),
            PollFd::new(&daemon.pidfd, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::RDHUP),
        ];
        let patience = Timespec::try_from(patience)?;
        rustix::io::retry_on_intr(|| poll(&mut events, Some(&patience)))?;
        let is = |index: usize| !events[index].revents().is_empty();
        if is(0) {
            self.call.read()?;
            Ok(Event::Called)
        } else if is(1) {
            Ok(Event::Died(daemon.child.wait()?.signal()))
        } else if is(2) {
            // A daemon that dies hangs up before it is dead.
            if !daemon.is_dying()? {
                return Ok(Event::HungUp);
            }
            Ok(Event::Died(daemon.child.wait()?.signal()))
        } else {
            Ok(Event::Silence)
        }
    }

    fn call_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: It is open as long as `self.call` lives, which is borrowed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.call.as_raw_fd()) }
    }
}

/// A socket exists before its program listens at it.
fn connect(socket: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(_) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error).context("cannot connect to the device"),
        }
    }
}

/// How long to wait for what must come.
pub fn patience() -> Duration {
    PATIENCE
}
