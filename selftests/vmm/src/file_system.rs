// SPDX-License-Identifier: GPL-2.0

//! virtio-fs whose queues another process serves. That process also changes what is in the
//! window, by itself: there is no message from it to the VMM, nor a channel for one. For
//! comparison there is a device without a window, and one whose window the VMM changes.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rig::daemon::Daemon;
use rig::file_server::{self, FileServer};
use rig::frontend::{self, Offer, PROTOCOL};
use rig::ram::Ram;
use rustix::io::ioctl_fionread;
use vhost::VhostBackend as _;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::asked_window::AskedWindow;
use crate::disk::Reach;
use crate::guest_memory::GuestMemory;
use crate::pci::Shared;
use crate::virtio::{self, Setup};

/// How long each queue may be.
const SIZE: u16 = 128;

/// The longest tag in bytes.
const TAG: usize = 36;

/// The window of a file system, and who changes it.
pub enum Window {
    /// The server.
    Server(Arc<GuestMemory>),
    /// The VMM, which the server asks.
    Vmm(AskedWindow),
    /// There is none.
    None,
}

impl Window {
    fn shared(&self) -> Option<Shared> {
        match self {
            Window::Server(memory) => Some(memory.shared()),
            Window::Vmm(asked) => Some(asked.shared()),
            Window::None => None,
        }
    }

    fn of_server(&self) -> file_server::Window<'_> {
        match self {
            Window::Server(memory) => {
                file_server::Window::Server(memory.part().as_fd(), memory.shared().length)
            }
            Window::Vmm(asked) => file_server::Window::Vmm(asked.socket(), asked.shared().length),
            Window::None => file_server::Window::None,
        }
    }
}

pub struct FileSystem {
    window: Window,
    reach: Reach,
    server: FileServer,
    pub daemon: Daemon,
    connection: Connection,
    kicks: Vec<EventFd>,
    sizes: Vec<u16>,
    config: Vec<u8>,
    setup: Option<Setup>,
    talks: u64,
}

struct Connection {
    frontend: Frontend,
    /// The same, to see whether anything comes.
    stream: UnixStream,
    features: u64,
}

impl Connection {
    fn new(daemon: &Daemon, queues: usize) -> Result<Connection> {
        let stream = daemon.connect()?;
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        let (frontend, Offer { features, protocol }) =
            frontend::handshake(stream.try_clone()?, queues, wanted)?;
        ensure!(
            protocol.contains(VhostUserProtocolFeatures::REPLY_ACK),
            "the server does not offer REPLY_ACK"
        );
        Ok(Connection {
            frontend,
            stream,
            features,
        })
    }
}

impl FileSystem {
    /// Starts the server, which reaches so much of the guest's memory. The guest mounts the
    /// directory by its tag.
    pub fn new(tag: &str, server: FileServer, window: Window, reach: Reach) -> Result<FileSystem> {
        ensure!(tag.len() <= TAG, "the tag is too long: {tag}");
        let mut config = vec![0; TAG];
        config[..tag.len()].copy_from_slice(tag.as_bytes());
        config.extend(u32::from(server.queues).to_le_bytes());

        let daemon = server.start(window.of_server())?;
        // The first queue is for what must not wait.
        let queues = usize::from(server.queues) + 1;
        let kick = |_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(FileSystem {
            reach,
            window,
            server,
            connection: Connection::new(&daemon, queues)?,
            daemon,
            kicks: (0..queues).map(kick).collect::<Result<_, _>>()?,
            sizes: vec![SIZE; queues],
            config,
            setup: None,
            talks: 0,
        })
    }

    /// Lets the server run the driver's queues, each from its base on.
    fn run(&mut self, bases: &[u16]) -> Result<()> {
        self.talks += 1;
        let setup = self.setup.as_ref().context("there is no driver")?;
        let frontend = &mut self.connection.frontend;
        let what = |message| format!("{message}: {}", self.daemon.output());
        frontend
            .set_features(setup.features | PROTOCOL)
            .with_context(|| what("SET_FEATURES".to_owned()))?;
        frontend
            .set_mem_table(&[self.reach.region()?])
            .with_context(|| what("SET_MEM_TABLE".to_owned()))?;
        for (index, (queue, &base)) in setup.queues.iter().zip(bases).enumerate() {
            let kick = &self.kicks[index];
            let runs = queue.handed_over(SIZE, base, kick)?;
            frontend::start_queue(frontend, index, &runs)
                .with_context(|| what(format!("queue {index}")))?;
            // The previous server may have read a kick, or not sent an interrupt.
            kick.write(1)?;
            runs.call.write(1)?;
        }
        Ok(())
    }

    /// Starts another server in the place of a dead one, on the same memory. It gets all
    /// requests that were not answered.
    pub fn restart(&mut self, ram: &Ram) -> Result<()> {
        self.daemon = self.server.start(self.window.of_server())?;
        self.connection = Connection::new(&self.daemon, self.sizes.len())?;
        let used = |queue: &virtio::Queue| queue.used_index(ram);
        let bases: Vec<_> = self.running()?.iter().map(used).collect::<Result<_>>()?;
        self.run(&bases)
    }

    /// How often the VMM has sent something to the server. It fails if the server has sent
    /// something to the VMM.
    pub fn talks(&self) -> Result<u64> {
        let bytes = ioctl_fionread(&self.connection.stream)?;
        ensure!(bytes == 0, "the server has sent {bytes} bytes");
        Ok(self.talks)
    }

    /// The queues that run.
    pub fn running(&self) -> Result<&[virtio::Queue]> {
        Ok(&self.setup.as_ref().context("there is no driver")?.queues)
    }
}

impl virtio::Device for FileSystem {
    const KIND: u16 = 26;
    const CLASS: u32 = 0x018000;

    fn queues(&self) -> &[u16] {
        &self.sizes
    }

    fn features(&self) -> u64 {
        self.connection.features & !PROTOCOL
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn shared(&self) -> Option<Shared> {
        self.window.shared()
    }

    fn start(&mut self, setup: Setup) -> Result<()> {
        let bases = vec![0; setup.queues.len()];
        self.setup = Some(setup);
        self.run(&bases)
    }

    fn stop(&mut self) -> Result<()> {
        self.talks += 1;
        let queues = self.setup.take().map_or(0, |setup| setup.queues.len());
        for index in 0..queues {
            // When it answers, it no longer uses the queue. A dead server does not answer.
            let _ = self.connection.frontend.get_vring_base(index);
        }
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn kick(&self, queue: usize) -> Option<&EventFd> {
        self.kicks.get(queue)
    }
}
