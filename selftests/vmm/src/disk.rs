// SPDX-License-Identifier: GPL-2.0

//! virtio-blk, whose queue is another process's: Debian's qemu-storage-daemon. It
//! is told of the guest's memory, or of what the IOMMU maps of it, and then talks
//! with the guest's driver alone.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::rc::Rc;

use address_space::View;
use anyhow::{Context as _, Result, ensure};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use viommu::daemon::{Daemon, Folder};
use viommu::storage::{self, Speed};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_MQ};
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::ram::{self, Ram};
use crate::virtio::{self, Queue, Setup};

/// How long the disk is, in bytes.
pub const LENGTH: u64 = 64 << 20;

const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What the device's process is given of the guest's memory.
pub enum Reach {
    /// All of it, as today.
    Ram(Rc<Ram>),
    /// What the IOMMU maps.
    Iommu(View),
}

impl Reach {
    fn region(&self) -> Result<VhostUserMemoryRegionInfo> {
        let (memory_size, mmap_handle) = match self {
            Reach::Ram(ram) => (ram::LENGTH, ram.file.as_raw_fd()),
            Reach::Iommu(view) => (view.length()?, view.as_fd().as_raw_fd()),
        };
        Ok(VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size,
            userspace_addr: 0,
            mmap_offset: 0,
            mmap_handle,
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
    folder: Folder,
}

impl Disk {
    pub fn new(name: &str, reach: Reach) -> Result<Disk> {
        let folder = Folder::new(name)?;
        File::create(folder.path().join("disk"))?.set_len(LENGTH)?;
        let daemon = storage::start(&folder, Speed::Full)?;
        let mut disk = Disk {
            reach,
            daemon,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            frontend: None,
            setup: None,
            features: 0,
            config: vec![0; 60],
            folder,
        };
        let mut frontend = disk.connect()?;
        disk.features = frontend.get_features()?;
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

    /// Connects, so far as it needs no driver.
    fn connect(&self) -> Result<Frontend> {
        let mut frontend = Frontend::from_stream(self.daemon.connect()?, 1);
        frontend.set_owner()?;
        frontend.get_features()?;
        let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
        let protocol = frontend.get_protocol_features()?;
        ensure!(protocol.contains(wanted), "the device is not what it was");
        frontend.set_protocol_features(wanted)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        Ok(frontend)
    }

    /// Has the device run the driver's queue from `base` on.
    fn run(&mut self, base: u16) -> Result<()> {
        let setup = self.setup.as_ref().context("there is no driver")?;
        let queue = setup.queues.first().context("no queue")?;
        let mut frontend = match self.frontend.take() {
            Some(frontend) => frontend,
            None => self.connect()?,
        };
        // Its addresses are the platform's business, of which the device knows
        // nothing.
        let features = setup.features & !(1 << VIRTIO_F_ACCESS_PLATFORM);
        frontend.set_features(features | PROTOCOL)?;
        frontend.set_mem_table(&[self.reach.region()?])?;
        frontend.set_vring_num(0, queue.size)?;
        frontend.set_vring_base(0, base)?;
        frontend
            .set_vring_addr(
                0,
                &VringConfigData {
                    queue_max_size: Self::SIZE,
                    queue_size: queue.size,
                    flags: 0,
                    desc_table_addr: queue.descriptors,
                    avail_ring_addr: queue.available,
                    used_ring_addr: queue.used,
                    log_addr: None,
                },
            )
            .context("the device does not find the queue")?;
        frontend.set_vring_call(0, queue.call.as_ref().context("no interrupt")?)?;
        frontend.set_vring_kick(0, &self.kick)?;
        frontend.set_vring_enable(0, true)?;
        self.frontend = Some(frontend);
        // The device before it may have taken a kick, or owe an interrupt.
        self.kick.write(1)?;
        queue.call.as_ref().map_or(Ok(()), |call| call.write(1))?;
        Ok(())
    }

    /// Has the device let go of the queue, if it lives.
    pub fn halt(&mut self) {
        if let Some(frontend) = self.frontend.take() {
            // Its answer is that it does nothing with the queue any more. There is
            // none from the dead.
            let _ = frontend.get_vring_base(0);
        }
    }

    /// What the device died of, if it was a signal.
    pub fn signal(&mut self) -> Result<Option<i32>> {
        Ok(self.daemon.wait()?.signal())
    }

    /// A new connection, and a new process if that one is dead, on the same
    /// memory, the same disk and the same queue.
    pub fn restart(&mut self, base: u16) -> Result<()> {
        self.halt();
        if !self.daemon.is_alive()? {
            self.daemon = storage::start(&self.folder, Speed::Full)?;
        }
        self.run(base)
    }

    /// The queue that runs now.
    pub fn queue(&self) -> Result<&Queue> {
        let setup = self.setup.as_ref().context("there is no driver")?;
        setup.queues.first().context("no queue")
    }

    /// What is on the disk, by the file it is in.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let disk = File::open(self.folder.path().join("disk"))?;
        Ok(disk.read_exact_at(bytes, offset)?)
    }

    const SIZE: u16 = 128;
}

impl virtio::Device for Disk {
    const KIND: u16 = 2;
    const CLASS: u32 = 0x010000;
    const QUEUES: &[u16] = &[Self::SIZE];

    fn features(&self) -> u64 {
        let others = PROTOCOL | (1 << VIRTIO_BLK_F_MQ) | (1 << VIRTIO_BLK_F_CONFIG_WCE);
        let platform = match self.reach {
            Reach::Ram(_) => 0,
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
