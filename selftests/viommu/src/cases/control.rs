// SPDX-License-Identifier: GPL-2.0

//! Rings, headers, tables and status bytes in pages that the device does not have: it
//! accesses them itself, and dies of it unless that is absorbed. And a descriptor past the
//! region, which it refuses.

use std::thread::sleep;
use std::time::{Duration, Instant};

use address_space::iommu::Reason;
use address_space::{Prot, page_size};
use anyhow::{Result, ensure};
use rig::bus::Unmap;
use rig::check::expect;
use rig::daemon::TIMEOUT;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, Order, Outcome, Place};
use rig::process::signals::{SIGBUS, SIGSEGV};

use super::common::{
    Column, each, each_of, expect_death, expect_fault, expect_life, goes_on, lives_on, note, page,
};
use rig::show::Show;

/// Makes a request with one part where the device has no memory, which it accesses so.
fn deadly(
    show: Show,
    access: Prot,
    make: impl Fn(&mut Machine, u64) -> Result<Order>,
) -> Result<()> {
    each(|machine, column| {
        let page = machine.page_with(&page_of("not for the device"))?;
        let addr = machine.unmapped(page)?;
        let order = make(machine, page)?;
        let order = Order {
            header: order.header.map(|_| Place::Bus(addr)),
            status: order.status.map(|_| Place::Bus(addr)),
            table: order.table.map(|_| Place::Bus(addr)),
            ..order
        };
        let before = machine.ram.read(page, 4096)?;
        let outcome = machine.run(&order)?;
        let intact = machine.ram.read(page, 4096)? == before;
        if column.is_enforced() {
            ensure!(intact, "the page has been written to");
            expect_fault(&machine.bus, addr, access, Reason::NotMapped)?;
        }
        match column {
            Column::Signal => {
                expect_death(outcome, SIGBUS)?;
                note(show, machine, "the device dies of SIGBUS");
                goes_on(show, machine)
            }
            Column::Absorb => {
                expect_life(machine, outcome)?;
                note(
                    show,
                    machine,
                    if access == Prot::READ {
                        "it takes zeroes for it, and the VMM hears of it"
                    } else {
                        "the page is not written to, and the VMM hears of it"
                    },
                );
                lives_on(show, machine)
            }
            Column::Memfd => {
                expect_life(machine, outcome)?;
                if order.status.is_some() {
                    ensure!(!intact, "the status is in the page");
                    note(show, machine, "the device writes to the page");
                } else {
                    note(show, machine, "the device uses what is in the page");
                }
                Ok(())
            }
        }
    })
}

pub(super) fn header(show: Show, _: u32) -> Result<()> {
    deadly(show, Prot::READ, |machine, page| {
        // The content is a good header, but the device cannot read it.
        machine.ram.write(page, &[0; 16])?;
        let into = machine.ram.pages(page_size())?;
        Ok(Order {
            header: Some(Place::Guest(page)),
            ..Order::read(0, Place::Guest(into), self::page())
        })
    })
}

pub(super) fn status(show: Show, _: u32) -> Result<()> {
    deadly(show, Prot::WRITE, |machine, page| {
        let into = machine.ram.pages(page_size())?;
        Ok(Order {
            status: Some(Place::Guest(page)),
            ..Order::read(0, Place::Guest(into), self::page())
        })
    })
}

pub(super) fn indirect_table(show: Show, _: u32) -> Result<()> {
    each(|machine, column| {
        // In a page that the device has, it is an ordinary request.
        let table = machine.ram.pages(page_size())?;
        let from = machine.page_with(&page_of("by an indirect table"))?;
        let order = Order {
            table: Some(Place::Guest(table)),
            ..Order::write(0, Place::Guest(from), page())
        };
        expect("a table of its own", machine.run(&order)?, GOOD)?;

        // The same table, in a page that is unmapped.
        let addr = machine.unmapped(table)?;
        let order = Order {
            table: Some(Place::Bus(addr)),
            ..order
        };
        let flight = machine.begin(&order)?;
        let outcome = machine.finish(flight, Unmap::Strict)?;
        if column.is_enforced() {
            expect_fault(&machine.bus, addr, Prot::READ, Reason::NotMapped)?;
        }
        match column {
            Column::Signal => {
                expect_death(outcome, SIGBUS)?;
                note(show, machine, "the device dies of SIGBUS");
                goes_on(show, machine)
            }
            Column::Absorb => refuses_zeroes(show, machine, outcome),
            Column::Memfd => {
                expect_life(machine, outcome)?;
                note(show, machine, "the device uses what is in the page");
                Ok(())
            }
        }
    })
}

/// A descriptor of zeroes is none: the device says so, and waits for a driver that resets it.
fn refuses_zeroes(show: Show, machine: &mut Machine, outcome: Outcome) -> Result<()> {
    expect("the device", outcome, Outcome::HungUp)?;
    refuses(show, machine)
}

