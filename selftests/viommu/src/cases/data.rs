// SPDX-License-Identifier: GPL-2.0

//! Requests whose data is in pages that the device does not have, or may only read: what
//! is protected, and what status the guest gets.

use address_space::{Prot, page_size};
use anyhow::{Result, ensure};
use rig::bus::Bus;
use rig::check::expect;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, IO_ERROR, Order, Place};
use rig::process::signals::SIGBUS;

use super::common::{SECRET, both, expect_death, expect_io_error, goes_on, note, page};
use rig::show::Show;

pub(super) fn secret_leaks(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let order = Order::write(0, Place::Bus(addr), page());
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect_io_error(outcome, enforced)?;
        expect("the secret is on the disk", leaked, !enforced)?;
        if enforced {
            note(
                show,
                machine,
                "the guest gets an I/O error; the secret did not leak",
            );
            machine.check_io(1 << 20, "the device is alive")?;
            // The same at an address where nothing was ever mapped.
            let never = machine.bus.end(&machine.ram) - page_size();
            let order = Order::write(0, Place::Bus(never), page());
            expect("nothing there", machine.run(&order)?, IO_ERROR)?;
            note(show, machine, "the device stays alive, and does I/O");
        } else {
            note(
                show,
                machine,
                "the write is done: the secret is in the disk image",
            );
        }
        Ok(())
    })
}

pub(super) fn memory_is_overwritten(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        machine.check_io(0, "data that overwrites the page")?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let outcome = machine.run(&Order::read(0, Place::Bus(addr), page()))?;
        let intact = machine.ram.read(secret, SECRET.len())? == SECRET.as_bytes();
        expect_io_error(outcome, enforced)?;
        expect("the page is unchanged", intact, enforced)?;
        if enforced {
            machine.check_io(1 << 20, "the device is alive")?;
            note(
                show,
                machine,
                "the guest gets an I/O error; the page is unchanged",
            );
        } else {
            note(show, machine, "the read is done: the page is overwritten");
        }
        Ok(())
    })
}

pub(super) fn straddling(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        let open = machine.page_with(&page_of("given to the device"))?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let mut order = Order::write(0, Place::Guest(open), page());
        order.data.push((Place::Bus(addr), page()));
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect("the secret is on the disk", leaked, !enforced)?;
        if enforced {
            // When the kernel has written only a part, QEMU copies the rest by itself.
            expect_death(outcome, SIGBUS)?;
            note(
                show,
                machine,
                "the device dies of SIGBUS; the secret did not leak",
            );
            goes_on(show, machine)
        } else {
            expect("the request", outcome, GOOD)?;
            note(
                show,
                machine,
                "the write is done: the secret is in the disk image",
            );
            Ok(())
        }
    })
}

pub(super) fn read_only(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    machine.check_io(0, "on the disk")?;
    let text = page_of("the guest lets the device read this");
    let target = machine.page_with(&text)?;
    let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
    let there = Place::Bus(mapped.addr);
    let write = machine.run(&Order::write(4096, there, page()))?;
    expect("a write from it", write, GOOD)?;
    ensure!(machine.on_disk(4096, text.len())? == text, "on the disk");
    let read = machine.run(&Order::read(0, there, page()))?;
    expect("a read into it", read, IO_ERROR)?;
    ensure!(
        machine.ram.read(target, text.len())? == text,
        "the page has changed"
    );
    note(show, &machine, "the device can write it to the disk");
    note(
        show,
        &machine,
        "a read into it is an I/O error; the page is unchanged",
    );
    machine.check_io(1 << 20, "the device is alive")
}
