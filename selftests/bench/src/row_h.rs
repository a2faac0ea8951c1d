// SPDX-License-Identifier: GPL-2.0

//! Row h: block I/O of 4 KiB by an unmodified vhost-user device, with all that a request
//! needs mapped before and unmapped after it, against a device that has all RAM.

use std::cell::RefCell;

use address_space::Prot;
use anyhow::{Result, ensure};
use rig::bus::{Bus, Unmap};
use rig::machine::{DISK_LENGTH, Machine};
use rig::order::{GOOD, Order, Place};
use rig::ram::Ram;
use rig::{READ_WRITE, fdinfo};

use crate::clock::Clock;
use crate::comparison::{Comparison, Measured, Spread};
use crate::memory::PAGE;
use crate::peer::Peer;
use crate::rounds::{Bench, Goal, other, ours};

/// How many requests make a sample.
const REQUESTS: usize = 64;
/// A header, the data and a status byte, each in a page of its own.
const MAPPINGS: u32 = 3;
/// After so many requests the deferred unmaps are made.
const DEFERRED: u32 = 32;

const STRICT: &str = "mapped and unmapped for each";
const BESIDE: &str = "the same, a request's pages side by side";
const LATER: &str = "mapped for each, unmapped for 32 at once";
const NEXT: &str = "unmapped in the call that maps the next";
const NONE: &str = "no IOMMU: the device has the memfd";
const MESSAGES: &str = "the same, and two messages, each acked";

pub fn run(bench: &mut Bench) -> Result<()> {
    let peer = Peer::start()?;
    let today = RefCell::new(Disk::new(Bus::memfd)?);
    let behind = RefCell::new(Disk::new(Bus::iommu)?);
    let beside = RefCell::new(Disk::new(|ram| {
        let bus = Bus::iommu(ram)?;
        bus.as_iommu()?.gap.set(0);
        Ok(bus)
    })?);
    let deferred = Unmap::Deferred {
        most: DEFERRED * MAPPINGS,
    };
    let goal = |to, at_most| Goal {
        of: STRICT,
        to,
        at_most,
    };
    // The VMM's part of it; the rest is the device's faults.
    let contenders = vec![
        ours(STRICT, |clock| {
            behind.borrow().only_map(clock, Unmap::Strict)
        }),
        ours(BESIDE, |clock| {
            beside.borrow().only_map(clock, Unmap::Strict)
        }),
        ours(NEXT, |clock| {
            behind.borrow().only_map(clock, Unmap::WithTheNext)
        }),
    ];
    let name = "map and unmap the three pages of a request, no I/O";
    bench.compare('h', name, 1, contenders, &[])?;
    for (write, kind) in [(false, "read"), (true, "write")] {
        for at_a_time in [1, 4] {
            let io = |disk: &RefCell<Disk>, clock: Clock, unmap, peer| {
                disk.borrow_mut().io(clock, write, at_a_time, unmap, peer)
            };
            let contenders = vec![
                ours(STRICT, |clock| io(&behind, clock, Unmap::Strict, None)),
                ours(BESIDE, |clock| io(&beside, clock, Unmap::Strict, None)),
                ours(LATER, |clock| io(&behind, clock, deferred, None)),
                ours(NEXT, |clock| io(&behind, clock, Unmap::WithTheNext, None)),
                other(NONE, |clock| io(&today, clock, Unmap::Strict, None)),
                other(MESSAGES, |clock| {
                    io(&today, clock, Unmap::Strict, Some(&peer))
                }),
            ];
            bench.compare(
                'h',
                format!("{kind} 4 KiB of a vhost-user disk, {at_a_time} in flight"),
                1,
                contenders,
                &[goal(NONE, 1.2), goal(MESSAGES, 1.0)],
            )?;
        }
        let name = format!("faults of the device, {kind} 4 KiB, 1 in flight");
        let contenders = [(STRICT, &behind), (BESIDE, &beside)]
            .into_iter()
            .filter(|(contender, _)| bench.wants(&name, contender))
            .map(|(name, disk)| faults(bench.clock, name, &mut disk.borrow_mut(), write))
            .collect::<Result<_>>()?;
        bench.add(Comparison {
            row: 'h',
            name,
            unit: "faults",
            rounds: 1,
            contenders,
            ratios: Vec::new(),
        });
    }
    Ok(())
}

