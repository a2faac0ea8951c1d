// SPDX-License-Identifier: GPL-2.0

//! What is shown, one case after another. Where it tells something, each is made
//! with the RAM's memfd at first, as it is done today, and then with an address
//! space: the same requests to the same device.

use std::time::{Duration, Instant};

use address_space::iommu::Mapping;
use address_space::{Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use viommu::machine::{DISK_LENGTH, GOOD, IO_ERROR, Machine, Order, Outcome, Place, block};
use viommu::ram::{Bus, READ_WRITE, Ram, Unmap};
use viommu::storage::Speed;

use crate::show::Show;

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;

/// What the guest keeps in a page that it never gave to the device.
pub const SECRET: &str = "the guest's private key: 3141592653589793";

/// How many requests are in flight, where there are many.
const AT_A_TIME: u32 = 4;

/// A case: fails where something is not as promised.
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub run: fn(Show, u32) -> Result<()>,
}

macro_rules! cases {
    ($($name:ident: $title:literal),* $(,)?) => {
        pub const CASES: &[Case] = &[
            $( Case { name: stringify!($name), title: $title, run: $name } ),*,
            Case {
                name: "another_device",
                title: "Another device: virtiofsd, as it is, serves files through a space",
                run: crate::fs::another_device,
            },
        ];
    };
}

cases! {
    holdings: "What the device has of the guest's memory",
    strict: "Much I/O, with map and unmap around each request",
    deferred: "Much I/O, with unmaps that are made final together",
    sizes: "Mappings of 4 KiB to 2 MiB",
    secret_leaks: "A write from a page that is not the device's",
    memory_is_overwritten: "A read into a page that is not the device's",
    straddling: "A write from two pages, of which one is not the device's",
    header: "A request header in a page that is not the device's",
    status: "A status byte in a page that is not the device's",
    indirect_table: "An indirect table in a page that is not the device's",
    descriptor_ring: "The descriptor table is taken away",
    used_ring: "The used ring is taken away",
    past_the_region: "A descriptor past the region",
    read_only: "A read into a page that the device may only read",
    read_only_status: "A status byte in a page that the device may only read",
    in_flight: "An unmap while a request is in flight",
    domain_switch: "The guest puts the device into another domain, in one step",
    restart: "The device dies amid I/O, and a new one goes on",
}

/// The same with each bus.
fn both(mut case: impl FnMut(&mut Machine, bool) -> Result<()>) -> Result<()> {
    let mut today = Machine::new(|_| Ok(Bus::memfd()))?;
    case(&mut today, false).context("with the memfd")?;
    drop(today);
    let mut space = Machine::new(Bus::iommu)?;
    case(&mut space, true).context("with the address space")
}

/// That it is not as it should be is an error.
fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<()> {
    ensure!(is == should, "{what}: {is:?}, should be {should:?}");
    Ok(())
}

fn tell(show: Show, machine: &Machine, what: &str) {
    show.says(machine.bus.name(), what);
}

/// After its death of a signal, a new device goes on.
fn goes_on(show: Show, machine: &mut Machine) -> Result<()> {
    machine.restart()?;
    machine.check_io(1 << 20, "after the device's death")?;
    tell(
        show,
        machine,
        "the VMM starts it again, on the same space; I/O goes on",
    );
    Ok(())
}

fn page() -> u32 {
    page_size() as u32
}

