// SPDX-License-Identifier: GPL-2.0

//! virtio-blk whose queue another process serves: an unmodified qemu-storage-daemon. It
//! gets the guest's memory, or what the IOMMU maps of it, and then works with the guest's
//! driver directly.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;

use address_space::View;
use anyhow::{Context as _, Result, ensure};
use rig::daemon::Daemon;
use rig::frontend::{self, Offer, PROTOCOL};
use rig::ram::Ram;
use rig::storage::{Speed, Storage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_MQ};
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::virtio::{self, Queue, Setup};

/// How long the disk is, in bytes.
pub const LENGTH: u64 = 64 << 20;

/// What the device's process gets of the guest's memory.
pub enum Reach {
    /// All of it, as without an address space.
    Ram(Arc<Ram>),
    /// What the IOMMU maps.
    Iommu(View),
    /// All that is in the address space of the guest's memory.
    Space(View),
}

impl Reach {
    pub fn region(&self) -> Result<VhostUserMemoryRegionInfo> {
        Ok(match self {
            Reach::Ram(ram) => frontend::region(0..ram.length(), ram.as_fd()),
            Reach::Iommu(view) | Reach::Space(view) => {
                frontend::region(0..view.length()?, view.as_fd())
            }
        })
    }
}

pub struct Disk {
    pub reach: Reach,
    pub daemon: Daemon,
    pub kick: EventFd,
    frontend: Option<Frontend>,
    setup: Option<Setup>,
    features: u64,
    config: Vec<u8>,
    storage: Storage,
}

impl Disk {
    pub fn new(name: &str, reach: Reach) -> Result<Disk> {
        let storage = Storage::new(name, LENGTH, Speed::Full)?;
        let daemon = storage.start()?;
        let mut disk = Disk {
            reach,
            daemon,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            frontend: None,
            setup: None,
            features: 0,
            config: vec![0; 60],
            storage,
        };
        let (mut frontend, offer) = disk.connect()?;
        disk.features = offer.features;
        let (_, config) = frontend.get_config(
            0,
            disk.config.len() as u32,
            VhostUserConfigFlags::empty(),
            &disk.config,
        )?;
        disk.config = config;
        disk.frontend = Some(frontend);
        Ok(disk)
    }

    /// Connects, and does what needs no driver.
    fn connect(&self) -> Result<(Frontend, Offer)> {
        let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
        let (frontend, offer) = frontend::handshake(self.daemon.connect()?, 1, wanted)?;
        ensure!(
            offer.protocol.contains(wanted),
            "the device does not offer {wanted:?}"
        );
        Ok((frontend, offer))
    }

    /// Lets the device run the driver's queue from `base` on.
    fn run(&mut self, base: u16) -> Result<()> {
        let setup = self.setup.as_ref().context("there is no driver")?;
        let queue = setup.queues.first().context("no queue")?;
        let mut frontend = match self.frontend.take() {
            Some(frontend) => frontend,
            None => self.connect()?.0,
        };
        // The device does not know whether the platform translates its addresses.
        let features = setup.features & !(1 << VIRTIO_F_ACCESS_PLATFORM);
        frontend.set_features(features | PROTOCOL)?;
        frontend.set_mem_table(&[self.reach.region()?])?;
        let runs = queue.handed_over(Self::SIZE, base, &self.kick)?;
        frontend::start_queue(&mut frontend, 0, &runs)?;
        self.frontend = Some(frontend);
        // The previous device may have read a kick, or not sent an interrupt.
        self.kick.write(1)?;
        Ok(runs.call.write(1)?)
    }

    /// Stops the queue, if the device is alive.
    pub fn halt(&mut self) {
        if let Some(frontend) = self.frontend.take() {
            // When it answers, it no longer uses the queue. A dead device does not
            // answer.
            let _ = frontend.get_vring_base(0);
        }
    }

    /// The signal that the device died of, if it was one.
    pub fn signal(&mut self) -> Result<Option<i32>> {
        Ok(self.daemon.wait()?.signal())
    }

    /// Makes a new connection, and a new process if the old one is dead, on the same
    /// memory, the same disk and the same queue.
    pub fn restart(&mut self, base: u16) -> Result<()> {
        self.halt();
        if !self.daemon.is_alive()? {
            self.daemon = self.storage.start()?;
        }
        self.run(base)
    }

    /// Whether the device has closed the connection.
    pub fn has_hung_up(&self) -> Result<bool> {
        let Some(frontend) = &self.frontend else {
            return Ok(true);
        };
        // SAFETY: The frontend owns the file descriptor and outlives the result; it is not -1,
        // since it is connected.
        let stream = unsafe { BorrowedFd::borrow_raw(frontend.as_raw_fd()) };
        let mut events = [PollFd::from_borrowed_fd(stream, PollFlags::RDHUP)];
        Ok(poll(&mut events, Some(&Timespec::default()))? != 0)
    }

    /// The queue that runs.
    pub fn queue(&self) -> Result<&Queue> {
        let setup = self.setup.as_ref().context("there is no driver")?;
        setup.queues.first().context("no queue")
    }

    /// Writes the disk's image.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.storage.write(offset, bytes)
    }

    /// Reads the disk's image.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.storage.read(offset, length)
    }

    const SIZE: u16 = 128;
}

impl virtio::Device for Disk {
    const KIND: u16 = 2;
    const CLASS: u32 = 0x010000;

    fn queues(&self) -> &[u16] {
        &[Self::SIZE]
    }

    fn features(&self) -> u64 {
        let others = PROTOCOL | (1 << VIRTIO_BLK_F_MQ) | (1 << VIRTIO_BLK_F_CONFIG_WCE);
        let platform = match self.reach {
            Reach::Ram(_) | Reach::Space(_) => 0,
            Reach::Iommu(_) => 1 << VIRTIO_F_ACCESS_PLATFORM,
        };
        self.features & !others | platform
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, setup: Setup) -> Result<()> {
        self.setup = Some(setup);
        self.run(0)
    }

    fn stop(&mut self) -> Result<()> {
        self.halt();
        self.setup = None;
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn kick(&self, _: usize) -> Option<&EventFd> {
        Some(&self.kick)
    }
}
