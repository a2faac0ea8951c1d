// SPDX-License-Identifier: GPL-2.0

//! What is shown, one case after another. Where it tells something, each is made
//! with the RAM's memfd at first, as it is done today, and then with an address
//! space: the same requests to the same device.

mod amid;
mod control;
mod data;
mod much;

use address_space::page_size;
use anyhow::{Context as _, Result, ensure};
use viommu::machine::Machine;
use viommu::ram::Bus;

use crate::show::Show;
use amid::{domain_switch, in_flight, restart};
use control::{
    descriptor_ring, header, indirect_table, past_the_region, read_only_status, status, used_ring,
};
use data::{memory_is_overwritten, read_only, secret_leaks, straddling};
use much::{deferred, holdings, sizes, strict};

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;

/// What the guest keeps in a page that it never gave to the device.
pub const SECRET: &str = "the guest's private key: 3141592653589793";

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