/// Writes and reads, on a machine with this bus; tells how many a second.
fn much_io(machine: &mut Machine, requests: u32, unmap: Unmap) -> Result<f64> {
    const PAGE: usize = 4096;
    let mut buffers = Vec::new();
    for _ in 0..AT_A_TIME {
        buffers.push(machine.ram.pages(page_size())?);
    }
    // Not in the order of the disk: every offset once, as 7919 is prime to it.
    let blocks = DISK_LENGTH / page_size();
    let offset = |index: u32| u64::from(index) * 7919 % blocks * page_size();
    let text = |index: u32| block(&format!("request {index}, {unmap:?}"));
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
    let mut today = Machine::new(|_| Ok(Bus::memfd()))?;
    let rate = much_io(&mut today, requests, unmap)?;
    tell(show, &today, &format!("{rate:.0} requests a second"));
    drop(today);

    let mut machine = Machine::new(Bus::iommu)?;
    let rate = much_io(&mut machine, requests, unmap)?;
    machine.bus.as_iommu()?.domain.flush()?;
    tell(
        show,
        &machine,
        &format!(
            "{requests} writes and {requests} reads of 4 KiB, three maps and unmaps each: \
             all as they should be, and on the disk; {rate:.0} requests a second"
        ),
    );
    // Nothing is left of all those mappings.
    let buffer = machine.ram.pages(page_size())?;
    let old = machine.stale(buffer)?;
    let read = machine.run(&Order::read(0, Place::Told(old), page()))?;
    expect("a read into what was unmapped", read, IO_ERROR)
}

fn holdings(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        machine.check_io(0, "it has what it needs")?;
        let holdings = machine.daemon().holdings()?;
        for holding in &holdings {
            tell(show, machine, &format!("the device has {holding}"));
            let space = holding.contains("address_space_view");
            ensure!(space == enforced, "it should not have {holding}");
        }
        ensure!(!holdings.is_empty(), "it has nothing");
        Ok(())
    })
}

fn strict(show: Show, requests: u32) -> Result<()> {
    much(show, requests, Unmap::Strict)
}

fn deferred(show: Show, requests: u32) -> Result<()> {
    much(show, requests, Unmap::Deferred { most: 256 })
}

fn sizes(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    for length in [4 << 10, 64 << 10, 1 << 20, 2 << 20] {
        let whole = machine.ram.pages(length)?;
        let text = block(&format!("{length} bytes")).repeat((length / page_size()) as usize);
        machine.ram.write(whole, &text)?;
        let order = Order::write(4 << 20, Place::Guest(whole), length as u32);
        expect("a write", machine.run(&order)?, GOOD)?;
        ensure!(machine.on_disk(4 << 20, text.len())? == text, "on the disk");
        // Back, into memory that is mapped page by page, none beside its
        // neighbour: four of them.
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
            // The shortest has but one of the four.
            let should = index == 3 || length > page_size();
            ensure!((is == text[..4096]) == should, "page {index} of {length}");
        }
        tell(
            show,
            &machine,
            &format!(
                "{} KiB, mapped as one; read back in single pages",
                length >> 10
            ),
        );
    }
    Ok(())
}

fn secret_leaks(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.stale(secret)?;
        let order = Order::write(0, Place::Told(addr), page());
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect(
            "the request",
            outcome,
            if enforced { IO_ERROR } else { GOOD },
        )?;
        expect("the secret is on the disk", leaked, !enforced)?;
        if enforced {
            tell(
                show,
                machine,
                "the guest gets an I/O error; the secret is nowhere",
            );
            machine.check_io(1 << 20, "the device lives")?;
            // Nor at an address where nothing ever was.
            let never = machine.bus.end() - page_size();
            let order = Order::write(0, Place::Told(never), page());
            expect("nothing there", machine.run(&order)?, IO_ERROR)?;
            tell(show, machine, "the device lives, and does I/O");
        } else {
            tell(
                show,
                machine,
                "the write is done: the secret is in the disk image",
            );
        }
        Ok(())
    })
}

fn memory_is_overwritten(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        machine.check_io(0, "junk that nobody asked for")?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.stale(secret)?;
        let outcome = machine.run(&Order::read(0, Place::Told(addr), page()))?;
        let intact = machine.ram.read(secret, SECRET.len())? == SECRET.as_bytes();
        expect(
            "the request",
            outcome,
            if enforced { IO_ERROR } else { GOOD },
        )?;
        expect("the page is as it was", intact, enforced)?;
        if enforced {
            machine.check_io(1 << 20, "the device lives")?;
            tell(
                show,
                machine,
                "the guest gets an I/O error; the page is as it was",
            );
        } else {
            tell(show, machine, "the read is done: the page is overwritten");
        }
        Ok(())
    })
}

