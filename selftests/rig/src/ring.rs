// SPDX-License-Identifier: GPL-2.0

//! The driver's side of a virtqueue.

use std::sync::atomic::Ordering;

use address_space::iommu::Mapping;
use address_space::{Prot, page_size};
use anyhow::{Result, ensure};
use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use crate::READ_WRITE;
use crate::bus::{Bus, Mapped};
use crate::frontend::Parts;
use crate::ram::Ram;

/// How many descriptors there are.
pub const SIZE: u16 = 64;
/// How many of them a request may use.
const PER_REQUEST: u16 = 8;

/// One descriptor: memory at a bus address.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Where it is.
    pub addr: u64,
    /// Its length in bytes.
    pub length: u32,
    /// What it is for.
    pub kind: Kind,
}

/// What the device is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read it.
    Read,
    /// Write to it.
    Write,
    /// Take it for a table of more descriptors.
    Indirect,
}

/// A virtqueue. Each of its three parts has a page of its own, so that each can
/// be mapped for no more than what the device does with it.
pub struct Ring {
    descriptors: u64,
    available: u64,
    used: u64,
    /// Where the device finds the descriptor table, the available and the used ring.
    pub mapped: [Mapped; 3],
    submitted: u16,
    completed: u16,
}

impl Ring {
    /// Makes a virtqueue and maps it for the device.
    pub fn new(ram: &Ram, bus: &Bus) -> Result<Ring> {
        let [descriptors, available, used] = [
            ram.pages(page_size())?,
            ram.pages(page_size())?,
            ram.pages(page_size())?,
        ];
        let mapped = [
            bus.map_permanent(descriptors, page_size(), Prot::READ)?,
            bus.map_permanent(available, page_size(), Prot::READ)?,
            bus.map_permanent(used, page_size(), READ_WRITE)?,
        ];
        Ok(Ring {
            descriptors,
            available,
            used,
            mapped,
            submitted: 0,
            completed: 0,
        })
    }

    /// Makes it as it was when it was new, for a new device.
    pub fn reset(&mut self, ram: &Ram) -> Result<()> {
        for page in [self.descriptors, self.available, self.used] {
            ram.write(page, &vec![0; page_size() as usize])?;
        }
        self.submitted = 0;
        self.completed = 0;
        Ok(())
    }

    /// Its parts as mappings of an IOMMU.
    pub fn mappings(&self) -> Vec<Mapping> {
        [self.descriptors, self.available, self.used]
            .iter()
            .zip(&self.mapped)
            .map(|(&gpa, mapped)| Mapping {
                iova: mapped.addr,
                gpa,
                length: page_size(),
                prot: if gpa == self.used {
                    READ_WRITE
                } else {
                    Prot::READ
                },
            })
            .collect()
    }

    /// Where the device finds it.
    pub fn parts(&self) -> Parts {
        Parts {
            descriptors: self.mapped[0].addr,
            available: self.mapped[1].addr,
            used: self.mapped[2].addr,
        }
    }

    /// Makes a request available, and returns the index of its first descriptor.
    pub fn submit(&mut self, ram: &Ram, buffers: &[Buffer]) -> Result<u16> {
        ensure!(
            buffers.len() <= usize::from(PER_REQUEST) && self.in_flight() < SIZE / PER_REQUEST,
            "too much for the ring"
        );
        let memory = ram.memory();
        let head = self.submitted % (SIZE / PER_REQUEST) * PER_REQUEST;
        for (index, descriptor) in (head..).zip(chain(head, buffers)) {
            let at = self.descriptors + u64::from(index) * size_of::<Descriptor>() as u64;
            memory.write_obj(descriptor, GuestAddress(at))?;
        }
        let entry = self.available + 4 + 2 * u64::from(self.submitted % SIZE);
        memory.write_obj(head, GuestAddress(entry))?;
        self.submitted = self.submitted.wrapping_add(1);
        memory.store(
            self.submitted,
            GuestAddress(self.available + 2),
            Ordering::Release,
        )?;
        Ok(head)
    }

    /// The next request that the device has completed: the index of its first descriptor,
    /// and how many bytes the device says that it has written.
    pub fn complete(&mut self, ram: &Ram) -> Result<Option<(u16, u32)>> {
        let memory = ram.memory();
        let index: u16 = memory.load(GuestAddress(self.used + 2), Ordering::Acquire)?;
        if index == self.completed {
            return Ok(None);
        }
        let entry = self.used + 4 + 8 * u64::from(self.completed % SIZE);
        let [id, length]: [u32; 2] = memory.read_obj(GuestAddress(entry))?;
        self.completed = self.completed.wrapping_add(1);
        Ok(Some((u16::try_from(id)?, length)))
    }

    fn in_flight(&self) -> u16 {
        self.submitted.wrapping_sub(self.completed)
    }
}

/// The descriptors of a request, the first of which is at `head`.
pub fn chain(head: u16, buffers: &[Buffer]) -> impl Iterator<Item = Descriptor> {
    (1..).zip(buffers).map(move |(next, buffer)| {
        let kind = match buffer.kind {
            Kind::Read => 0,
            Kind::Write => VRING_DESC_F_WRITE,
            Kind::Indirect => VRING_DESC_F_INDIRECT,
        };
        let more = if usize::from(next) < buffers.len() {
            VRING_DESC_F_NEXT
        } else {
            0
        };
        Descriptor::new(
            buffer.addr,
            buffer.length,
            (kind | more) as u16,
            head + next,
        )
    })
}
