// SPDX-License-Identifier: GPL-2.0

//! A guest with a vhost-user disk: RAM, a bus, and a driver in the guest's place that maps
//! and unmaps what each request needs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use address_space::iommu::Mapping;
use address_space::{Prot, page_size};
use anyhow::{Context as _, Result, bail, ensure};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::ByteValued as _;

use crate::READ_WRITE;
use crate::bus::{Bus, Mapped, Unmap};
use crate::daemon::{Daemon, TIMEOUT};
use crate::device::{Device, Event};
use crate::order::{GOOD, Order, Outcome, Place};
use crate::ram::Ram;
use crate::ring::{self, Buffer, Kind, Ring};
use crate::storage::{Speed, Storage};

/// How much RAM the guest has, in bytes.
const RAM_LENGTH: u64 = 32 << 20;

/// How long the disk is, in bytes.
pub const DISK_LENGTH: u64 = 64 << 20;
/// The unit of disk addresses, in bytes.
pub const SECTOR: u64 = 512;

/// The most that a table of descriptors takes, in bytes.
const TABLE: u32 = 8 * 16;

/// The guest.
pub struct Machine {
    /// Its RAM.
    pub ram: Ram,
    /// What is between the RAM and the disk.
    pub bus: Bus,
    /// The queue of the disk.
    pub rings: [Ring; 1],
    daemon: Daemon,
    device: Device,
    storage: Storage,
    /// A page for the header and one for the status of each request in flight,
    slots: BTreeMap<u16, Slot>,
    /// and those of requests that are done.
    free: Vec<Slot>,
    /// Requests that the device has completed and [`Machine::finish()`] has not asked for.
    completed: BTreeMap<u16, u32>,
}

#[derive(Clone, Copy)]
struct Slot {
    header: u64,
    status: u64,
}

/// A request in flight.
pub struct Flight {
    head: u16,
    status: u64,
    mapped: Vec<Mapped>,
}

impl Machine {
    /// A guest with this bus, and a fast disk.
    pub fn new(bus: impl FnOnce(&Ram) -> Result<Bus>) -> Result<Machine> {
        Machine::with_speed(bus, Speed::Full)
    }

    /// As [`new()`](Machine::new), with a disk of this speed.
    pub fn with_speed(bus: impl FnOnce(&Ram) -> Result<Bus>, speed: Speed) -> Result<Machine> {
        Machine::of(Ram::new(RAM_LENGTH)?, bus, speed)
    }

    /// As [`new()`](Machine::new), with RAM that is no memfd, but memory of this process's own.
    pub fn on_lent_ram(bus: impl FnOnce(&Ram) -> Result<Bus>) -> Result<Machine> {
        Machine::of(Ram::lent(RAM_LENGTH)?, bus, Speed::Full)
    }

    fn of(ram: Ram, bus: impl FnOnce(&Ram) -> Result<Bus>, speed: Speed) -> Result<Machine> {
        let bus = bus(&ram)?;
        let storage = Storage::new(bus.name(), DISK_LENGTH, speed)?;
        let rings = [Ring::new(&ram, &bus)?];
        let daemon = storage.start()?;
        let device = Device::connect(&daemon, &bus, &ram, &rings)?;
        Ok(Machine {
            ram,
            bus,
            rings,
            daemon,
            device,
            storage,
            slots: BTreeMap::new(),
            free: Vec::new(),
            completed: BTreeMap::new(),
        })
    }