fn straddling(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        let open = machine.page_with(&block("given"))?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let addr = machine.stale(secret)?;
        let mut order = Order::write(0, Place::Guest(open), page());
        order.data.push((Place::Told(addr), page()));
        let outcome = machine.run(&order)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect("the secret is on the disk", leaked, !enforced)?;
        if enforced {
            // QEMU, when the kernel has written but a part, copies what there is
            // to write by hand.
            expect("the device", outcome, Outcome::Died(Some(SIGBUS)))?;
            tell(
                show,
                machine,
                "the device dies of SIGBUS; the secret is nowhere",
            );
            goes_on(show, machine)
        } else {
            expect("the request", outcome, GOOD)?;
            tell(
                show,
                machine,
                "the write is done: the secret is in the disk image",
            );
            Ok(())
        }
    })
}

/// A request with a part of its own where the device has nothing.
fn deadly(
    show: Show,
    signal: i32,
    make: impl Fn(&mut Machine, u64) -> Result<Order>,
) -> Result<()> {
    both(|machine, enforced| {
        let page = machine.page_with(&block("not the device's"))?;
        let addr = machine.stale(page)?;
        let order = make(machine, page)?;
        let order = Order {
            header: order.header.map(|_| Place::Told(addr)),
            status: order.status.map(|_| Place::Told(addr)),
            table: order.table.map(|_| Place::Told(addr)),
            ..order
        };
        let before = machine.ram.read(page, 4096)?;
        let outcome = machine.run(&order)?;
        let intact = machine.ram.read(page, 4096)? == before;
        if enforced {
            expect("the device", outcome, Outcome::Died(Some(signal)))?;
            ensure!(intact, "the page has been written to");
            tell(
                show,
                machine,
                &format!("the device dies of signal {signal}"),
            );
            goes_on(show, machine)
        } else {
            ensure!(
                matches!(outcome, Outcome::Done(_)),
                "the device takes it: {outcome:?}"
            );
            if order.status.is_some() {
                ensure!(!intact, "the status is in the page");
                tell(show, machine, "the device writes to the page");
            } else {
                tell(show, machine, "the device takes what it finds in the page");
            }
            Ok(())
        }
    })
}

fn header(show: Show, _: u32) -> Result<()> {
    deadly(show, SIGBUS, |machine, page| {
        // A good one, which makes no difference: it is not the device's to read.
        machine.ram.write(page, &[0; 16])?;
        let into = machine.ram.pages(page_size())?;
        Ok(Order {
            header: Some(Place::Guest(page)),
            ..Order::read(0, Place::Guest(into), self::page())
        })
    })
}

fn status(show: Show, _: u32) -> Result<()> {
    deadly(show, SIGBUS, |machine, page| {
        let into = machine.ram.pages(page_size())?;
        Ok(Order {
            status: Some(Place::Guest(page)),
            ..Order::read(0, Place::Guest(into), self::page())
        })
    })
}

fn indirect_table(show: Show, _: u32) -> Result<()> {
    both(|machine, enforced| {
        // In a page of the device's it is an ordinary request.
        let table = machine.ram.pages(page_size())?;
        let from = machine.page_with(&block("by an indirect table"))?;
        let order = Order {
            table: Some(Place::Guest(table)),
            ..Order::write(0, Place::Guest(from), page())
        };
        expect("a table of its own", machine.run(&order)?, GOOD)?;

        // The same table, where the device has lost it.
        let addr = machine.stale(table)?;
        let order = Order {
            table: Some(Place::Told(addr)),
            ..order
        };
        let flight = machine.begin(&order)?;
        let outcome = machine.finish(flight, Unmap::Strict)?;
        if enforced {
            expect("the device", outcome, Outcome::Died(Some(SIGBUS)))?;
            tell(show, machine, "the device dies of SIGBUS");
            goes_on(show, machine)
        } else {
            ensure!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            tell(show, machine, "the device takes what it finds in the page");
            Ok(())
        }
    })
}

