// SPDX-License-Identifier: GPL-2.0

//! A virtio device on the PCI bus, as the guest's driver sees it until its queues run, which
//! is the same for all devices.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use rig::frontend::{self, Parts};
use rig::ram::Ram;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue as VirtQueue, QueueT as _};
use vmm_sys_util::eventfd::EventFd;

use crate::msix::{Msix, Router};
use crate::pci::{
    self, COMMON, Config, DEVICE, ISR, MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_MULTIPLIER, Shared,
    Slot,
};

/// A kind of device.
pub trait Device {
    /// Its number in the standard.
    const KIND: u16;
    /// Its PCI class.
    const CLASS: u32;

    /// How long each of its queues may be.
    fn queues(&self) -> &[u16];
    fn features(&self) -> u64;
    fn config(&self) -> &[u8];
    /// The memory that it shares with its driver, if there is any.
    fn shared(&self) -> Option<Shared> {
        None
    }
    /// The driver is ready.
    fn start(&mut self, setup: Setup) -> Result<()>;
    /// The driver resets the device.
    fn stop(&mut self) -> Result<()>;
    /// The driver has kicked a queue that has no eventfd for it.
    fn kicked(&mut self, queue: usize) -> Result<()>;
    /// The eventfd that KVM signals when the driver kicks the queue, if there is one.
    fn kick(&self, queue: usize) -> Option<&EventFd>;
}

/// What the driver has set up.
pub struct Setup {
    pub features: u64,
    pub queues: Vec<Queue>,
}

/// A queue, as the driver set it up. Its addresses may be I/O virtual ones.
pub struct Queue {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    /// The eventfd that raises its interrupt.
    pub call: Option<EventFd>,
}

impl Queue {
    /// The queue as a device in another process gets it: with so many descriptors at most, from
    /// request `base` on, and `kick` for the driver to signal.
    pub fn handed_over<'a>(
        &'a self,
        max_size: u16,
        base: u16,
        kick: &'a EventFd,
    ) -> Result<frontend::Queue<'a>> {
        Ok(frontend::Queue {
            max_size,
            size: self.size,
            base,
            parts: Parts {
                descriptors: self.descriptors,
                available: self.available,
                used: self.used,
            },
            call: self.call.as_ref().context("no interrupt")?,
            kick,
        })
    }

    /// The queue as the VMM itself serves it, with so many descriptors at most. Its addresses
    /// are the guest's.
    pub fn served_by_vmm(&self, max_size: u16, ram: &Ram) -> Result<VirtQueue> {
        let low = |addr: u64| Some(addr as u32);
        let high = |addr: u64| Some((addr >> 32) as u32);
        let mut queue = VirtQueue::new(max_size)?;
        queue.set_size(self.size);
        queue.set_desc_table_address(low(self.descriptors), high(self.descriptors));
        queue.set_avail_ring_address(low(self.available), high(self.available));
        queue.set_used_ring_address(low(self.used), high(self.used));
        queue.set_ready(true);
        ensure!(queue.is_valid(ram.memory()), "the queue is not valid");
        Ok(queue)
    }

    /// The index of the next request that will be answered, in a queue whose addresses are
    /// the guest's.
    pub fn used_index(&self, ram: &Ram) -> Result<u16> {
        let index = ram.read(self.used + 2, 2)?;
        Ok(u16::from_le_bytes([index[0], index[1]]))
    }
}

#[derive(Clone)]
struct Registers {
    size: u16,
    vector: u16,
    enabled: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

/// No vector.
const NONE: u16 = 0xffff;
/// How many vectors a function may have.
const MOST_VECTORS: u16 = 8;

/// A PCI function with such a device.
pub struct Function<D> {
    pub device: D,
    pub config: Config,
    /// How often the VMM has had to do something for the driver.
    pub accesses: u64,
    vm: Arc<VmFd>,
    msix: Msix,
    status: u8,
    config_vector: u16,
    feature_select: u32,
    driver_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<Registers>,
    started: bool,
}

impl<D: Device> Function<D> {
    /// It has as many vectors as queues and one more.
    pub fn new(device: D, slot: Slot, vm: &Arc<VmFd>, router: &Arc<Router>) -> Result<Self> {
        let vectors = device.queues().len() as u16 + 1;
        ensure!(vectors <= MOST_VECTORS, "{vectors} vectors of a function");
        let first = u32::from(slot.0) * u32::from(MOST_VECTORS);
        let shared = device.shared();
        Ok(Function {
            config: Config::virtio(slot, D::KIND, D::CLASS, vectors, shared),
            accesses: 0,
            vm: vm.clone(),
            msix: Msix::new(router, first, vectors)?,
            status: 0,
            config_vector: NONE,
            feature_select: 0,
            driver_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: fresh(&device),
            started: false,
            device,
        })
    }

    /// The common configuration structure.
    fn common(&self) -> [u8; 0x38] {
        let mut all = [0; 0x38];
        let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
        let half = |features: u64, select: u32| {
            let half = features.checked_shr(32 * select).unwrap_or(0);
            (half as u32).to_le_bytes()
        };
        put(0x00, &self.feature_select.to_le_bytes());
        put(0x04, &half(self.features(), self.feature_select));
        put(0x08, &self.driver_select.to_le_bytes());
        put(0x0c, &half(self.driver_features, self.driver_select));
        put(0x10, &self.config_vector.to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[self.status, 0]);
        put(0x16, &self.queue_select.to_le_bytes());
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(0x18, &queue.size.to_le_bytes());
            put(0x1a, &queue.vector.to_le_bytes());
            put(0x1c, &u16::from(queue.enabled).to_le_bytes());
            put(0x1e, &self.queue_select.to_le_bytes());
            put(0x20, &queue.descriptors.to_le_bytes());
            put(0x28, &queue.available.to_le_bytes());
            put(0x30, &queue.used.to_le_bytes());
        }
        all
    }