    /// The process of the disk.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Starts a new device after the old one died, on the same RAM, the same bus and the
    /// same disk. Requests that were in flight must be made again.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon = self.storage.start()?;
        self.reconnect()
    }

    /// Connects to the device again, as a driver does that resets it.
    pub fn reconnect(&mut self) -> Result<()> {
        self.device.hang_up();
        self.completed.clear();
        let slots = std::mem::take(&mut self.slots);
        self.free.extend(slots.into_values());
        self.rings[0].reset(&self.ram)?;
        self.device = Device::connect(&self.daemon, &self.bus, &self.ram, &self.rings)?;
        Ok(())
    }

    /// Maps a part of the ring again that was unmapped.
    pub fn map_ring_again(&self, part: usize) -> Result<()> {
        let mapping = self.ring_mappings().swap_remove(part);
        let domain = &self.bus.as_iommu()?.domain;
        Ok(domain.map(mapping.iova, mapping.gpa, mapping.length, mapping.prot)?)
    }

    /// The mappings of the ring.
    pub fn ring_mappings(&self) -> Vec<Mapping> {
        self.rings[0].mappings()
    }

    /// Reads the disk's image.
    pub fn on_disk(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.storage.read(offset, length)
    }

    /// Whether these bytes are anywhere on the disk.
    pub fn disk_has(&self, bytes: &[u8]) -> Result<bool> {
        let disk = self.storage.read_all()?;
        let nothing = vec![0; page_size() as usize];
        // To search in what was never written would take long.
        Ok(disk
            .chunks(nothing.len())
            .filter(|page| *page != nothing)
            .any(|page| page.windows(bytes.len()).any(|window| window == bytes)))
    }

    /// Makes a request, and does not wait for it.
    pub fn begin(&mut self, order: &Order) -> Result<Flight> {
        let slot = self.slot()?;
        let header = [
            if order.write {
                VIRTIO_BLK_T_OUT
            } else {
                VIRTIO_BLK_T_IN
            },
            0,
            (order.offset / SECTOR) as u32,
            ((order.offset / SECTOR) >> 32) as u32,
        ];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write(slot.header, &header)?;
        self.ram.write(slot.status, &[0xff])?;

        let own = Place::Guest;
        let (data, data_prot) = if order.write {
            (Kind::Read, Prot::READ)
        } else {
            (Kind::Write, READ_WRITE)
        };
        let header = order.header.unwrap_or(own(slot.header));
        let status = order.status.unwrap_or(own(slot.status));
        let mut parts = vec![(header, 16, Kind::Read, Prot::READ)];
        for (at, length) in &order.data {
            parts.push((*at, *length, data, data_prot));
        }
        parts.push((status, 1, Kind::Write, READ_WRITE));
        if let Some(table) = order.table {
            parts.push((table, TABLE, Kind::Indirect, Prot::READ));
        }

        // The driver maps what the request needs, in one step.
        let mut to_map = Vec::new();
        for (at, length, _, prot) in &parts {
            if let Place::Guest(gpa) = at {
                let offset = gpa % page_size();
                to_map.push((gpa - offset, u64::from(*length) + offset, *prot));
            }
        }
        let mapped = self.bus.map_all(&to_map)?;
        let mut addresses = mapped.iter();
        let mut buffers = Vec::new();
        for (at, length, kind, _) in parts {
            let addr = match (at, &mut addresses) {
                (Place::Bus(addr), _) => addr,
                (Place::Guest(gpa), mapped) => {
                    mapped.next().context("not mapped")?.addr + gpa % page_size()
                }
            };
            buffers.push(Buffer { addr, length, kind });
        }
        if let Some(at) = order.table {
            let mut table = buffers.pop().context("no table")?;
            let bytes: Vec<u8> = ring::chain(0, &buffers)
                .flat_map(|descriptor| descriptor.as_slice().to_vec())
                .collect();
            table.length = bytes.len() as u32;
            if let Place::Guest(gpa) = at {
                self.ram.write(gpa, &bytes)?;
            }
            buffers = vec![table];
        }
        let head = self.rings[0].submit(&self.ram, &buffers)?;
        let used = self.slots.insert(head, slot);
        ensure!(used.is_none(), "descriptor {head} is in use");
        self.device.kick(0)?;
        Ok(Flight {
            head,
            status: slot.status,
            mapped,
        })
    }

    /// Pages for the header and the status of a request.
    fn slot(&mut self) -> Result<Slot> {
        match self.free.pop() {
            Some(slot) => Ok(slot),
            None => Ok(Slot {
                header: self.ram.pages(page_size())?,
                status: self.ram.pages(page_size())?,
            }),
        }
    }

    /// Waits for the outcome of a request, and unmaps what was mapped for it.
    pub fn finish(&mut self, flight: Flight, unmap: Unmap) -> Result<Outcome> {
        let start = Instant::now();
        let outcome = loop {
            while let Some((head, length)) = self.rings[0].complete(&self.ram)? {
                self.completed.insert(head, length);
            }
            if self.completed.remove(&flight.head).is_some() {
                break Outcome::Done(self.ram.read(flight.status, 1)?[0]);
            }
            match self.device.wait(&mut self.daemon, TIMEOUT)? {
                Event::Called => {}
                Event::Died(signal) => break Outcome::Died(signal),
                Event::HungUp => break Outcome::HungUp,
                Event::Silence => bail!("no answer: {}", self.daemon.output()),
            }
            ensure!(start.elapsed() < TIMEOUT, "calls, but no answer");
        };
        self.free.extend(self.slots.remove(&flight.head));
        self.bus.unmap_all(&flight.mapped, unmap)?;
        Ok(outcome)
    }

    /// Whether the guest finds in the ring that a request is completed.
    pub fn is_completed(&mut self, flight: &Flight) -> Result<bool> {
        while let Some((head, length)) = self.rings[0].complete(&self.ram)? {
            self.completed.insert(head, length);
        }
        Ok(self.completed.contains_key(&flight.head))
    }

    /// Whether the device does not complete a request for so long.
    pub fn is_silent(&mut self, flight: &Flight, time: Duration) -> Result<bool> {
        if self.is_completed(flight)? {
            return Ok(false);
        }
        Ok(self.device.wait(&mut self.daemon, time)? == Event::Silence)
    }

    /// Makes a request, and waits for its outcome.
    pub fn run(&mut self, order: &Order) -> Result<Outcome> {
        let flight = self.begin(order)?;
        self.finish(flight, Unmap::Strict)
    }

    /// Guest pages with these bytes in them.
    pub fn page_with(&self, bytes: &[u8]) -> Result<u64> {
        let gpa = self.ram.pages(bytes.len() as u64)?;
        self.ram.write(gpa, bytes)?;
        Ok(gpa)
    }

    /// A bus address at which a page was mapped and, if there is an IOMMU, no longer is.
    pub fn unmapped(&self, gpa: u64) -> Result<u64> {
        let mapped = self.bus.map(gpa, page_size(), READ_WRITE)?;
        self.bus.unmap(mapped, Unmap::Strict)?;
        Ok(mapped.addr)
    }

    /// Writes to the disk and reads it back; fails if either does.
    pub fn check_io(&mut self, offset: u64, text: &str) -> Result<()> {
        let bytes = page_of(text);
        let from = self.page_with(&bytes)?;
        let into = self.ram.pages(page_size())?;
        let length = page_size() as u32;
        let written = self.run(&Order::write(offset, Place::Guest(from), length))?;
        ensure!(written == GOOD, "a write: {written:?}");
        let read = self.run(&Order::read(offset, Place::Guest(into), length))?;
        ensure!(read == GOOD, "a read: {read:?}");
        ensure!(
            self.ram.read(into, bytes.len())? == bytes,
            "what is read is not what was written"
        );
        ensure!(
            self.on_disk(offset, bytes.len())? == bytes,
            "what is on the disk is not what was written"
        );
        Ok(())
    }
}

/// A page that is full of a text.
pub fn page_of(text: &str) -> Vec<u8> {
    let length = page_size() as usize;
    let mut text = format!("{text}\n").repeat(length / (text.len() + 1) + 1);
    text.truncate(length);
    text.into_bytes()
}
