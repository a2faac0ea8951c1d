// SPDX-License-Identifier: GPL-2.0

//! Requests whose data is in pages that the device does not have, or may only read: what
//! is protected, what status the guest gets, and what the VMM hears of it.

use address_space::iommu::Reason;
use address_space::{Prot, page_size};
use anyhow::{Result, ensure};
use rig::check::expect;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, Order, Place};
use rig::process::signals::SIGBUS;

use super::common::{
    Column, SECRET, each, each_of, expect_death, expect_fault, expect_refused, goes_on, lives_on,
    note, page,
};
use rig::show::Show;

pub(super) fn secret_leaks(show: Show, _: u32) -> Result<()> {
    each(|machine, column| {
        machine.check_io(0, "what is on the disk before")?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let order = Order::write(0, Place::Bus(addr), page());
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect_refused(outcome, column)?;
        expect("the secret is on the disk", leaked, !column.is_enforced())?;
        let Some(what) = what_the_guest_gets(machine, column)? else {
            note(
                show,
                machine,
                "the write is done: the secret is in the disk image",
            );
            return Ok(());
        };
        expect_fault(&machine.bus, addr, Prot::READ, Reason::NotMapped)?;
        note(show, machine, &format!("{what}; the secret did not leak"));
        // The same at an address where nothing was ever mapped.
        let never = machine.bus.end(&machine.ram) - page_size();
        let order = Order::write(0, Place::Bus(never), page());
        expect_refused(machine.run(&order)?, column)?;
        expect_fault(&machine.bus, never, Prot::READ, Reason::NotMapped)?;
        lives_on(show, machine)
    })
}

/// What the guest gets of a write to the first block of the disk from where there is nothing.
fn what_the_guest_gets(machine: &Machine, column: Column) -> Result<Option<&'static str>> {
    let zeroes = vec![0; page_size() as usize];
    let is_zero = machine.on_disk(0, zeroes.len())? == zeroes;
    expect("the block is zeroes", is_zero, column == Column::Absorb)?;
    Ok(match column {
        Column::Memfd => None,
        Column::Signal => Some("the guest gets an I/O error"),
        Column::Absorb => Some("zeroes are written, and the VMM hears where the device read"),
    })
}

pub(super) fn memory_is_overwritten(show: Show, _: u32) -> Result<()> {
    each(|machine, column| {
        machine.check_io(0, "data that overwrites the page")?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let outcome = machine.run(&Order::read(0, Place::Bus(addr), page()))?;
        let intact = machine.ram.read(secret, SECRET.len())? == SECRET.as_bytes();
        expect_refused(outcome, column)?;
        expect("the page is unchanged", intact, column.is_enforced())?;
        let what = match column {
            Column::Memfd => {
                note(show, machine, "the read is done: the page is overwritten");
                return Ok(());
            }
            Column::Signal => "the guest gets an I/O error",
            Column::Absorb => "the data is dropped, and the VMM hears where it went",
        };
        expect_fault(&machine.bus, addr, Prot::WRITE, Reason::NotMapped)?;
        note(show, machine, &format!("{what}; the page is unchanged"));
        lives_on(show, machine)
    })
}

pub(super) fn straddling(show: Show, _: u32) -> Result<()> {
    each(|machine, column| {
        let text = page_of("given to the device");
        let open = machine.page_with(&text)?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.unmapped(secret)?;
        let mut order = Order::write(0, Place::Guest(open), page());
        order.data.push((Place::Bus(addr), page()));
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect("the secret is on the disk", leaked, !column.is_enforced())?;
        if column.is_enforced() {
            expect_fault(&machine.bus, addr, Prot::READ, Reason::NotMapped)?;
        }
        match column {
            Column::Memfd => {
                expect("the request", outcome, GOOD)?;
                note(
                    show,
                    machine,
                    "the write is done: the secret is in the disk image",
                );
                Ok(())
            }
            Column::Signal => {
                // When the kernel has written only a part, QEMU copies the rest by itself.
                expect_death(outcome, SIGBUS)?;
                note(
                    show,
                    machine,
                    "the device dies of SIGBUS; the secret did not leak",
                );
                goes_on(show, machine)
            }
            Column::Absorb => {
                expect("the request", outcome, GOOD)?;
                let should = [text.clone(), vec![0; text.len()]].concat();
                ensure!(
                    machine.on_disk(0, should.len())? == should,
                    "on the disk is not the page, and then zeroes"
                );
                note(
                    show,
                    machine,
                    "the page that it has is written, and zeroes; the secret did not leak",
                );
                lives_on(show, machine)
            }
        }
    })
}

pub(super) fn read_only(show: Show, _: u32) -> Result<()> {
    each_of(&Column::ENFORCED, |machine, column| {
        machine.check_io(0, "on the disk")?;
        let text = page_of("the guest lets the device read this");
        let target = machine.page_with(&text)?;
        let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
        let there = Place::Bus(mapped.addr);
        let write = machine.run(&Order::write(4096, there, page()))?;
        expect("a write from it", write, GOOD)?;
        ensure!(machine.on_disk(4096, text.len())? == text, "on the disk");
        note(show, machine, "the device can write it to the disk");
        let read = machine.run(&Order::read(0, there, page()))?;
        expect_refused(read, column)?;
        expect_fault(&machine.bus, mapped.addr, Prot::WRITE, Reason::Denied)?;
        ensure!(
            machine.ram.read(target, text.len())? == text,
            "the page has changed"
        );
        let what = match column {
            Column::Absorb => "is dropped, and the VMM hears of it",
            _ => "is an I/O error",
        };
        note(
            show,
            machine,
            &format!("a read into it {what}; the page is unchanged"),
        );
        lives_on(show, machine)
    })
}