/// How often the device faults for each request.
fn faults(clock: Clock, name: &'static str, disk: &mut Disk, write: bool) -> Result<Measured> {
    let before = disk.faults()?;
    disk.io(clock, write, 1, Unmap::Strict, None)?;
    let faults = (disk.faults()? - before) as f64 / REQUESTS as f64;
    Ok(Measured {
        name,
        ours: true,
        spread: Spread::of(&[faults]),
    })
}

/// A disk, and the guest's memory for what is in flight.
struct Disk {
    machine: Machine,
    buffers: Vec<u64>,
    next: u64,
}

impl Disk {
    fn new(bus: impl FnOnce(&Ram) -> Result<Bus>) -> Result<Disk> {
        let machine = Machine::new(bus)?;
        let page = || machine.ram.pages(PAGE as u64);
        let buffers = (0..4).map(|_| page()).collect::<Result<_>>()?;
        Ok(Disk {
            machine,
            buffers,
            next: 0,
        })
    }

    /// What a request takes, of so many at a time. With a peer, a message goes there and
    /// back before and after each, as for a device whose IOTLB messages fill and
    /// invalidate.
    fn io(
        &mut self,
        clock: Clock,
        write: bool,
        at_a_time: usize,
        unmap: Unmap,
        peer: Option<&Peer>,
    ) -> Result<f64> {
        let took = clock.time(|| {
            for _ in 0..REQUESTS / at_a_time {
                let machine = &mut self.machine;
                let mut flights = Vec::with_capacity(at_a_time);
                for &buffer in &self.buffers[..at_a_time] {
                    let place = Place::Guest(buffer);
                    let mut order = Order::read(self.next, place, PAGE as u32);
                    order.write = write;
                    self.next = (self.next + PAGE as u64) % DISK_LENGTH;
                    peer.map_or(Ok(()), Peer::round_trip)?;
                    flights.push(machine.begin(&order)?);
                }
                for flight in flights {
                    let outcome = machine.finish(flight, unmap)?;
                    ensure!(outcome == GOOD, "a request: {outcome:?}");
                    peer.map_or(Ok(()), Peer::round_trip)?;
                }
            }
            self.flush(unmap)
        })?;
        Ok(took / REQUESTS as f64)
    }

    /// Makes the unmaps that are pending, which count, too.
    fn flush(&self, unmap: Unmap) -> Result<()> {
        match &self.machine.bus {
            Bus::Iommu(iommu) if unmap != Unmap::Strict => Ok(iommu.domain.flush()?),
            _ => Ok(()),
        }
    }

    /// What mapping and unmapping takes without an access.
    fn only_map(&self, clock: Clock, unmap: Unmap) -> Result<f64> {
        let parts: Vec<_> = std::iter::zip(&self.buffers, [Prot::READ, READ_WRITE, READ_WRITE])
            .map(|(&page, prot)| (page, PAGE as u64, prot))
            .collect();
        let bus = &self.machine.bus;
        let took = clock.time(|| {
            for _ in 0..REQUESTS {
                let mapped = bus.map_all(&parts)?;
                bus.unmap_all(&mapped, unmap)?;
            }
            self.flush(unmap)
        })?;
        Ok(took / REQUESTS as f64)
    }

    /// The faults of all attachments so far.
    fn faults(&self) -> Result<u64> {
        let space = self.machine.bus.as_iommu()?.domain.space();
        fdinfo::number(&fdinfo::read(space)?, "faults")
    }
}