    fn features(&self) -> u64 {
        self.device.features() | (1 << VIRTIO_F_VERSION_1)
    }

    fn write_common(&mut self, offset: u64, value: u64, length: usize) -> Result<()> {
        match offset {
            0x00 => self.feature_select = value as u32,
            0x08 => self.driver_select = value as u32,
            0x0c if self.driver_select < 2 => {
                let shift = 32 * self.driver_select;
                self.driver_features &= !(0xffff_ffff << shift);
                self.driver_features |= (value & 0xffff_ffff) << shift;
            }
            0x10 => self.config_vector = self.vector(value),
            0x14 => return self.set_status(value as u8),
            0x16 => self.queue_select = value as u16,
            _ => {
                let vector = self.vector(value);
                let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
                    return Ok(());
                };
                match offset {
                    0x18 => queue.size = value as u16,
                    0x1a => queue.vector = vector,
                    0x1c => queue.enabled = value == 1,
                    0x20..0x28 => set_part(&mut queue.descriptors, offset, value, length),
                    0x28..0x30 => set_part(&mut queue.available, offset, value, length),
                    0x30..0x38 => set_part(&mut queue.used, offset, value, length),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The vector with this number, if it exists.
    fn vector(&self, value: u64) -> u16 {
        let vector = value as u16;
        self.msix.event(vector).map_or(NONE, |_| vector)
    }

    fn set_status(&mut self, status: u8) -> Result<()> {
        if status == 0 {
            self.stop()?;
            self.status = 0;
            self.driver_features = 0;
            self.config_vector = NONE;
            self.queues = fresh(&self.device);
            return Ok(());
        }
        self.status = status;
        let unknown = self.driver_features & !self.features() != 0;
        if u32::from(status) & VIRTIO_CONFIG_S_FEATURES_OK != 0 && unknown {
            self.status &= !(VIRTIO_CONFIG_S_FEATURES_OK as u8);
        }
        if u32::from(status) & VIRTIO_CONFIG_S_DRIVER_OK != 0 && !self.started {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let mut queues = Vec::new();
        for queue in self.queues.iter().take_while(|queue| queue.enabled) {
            let call = self.msix.event(queue.vector);
            queues.push(Queue {
                size: queue.size,
                descriptors: queue.descriptors,
                available: queue.available,
                used: queue.used,
                call: call.map(EventFd::try_clone).transpose()?,
            });
        }
        self.device.start(Setup {
            features: self.driver_features,
            queues,
        })?;
        self.started = true;
        self.for_kicks(|vm, event, addr| vm.register_ioevent(event, addr, NoDatamatch))
    }

    fn stop(&mut self) -> Result<()> {
        if !self.started {
            return Ok(());
        }
        self.started = false;
        self.for_kicks(|vm, event, addr| vm.unregister_ioevent(event, addr, NoDatamatch))?;
        self.device.stop()
    }

    fn for_kicks(
        &self,
        act: impl Fn(&VmFd, &EventFd, &IoEventAddress) -> Result<(), kvm_ioctls::Error>,
    ) -> Result<()> {
        let bar = self.config.bar().context("the device is switched off")?;
        for queue in 0..self.queues.len() {
            if let Some(event) = self.device.kick(queue) {
                let addr = bar + NOTIFY + queue as u64 * NOTIFY_MULTIPLIER;
                act(&self.vm, event, &IoEventAddress::Mmio(addr))?;
            }
        }
        Ok(())
    }
}

impl<D: Device> pci::Function for Function<D> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn write_config(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.accesses += 1;
        self.config.write(at, bytes);
        if let (Some(addr), Some(shared)) = (self.config.shared(), self.device.shared()) {
            // Devices may have it at that address.
            ensure!(addr == shared.addr, "the driver moves the shared memory");
        }
        self.msix.connect(self.config.msix())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let (at, registers): (u64, &[u8]) = match offset {
            COMMON..ISR => (offset, &self.common()),
            DEVICE..NOTIFY => (offset - DEVICE, self.device.config()),
            MSIX_TABLE..MSIX_PENDING => (
                offset % 4,
                &self.msix.read(offset - MSIX_TABLE).to_le_bytes(),
            ),
            _ => (0, &[]),
        };
        for (at, byte) in (at as usize..).zip(bytes) {
            *byte = registers.get(at).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.accesses += 1;
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        match offset {
            COMMON..ISR => self.write_common(offset, value, bytes.len()),
            NOTIFY..MSIX_TABLE => {
                let queue = (offset - NOTIFY) / NOTIFY_MULTIPLIER;
                self.device.kicked(queue as usize)
            }
            MSIX_TABLE..MSIX_PENDING => {
                let state = self.config.msix();
                let offset = offset - MSIX_TABLE;
                if bytes.len() == 8 {
                    self.msix.write(offset + 4, (value >> 32) as u32, state)?;
                }
                self.msix.write(offset, value as u32, state)
            }
            _ => Ok(()),
        }
    }
}

fn fresh(device: &impl Device) -> Vec<Registers> {
    let registers = |&size| Registers {
        size,
        vector: NONE,
        enabled: false,
        descriptors: 0,
        available: 0,
        used: 0,
    };
    device.queues().iter().map(registers).collect()
}

/// A register of 64 bits is written in one or two parts.
fn set_part(register: &mut u64, offset: u64, value: u64, length: usize) {
    if length == 8 {
        *register = value;
    } else {
        let shift = offset % 8 * 8;
        *register = *register & !(0xffff_ffff << shift) | ((value & 0xffff_ffff) << shift);
    }
}