/// Takes a page of the ring away, makes a request, and gives it back.
fn without(show: Show, part: usize) -> Result<()> {
    both(|machine, enforced| {
        machine.check_io(0, "before")?;
        let page = machine.rings[0].mapped[part];
        machine.bus.unmap(page, Unmap::Strict)?;
        let from = machine.page_with(&block("without its ring"))?;
        let outcome = machine.run(&Order::write(0, Place::Guest(from), self::page()))?;
        if enforced {
            expect("the device", outcome, Outcome::Died(Some(SIGBUS)))?;
            tell(show, machine, "the device dies of SIGBUS");
            machine.map_ring_again(part)?;
            goes_on(show, machine)
        } else {
            expect("the request", outcome, GOOD)?;
            tell(
                show,
                machine,
                "nothing is taken away: the device has it for ever",
            );
            Ok(())
        }
    })
}

fn descriptor_ring(show: Show, _: u32) -> Result<()> {
    without(show, 0)
}

fn used_ring(show: Show, _: u32) -> Result<()> {
    without(show, 2)
}

fn past_the_region(show: Show, _: u32) -> Result<()> {
    both(|machine, _| {
        let order = Order::write(0, Place::Told(machine.bus.end()), page());
        let outcome = machine.run(&order)?;
        expect("the device", outcome, Outcome::HungUp)?;
        ensure!(machine.daemon().is_alive()?, "it died");
        let complaints = machine.daemon().complaints();
        let last = complaints.lines().last().unwrap_or_default().to_owned();
        tell(
            show,
            machine,
            &format!("the device refuses it itself: {last}"),
        );
        machine.reconnect()?;
        machine.check_io(1 << 20, "after the refusal")
    })
}

fn read_only(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    machine.check_io(0, "on the disk")?;
    let text = block("the guest lets the device read this");
    let target = machine.page_with(&text)?;
    let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
    let there = Place::Told(mapped.addr);
    let write = machine.run(&Order::write(4096, there, page()))?;
    expect("a write from it", write, GOOD)?;
    ensure!(machine.on_disk(4096, text.len())? == text, "on the disk");
    let read = machine.run(&Order::read(0, there, page()))?;
    expect("a read into it", read, IO_ERROR)?;
    ensure!(
        machine.ram.read(target, text.len())? == text,
        "it has changed"
    );
    tell(show, &machine, "the device can write it to the disk");
    tell(
        show,
        &machine,
        "a read into it is an I/O error; the page is as it was",
    );
    machine.check_io(1 << 20, "the device lives")
}

fn read_only_status(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    let target = machine.page_with(&block("to be read"))?;
    let mapped = machine.bus.map(target, page_size(), Prot::READ)?;
    let into = machine.ram.pages(page_size())?;
    let order = Order {
        status: Some(Place::Told(mapped.addr)),
        ..Order::read(0, Place::Guest(into), page())
    };
    expect(
        "the device",
        machine.run(&order)?,
        Outcome::Died(Some(SIGSEGV)),
    )?;
    tell(show, &machine, "the device dies of SIGSEGV");
    machine.bus.unmap(mapped, Unmap::Strict)?;
    goes_on(show, &mut machine)
}

