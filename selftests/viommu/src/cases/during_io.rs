// SPDX-License-Identifier: GPL-2.0

//! Changes during I/O: a request in flight, another domain, the device's death.

use std::time::Duration;

use address_space::iommu::{Mapping, Reason};
use address_space::{Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::bus::{Bus, Unmap};
use rig::check::expect;
use rig::machine::{Machine, page_of};
use rig::order::{GOOD, Order, Outcome, Place};
use rig::storage::Speed;

use super::common::{
    Column, SECRET, each_of, expect_fault, expect_no_fault, expect_refused, note, page,
};
use rig::show::Show;

pub(super) fn in_flight(show: Show, _: u32) -> Result<()> {
    for column in Column::ALL {
        // One request a second; the first is done at once.
        let mut machine = Machine::with_speed(column.bus(), Speed::Slow)?;
        let first = machine.page_with(&page_of("the first"))?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let order = Order::write(0, Place::Guest(first), page());
        expect("the first request", machine.run(&order)?, GOOD)?;

        let mapped = machine.bus.map(secret, page_size(), Prot::READ)?;
        let order = Order::write(8192, Place::Bus(mapped.addr), page());
        let flight = machine.begin(&order)?;
        ensure!(
            machine.is_silent(&flight, Duration::from_millis(200))?,
            "the request did not wait"
        );
        machine.bus.unmap(mapped, Unmap::Strict)?;
        let outcome = machine.finish(flight, Unmap::Strict)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect_refused(outcome, column)?;
        expect("the page is on the disk", leaked, !column.is_enforced())?;
        if column.is_enforced() {
            expect_fault(&machine.bus, mapped.addr, Prot::READ, Reason::NotMapped)?;
        }
        note(
            show,
            &machine,
            match column {
                Column::Memfd => "the request is done with a page that the guest has unmapped",
                Column::Signal => {
                    "the request ends in an I/O error, and nothing of the page is on the disk"
                }
                Column::Absorb => {
                    "the request is done with zeroes, and the VMM hears of the device's access"
                }
            },
        );
        let order = Order::write(0, Place::Guest(first), page());
        expect("the next request", machine.run(&order)?, GOOD)?;
    }
    Ok(())
}

pub(super) fn domain_switch(show: Show, _: u32) -> Result<()> {
    each_of(&Column::ENFORCED, |machine, column| {
        switch(show, machine, column)
    })
}

/// Moves a device between two domains.
fn switch(show: Show, machine: &mut Machine, column: Column) -> Result<()> {
    let [old, new] = ["of the old domain", "of the new domain"].map(page_of);
    let (old_page, new_page) = (machine.page_with(&old)?, machine.page_with(&new)?);
    let header = machine.page_with(&[0; 16])?;
    let status = machine.page_with(&[0])?;
    let end = machine.bus.end(&machine.ram);
    let page_at = |index: u64| end - (16 - index) * page_size();
    // The rings have the same addresses in both domains; the rest has others.
    let mapping = |iova, gpa, prot| Mapping {
        iova,
        gpa,
        length: page_size(),
        prot,
    };
    let mut rings = machine.ring_mappings();
    rings.push(mapping(page_at(0), header, Prot::READ));
    rings.push(mapping(page_at(1), status, READ_WRITE));
    let with = |iova, gpa| {
        let mut all = rings.clone();
        all.push(mapping(iova, gpa, Prot::READ));
        all
    };
    let (one, other) = (page_at(4), page_at(8));
    let write = |machine: &mut Machine, addr| -> Result<Outcome> {
        machine.ram.write(header, &1_u32.to_le_bytes())?;
        let order = Order {
            header: Some(Place::Bus(page_at(0))),
            status: Some(Place::Bus(page_at(1))),
            ..Order::write(0, Place::Bus(addr), page())
        };
        let flight = machine.begin(&order)?;
        match machine.finish(flight, Unmap::Strict)? {
            Outcome::Done(_) => Ok(Outcome::Done(machine.ram.read(status, 1)?[0])),
            outcome => Ok(outcome),
        }
    };

    // From where the current domain has nothing, and then from where it has something.
    let check = |machine: &mut Machine, nothing, has, text: &[u8], before: &[u8]| -> Result<()> {
        expect_refused(write(machine, nothing)?, column)?;
        expect_fault(&machine.bus, nothing, Prot::READ, Reason::NotMapped)?;
        let is = machine.on_disk(0, before.len())?;
        match column {
            Column::Absorb => ensure!(is == vec![0; is.len()], "it is not zeroes"),
            _ => ensure!(is == before, "it has changed"),
        }
        expect("the current domain", write(machine, has)?, GOOD)?;
        ensure!(machine.on_disk(0, text.len())? == text, "on the disk");
        expect_no_fault(&machine.bus)
    };
    let mut before = vec![0; page_size() as usize];
    for round in 0..20 {
        for (is, is_not, gpa, text) in [(one, other, old_page, &old), (other, one, new_page, &new)]
        {
            machine.bus.as_iommu()?.domain.replace(&with(is, gpa))?;
            check(machine, is_not, is, text, &before).with_context(|| format!("round {round}"))?;
            before.clone_from(text);
        }
    }
    note(
        show,
        machine,
        "20 times there and back: only what the current domain maps can be reached,",
    );
    note(
        show,
        machine,
        "and the rings, which both domains map, could always be reached",
    );
    Ok(())
}

pub(super) fn restart(show: Show, _: u32) -> Result<()> {
    const ROUNDS: u32 = 3;
    const WRITES: u32 = 60;
    let mut machine = Machine::new(Bus::iommu)?;
    let buffers = [(); 4].map(|()| machine.ram.pages(page_size()));
    let buffers: Vec<u64> = buffers.into_iter().collect::<Result<_>>()?;
    let text = |index: u32| page_of(&format!("write {index}"));
    let offset = |index: u32| u64::from(index) * page_size();
    let (mut next, mut again, mut acknowledged) = (0, 0, Vec::new());
    for round in 0..=ROUNDS {
        let goal = (round + 1) * WRITES;
        let mut killed = round == ROUNDS;
        'round: while next < goal {
            // Four at a time.
            let mut flights = Vec::new();
            for (&buffer, index) in buffers.iter().zip(next..) {
                machine.ram.write(buffer, &text(index))?;
                let order = Order::write(offset(index), Place::Guest(buffer), page());
                flights.push((index, machine.begin(&order)?));
            }
            if !killed && next + 4 >= goal {
                machine.daemon().kill()?;
                killed = true;
            }
            let mut dead = false;
            for (index, flight) in flights {
                match machine.finish(flight, Unmap::Strict)? {
                    GOOD => acknowledged.push(index),
                    Outcome::Died(_) => dead = true,
                    outcome => anyhow::bail!("write {index}: {outcome:?}"),
                }
            }
            if dead {
                machine.restart()?;
                again += 1;
                continue 'round;
            }
            next += 4;
        }
    }
    expect("deaths", again, ROUNDS)?;
    for index in 0..next {
        ensure!(
            acknowledged.contains(&index),
            "write {index} was never done"
        );
        ensure!(
            machine.on_disk(offset(index), 4096)? == text(index),
            "write {index} was acknowledged and is not on the disk"
        );
    }
    note(
        show,
        &machine,
        &format!("{next} writes; the device is killed {again} times, with four in flight"),
    );
    note(
        show,
        &machine,
        "the VMM notices, starts it again with the same view, and makes the four again",
    );
    note(
        show,
        &machine,
        "every write that was acknowledged is on the disk",
    );
    Ok(())
}
