// SPDX-License-Identifier: GPL-2.0

//! A guest whose RAM is no file at all: anonymous memory of its VMM, which lends it. The
//! device needs nothing for it, and holds no file descriptor of the RAM here either.

use address_space::page_size;
use anyhow::{Result, ensure};
use rig::bus::{Bus, Unmap};
use rig::check::expect;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, Order, Place};
use rig::process::signals::SIGBUS;

use rig::show::Show;

use super::bulk::much_io;
use super::common::{expect_death, expect_no_fault, note, page};

pub(super) fn lent_ram(show: Show, requests: u32) -> Result<()> {
    let machine = &mut Machine::on_lent_ram(Bus::signalling)?;
    machine.check_io(0, "RAM that is no file")?;
    let holdings = machine.daemon().holdings()?;
    for holding in &holdings {
        ensure!(
            holding.contains("address_space_view"),
            "it must not hold {holding}"
        );
    }
    ensure!(!holdings.is_empty(), "it holds nothing");
    note(
        show,
        machine,
        "the device works, and holds nothing but the view",
    );

    let rate = much_io(machine, requests, Unmap::Strict)?;
    expect_no_fault(&machine.bus)?;
    note(
        show,
        machine,
        &format!("{requests} writes and reads, all data right; {rate:.0} requests a second"),
    );
    what_the_vmm_drops_is_gone(machine)?;
    note(
        show,
        machine,
        "what the VMM drops, as a balloon does, is zeroes for the device",
    );
    taken_back(machine)?;
    note(
        show,
        machine,
        "the VMM takes its memory back: the device dies of SIGBUS",
    );
    Ok(())
}

/// Writes to the disk what was in a page before the VMM dropped it, which must be zeroes.
fn what_the_vmm_drops_is_gone(machine: &mut Machine) -> Result<()> {
    let bytes = page_of("dropped by the VMM");
    let gpa = machine.page_with(&bytes)?;
    let write = Order::write(0, Place::Guest(gpa), page());
    expect("a write", machine.run(&write)?, GOOD)?;
    ensure!(machine.on_disk(0, bytes.len())? == bytes, "on the disk");
    machine.ram.drop_pages(gpa, page_size())?;
    expect("a write", machine.run(&write)?, GOOD)?;
    ensure!(
        machine.on_disk(0, bytes.len())? == vec![0; bytes.len()],
        "the device has what was dropped"
    );
    Ok(())
}

/// Takes the RAM back, and makes a request for which nothing must be mapped any more.
fn taken_back(machine: &mut Machine) -> Result<()> {
    let mapped = |machine: &Machine| {
        let gpa = machine.ram.pages(page_size())?;
        let prot = rig::READ_WRITE;
        Ok::<_, anyhow::Error>(machine.bus.map_permanent(gpa, page_size(), prot)?.addr)
    };
    let (header, data) = (mapped(machine)?, mapped(machine)?);
    let order = Order {
        header: Some(Place::Bus(header)),
        status: Some(Place::Bus(header + 64)),
        ..Order::write(0, Place::Bus(data), page())
    };
    machine.ram.take_back()?;
    expect_death(machine.run(&order)?, SIGBUS)
}
