// SPDX-License-Identifier: GPL-2.0

//! Rings, headers, tables and status bytes in pages that the device does not have: it
//! accesses them itself, and dies of it. And a descriptor past the region, which it refuses.

use address_space::{Prot, page_size};
use anyhow::{Result, ensure};
use rig::bus::{Bus, Unmap};
use rig::check::expect;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, Order, Outcome, Place};
use rig::process::signals::{SIGBUS, SIGSEGV};

use super::common::{both, expect_death, goes_on, note, page};
use rig::show::Show;

/// Makes a request with one part where the device has no memory.
fn deadly(
    show: Show,
    signal: i32,
    make: impl Fn(&mut Machine, u64) -> Result<Order>,
) -> Result<()> {
    both(|machine, enforced| {
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
        if enforced {
            expect_death(outcome, signal)?;
            ensure!(intact, "the page has been written to");
            note(
                show,
                machine,
                &format!("the device dies of signal {signal}"),
            );
            goes_on(show, machine)
        } else {
            ensure!(
                matches!(outcome, Outcome::Done(_)),
                "the device does not complete it: {outcome:?}"
            );
            if order.status.is_some() {
                ensure!(!intact, "the status is in the page");
                note(show, machine, "the device writes to the page");
            } else {
                note(show, machine, "the device uses what is in the page");
            }
            Ok(())
        }
    })
}

pub(super) fn header(show: Show, _: u32) -> Result<()> {
    deadly(show, SIGBUS, |machine, page| {
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
    deadly(show, SIGBUS, |machine, page| {
        let into = machine.ram.pages(page_size())?;
        Ok(Order {
            status: Some(Place::Guest(page)),
            ..Order::read(0, Place::Guest(into), self::page())
        })
    })
}

pub(super) fn indirect_table(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
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
        if enforced {
            expect_death(outcome, SIGBUS)?;
            note(show, machine, "the device dies of SIGBUS");
            goes_on(show, machine)
        } else {
            ensure!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            note(show, machine, "the device uses what is in the page");
            Ok(())
        }
    })
}

/// Unmaps a page of the ring, makes a request, and maps the page again.
fn without(show: Show, part: usize) -> Result<()> {
    both(|machine, enforced| {
        machine.check_io(0, "before")?;
        let page = machine.rings[0].mapped[part];
        machine.bus.unmap(page, Unmap::Strict)?;
        let from = machine.page_with(&page_of("without its ring"))?;
        let outcome = machine.run(&Order::write(0, Place::Guest(from), self::page()))?;
        if enforced {
            expect_death(outcome, SIGBUS)?;
            note(show, machine, "the device dies of SIGBUS");
            machine.map_ring_again(part)?;
            goes_on(show, machine)
        } else {
            expect("the request", outcome, GOOD)?;
            note(
                show,
                machine,
                "nothing is unmapped: the device keeps the page",
            );
            Ok(())
        }
    })
}

pub(super) fn descriptor_ring(show: Show, _: u32) -> Result<()> {
    without(show, 0)
}

pub(super) fn used_ring(show: Show, _: u32) -> Result<()> {
    without(show, 2)
}

pub(super) fn past_the_region(show: Show, _: u32) -> Result<()> {
    both(|machine, _| {
        let order = Order::write(0, Place::Bus(machine.bus.end(&machine.ram)), page());
        let outcome = machine.run(&order)?;
        expect("the device", outcome, Outcome::HungUp)?;
        ensure!(machine.daemon().is_alive()?, "it died");
        let complaints = machine.daemon().output();
        let last = complaints.lines().last().unwrap_or_default().to_owned();
        note(
            show,
            machine,
            &format!("the device refuses it itself: {last}"),
        );
        machine.reconnect()?;
        machine.check_io(1 << 20, "after the refusal")
    })
}

pub(super) fn read_only_status(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    let target = machine.page_with(&page_of("to be read"))?;
    let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
    let into = machine.ram.pages(page_size())?;
    let order = Order {
        status: Some(Place::Bus(mapped.addr)),
        ..Order::read(0, Place::Guest(into), page())
    };
    expect_death(machine.run(&order)?, SIGSEGV)?;
    note(show, &machine, "the device dies of SIGSEGV");
    machine.bus.unmap(mapped, Unmap::Strict)?;
    goes_on(show, &mut machine)
}
