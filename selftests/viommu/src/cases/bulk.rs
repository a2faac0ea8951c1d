// SPDX-License-Identifier: GPL-2.0

//! What the device holds of the guest's memory, and much I/O that must all succeed.

use std::time::{Duration, Instant};

use address_space::page_size;
use anyhow::{Result, ensure};
use rig::bus::Unmap;
use rig::check::expect;
use rig::machine::{DISK_LENGTH, Machine, page_of};
use rig::order::{GOOD, Order, Place};

use super::common::{Column, each, each_of, expect_no_fault, expect_refused, note, page};
use rig::show::Show;

/// How many requests are in flight at a time.
const AT_A_TIME: u32 = 4;

pub(super) fn holdings(show: Show, _: u32) -> Result<()> {
    each(|machine, column| {
        machine.check_io(0, "all parts of a request")?;
        let holdings = machine.daemon().holdings()?;
        for holding in &holdings {
            note(show, machine, &format!("the device holds {holding}"));
            let space = holding.contains("address_space_view");
            ensure!(space == column.is_enforced(), "it must not hold {holding}");
        }
        ensure!(!holdings.is_empty(), "it holds nothing");
        Ok(())
    })
}

/// Writes and reads, and checks the data; returns how many requests were done a second.
pub(super) fn much_io(machine: &mut Machine, requests: u32, unmap: Unmap) -> Result<f64> {
    const PAGE: usize = 4096;
    let mut buffers = Vec::new();
    for _ in 0..AT_A_TIME {
        buffers.push(machine.ram.pages(page_size())?);
    }
    // Not in the order of the disk: 7919 is coprime to the number of blocks, so that each
    // is used once.
    let blocks = DISK_LENGTH / page_size();
    let offset = |index: u32| u64::from(index) * 7919 % blocks * page_size();
    let text = |index: u32| page_of(&format!("request {index}, {unmap:?}"));
    let mut time = Duration::ZERO;
    let mut first = 0;
    while first < requests {
        let end = requests.min(first + AT_A_TIME);
        let round = first..end;
        first = end;
        for write in [true, false] {
            for (index, &buffer) in round.clone().zip(&buffers) {
                let bytes = if write { text(index) } else { vec![0; PAGE] };
                machine.ram.write(buffer, &bytes)?;
            }
            let start = Instant::now();
            let mut flights = Vec::new();
            for (index, &buffer) in round.clone().zip(&buffers) {
                let mut order = Order::write(offset(index), Place::Guest(buffer), page());
                order.write = write;
                flights.push(machine.begin(&order)?);
            }
            for flight in flights {
                expect("a request", machine.finish(flight, unmap)?, GOOD)?;
            }
            time += start.elapsed();
        }
        for (index, &buffer) in round.clone().zip(&buffers) {
            ensure!(
                machine.ram.read(buffer, PAGE)? == text(index),
                "read {index} is not what was written"
            );
        }
    }
    for index in 0..requests {
        ensure!(
            machine.on_disk(offset(index), page_size() as usize)? == text(index),
            "write {index} is not on the disk"
        );
    }
    Ok(f64::from(2 * requests) / time.as_secs_f64())
}

fn much(show: Show, requests: u32, unmap: Unmap) -> Result<()> {
    each(|machine, column| {
        let rate = much_io(machine, requests, unmap)?;
        if !column.is_enforced() {
            note(show, machine, &format!("{rate:.0} requests a second"));
            return Ok(());
        }
        machine.bus.as_iommu()?.domain.flush()?;
        // The driver has mapped all that it used.
        expect_no_fault(&machine.bus)?;
        note(
            show,
            machine,
            &format!(
                "{requests} writes and {requests} reads of 4 KiB, three maps and unmaps each: \
                 all data is right, and on the disk; {rate:.0} requests a second"
            ),
        );
        // None of those mappings is left.
        let buffer = machine.ram.pages(page_size())?;
        let old = machine.unmapped(buffer)?;
        let read = machine.run(&Order::read(0, Place::Bus(old), page()))?;
        expect_refused(read, column)?;
        let zeroes = vec![0; page_size() as usize];
        let is = machine.ram.read(buffer, zeroes.len())?;
        ensure!(is == zeroes, "what was unmapped has been read into");
        Ok(())
    })
}

pub(super) fn strict(show: Show, requests: u32) -> Result<()> {
    much(show, requests, Unmap::Strict)
}

pub(super) fn deferred(show: Show, requests: u32) -> Result<()> {
    much(show, requests, Unmap::Deferred { most: 256 })
}

pub(super) fn sizes(show: Show, _: u32) -> Result<()> {
    each_of(&Column::ENFORCED, |machine, _| {
        for length in [4 << 10, 64 << 10, 1 << 20, 2 << 20] {
            let whole = machine.ram.pages(length)?;
            let text = page_of(&format!("{length} bytes")).repeat((length / page_size()) as usize);
            machine.ram.write(whole, &text)?;
            let order = Order::write(4 << 20, Place::Guest(whole), length as u32);
            expect("a write", machine.run(&order)?, GOOD)?;
            ensure!(machine.on_disk(4 << 20, text.len())? == text, "on the disk");
            // Back, into four pages that are mapped one by one, in another order.
            let into = machine.ram.pages(4 * page_size())?;
            let mut order = Order::read(4 << 20, Place::Guest(into + 3 * page_size()), page());
            for index in [1, 0, 2] {
                order
                    .data
                    .push((Place::Guest(into + index * page_size()), page()));
            }
            expect("a read", machine.run(&order)?, GOOD)?;
            for index in 0..4 {
                let is = machine.ram.read(into + index * page_size(), 4096)?;
                // The shortest is only one page.
                let should = index == 3 || length > page_size();
                ensure!((is == text[..4096]) == should, "page {index} of {length}");
            }
            note(
                show,
                machine,
                &format!(
                    "{} KiB, mapped as one; read back in single pages",
                    length >> 10
                ),
            );
        }
        expect_no_fault(&machine.bus)
    })
}