/// The device has refused a request, and closed its connection, itself.
fn refuses(show: Show, machine: &mut Machine) -> Result<()> {
    ensure!(machine.daemon().is_alive()?, "it died");
    let complaints = machine.daemon().output();
    let last = complaints.lines().last().unwrap_or_default().to_owned();
    let what = format!("the device refuses it itself: {last}");
    note(show, machine, &what);
    machine.reconnect()?;
    machine.check_io(1 << 20, "after the refusal")
}

/// Unmaps a page of the ring.
fn without(machine: &mut Machine, part: usize) -> Result<(u64, Order)> {
    machine.check_io(0, "before")?;
    let page = machine.rings[0].mapped[part];
    machine.bus.unmap(page, Unmap::Strict)?;
    let from = machine.page_with(&page_of("without its ring"))?;
    let order = Order::write(0, Place::Guest(from), self::page());
    Ok((page.addr, order))
}

/// What comes of a request without a page of the ring, where the device is not alive after
/// it, or has kept the page.
fn ends(show: Show, machine: &mut Machine, part: usize, outcome: Outcome) -> Result<()> {
    if machine.bus.as_iommu().is_ok() {
        expect_death(outcome, SIGBUS)?;
        note(show, machine, "the device dies of SIGBUS");
        machine.map_ring_again(part)?;
        goes_on(show, machine)
    } else {
        expect("the request", outcome, GOOD)?;
        let what = "nothing is unmapped: the device keeps the page";
        note(show, machine, what);
        Ok(())
    }
}

pub(super) fn descriptor_ring(show: Show, _: u32) -> Result<()> {
    const PART: usize = 0;
    each(|machine, column| {
        let (addr, order) = without(machine, PART)?;
        let outcome = machine.run(&order)?;
        if column.is_enforced() {
            expect_fault(&machine.bus, addr, Prot::READ, Reason::NotMapped)?;
        }
        if column == Column::Absorb {
            machine.map_ring_again(PART)?;
            return refuses_zeroes(show, machine, outcome);
        }
        ends(show, machine, PART, outcome)
    })
}

pub(super) fn used_ring(show: Show, _: u32) -> Result<()> {
    const PART: usize = 2;
    each(|machine, column| {
        let (addr, order) = without(machine, PART)?;
        if column != Column::Absorb {
            let outcome = machine.run(&order)?;
            if column.is_enforced() {
                expect_fault(&machine.bus, addr, Prot::WRITE, Reason::NotMapped)?;
            }
            return ends(show, machine, PART, outcome);
        }
        // The device does it, and what it then says of it goes nowhere.
        let text = page_of("without its ring");
        let start = Instant::now();
        let flight = machine.begin(&order)?;
        while machine.on_disk(0, text.len())? != text {
            ensure!(start.elapsed() < TIMEOUT, "it is not on the disk");
            sleep(Duration::from_millis(2));
        }
        expect_fault(&machine.bus, addr, Prot::WRITE, Reason::NotMapped)?;
        ensure!(
            !machine.is_completed(&flight)?,
            "the request is completed in a ring that the device has not"
        );
        note(
            show,
            machine,
            "the write is done, and the guest does not hear of it; the VMM does of the fault",
        );
        machine.map_ring_again(PART)?;
        machine.reconnect()?;
        lives_on(show, machine)
    })
}

pub(super) fn past_the_region(show: Show, _: u32) -> Result<()> {
    each(|machine, _| {
        let order = Order::write(0, Place::Bus(machine.bus.end(&machine.ram)), page());
        let outcome = machine.run(&order)?;
        expect("the device", outcome, Outcome::HungUp)?;
        refuses(show, machine)
    })
}

pub(super) fn read_only_status(show: Show, _: u32) -> Result<()> {
    each_of(&Column::ENFORCED, |machine, column| {
        let text = page_of("to be read");
        let target = machine.page_with(&text)?;
        let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
        let into = machine.ram.pages(page_size())?;
        let order = Order {
            status: Some(Place::Bus(mapped.addr)),
            ..Order::read(0, Place::Guest(into), page())
        };
        let outcome = machine.run(&order)?;
        expect_fault(&machine.bus, mapped.addr, Prot::WRITE, Reason::Denied)?;
        ensure!(
            machine.ram.read(target, text.len())? == text,
            "the page has changed"
        );
        machine.bus.unmap(mapped, Unmap::Strict)?;
        if column == Column::Absorb {
            expect_life(machine, outcome)?;
            let what = "the status is dropped, and the VMM hears of it";
            note(show, machine, what);
            return lives_on(show, machine);
        }
        expect_death(outcome, SIGSEGV)?;
        note(show, machine, "the device dies of SIGSEGV");
        goes_on(show, machine)
    })
}