fn in_flight(show: Show, _: u32) -> Result<()> {
    for (bus, enforced) in [
        ((|_| Ok(Bus::memfd())) as fn(&Ram) -> Result<Bus>, false),
        (Bus::iommu, true),
    ] {
        // One request a second, of which the first comes at once.
        let mut machine = Machine::with_speed(bus, Speed::Slow)?;
        let first = machine.page_with(&block("the first"))?;
        let secret = machine.page_with(SECRET.as_bytes())?;
        let order = Order::write(0, Place::Guest(first), page());
        expect("the first request", machine.run(&order)?, GOOD)?;

        let mapped = machine.bus.map(secret, page_size(), Prot::READ)?;
        let order = Order::write(8192, Place::Told(mapped.addr), page());
        let flight = machine.begin(&order)?;
        ensure!(
            machine.is_silent(&flight, Duration::from_millis(200))?,
            "the request did not wait"
        );
        machine.bus.unmap(mapped, Unmap::Strict)?;
        let outcome = machine.finish(flight, Unmap::Strict)?;
        let leaked = machine.disk_has(SECRET.as_bytes())?;
        expect(
            "the request",
            outcome,
            if enforced { IO_ERROR } else { GOOD },
        )?;
        expect("the page is on the disk", leaked, !enforced)?;
        tell(
            show,
            &machine,
            if enforced {
                "the request ends in an I/O error, and nothing of the page is on the disk"
            } else {
                "the request is done with a page that the guest has taken back"
            },
        );
        let order = Order::write(0, Place::Guest(first), page());
        expect("the next request", machine.run(&order)?, GOOD)?;
    }
    Ok(())
}

fn domain_switch(show: Show, _: u32) -> Result<()> {
    let mut machine = Machine::new(Bus::iommu)?;
    let [old, new] = ["of the old domain", "of the new domain"].map(block);
    let (old_page, new_page) = (machine.page_with(&old)?, machine.page_with(&new)?);
    let header = machine.page_with(&[0; 16])?;
    let status = machine.page_with(&[0])?;
    let end = machine.bus.end();
    let page_at = |index: u64| end - (16 - index) * page_size();
    // The rings stay where they are; the rest is elsewhere in each.
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
            header: Some(Place::Told(page_at(0))),
            status: Some(Place::Told(page_at(1))),
            ..Order::write(0, Place::Told(addr), page())
        };
        let flight = machine.begin(&order)?;
        match machine.finish(flight, Unmap::Strict)? {
            Outcome::Done(_) => Ok(Outcome::Done(machine.ram.read(status, 1)?[0])),
            outcome => Ok(outcome),
        }
    };

    for round in 0..20 {
        machine
            .bus
            .as_iommu()?
            .domain
            .replace(&with(one, old_page))?;
        expect("the old domain", write(&mut machine, one)?, GOOD)?;
        ensure!(machine.on_disk(0, old.len())? == old, "round {round}");
        expect("the new one's", write(&mut machine, other)?, IO_ERROR)?;

        machine
            .bus
            .as_iommu()?
            .domain
            .replace(&with(other, new_page))?;
        expect("the old one's", write(&mut machine, one)?, IO_ERROR)?;
        ensure!(machine.on_disk(0, old.len())? == old, "round {round}");
        expect("the new domain", write(&mut machine, other)?, GOOD)?;
        ensure!(machine.on_disk(0, new.len())? == new, "round {round}");
    }
    tell(
        show,
        &machine,
        "20 times there and back: what was mapped is gone, what is mapped is there,",
    );
    tell(
        show,
        &machine,
        "and the rings, which are in both, were never away",
    );
    Ok(())
}

fn restart(show: Show, _: u32) -> Result<()> {
    const ROUNDS: u32 = 3;
    const WRITES: u32 = 60;
    let mut machine = Machine::new(Bus::iommu)?;
    let buffers = [(); 4].map(|()| machine.ram.pages(page_size()));
    let buffers: Vec<u64> = buffers.into_iter().collect::<Result<_>>()?;
    let text = |index: u32| block(&format!("write {index}"));
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
    tell(
        show,
        &machine,
        &format!("{next} writes; the device is killed {again} times, with four in flight"),
    );
    tell(
        show,
        &machine,
        "the VMM notices, starts it again with the same view, and makes the four again",
    );
    tell(
        show,
        &machine,
        "every write that was acknowledged is on the disk",
    );
    Ok(())
}
