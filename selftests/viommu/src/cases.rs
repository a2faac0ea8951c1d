// SPDX-License-Identifier: GPL-2.0

//! The cases. Where it makes a difference, each runs first with the memfd of the RAM, which
//! is what devices get without address spaces, then with an address space where an access to
//! what is not mapped ends the device, and then with one that absorbs it: the same requests
//! to the same device.

mod another_device;
mod bulk;
mod common;
mod control;
mod data;
mod during_io;
mod lent_ram;

use anyhow::Result;

use another_device::another_device;
use bulk::{deferred, holdings, sizes, strict};
use control::{
    descriptor_ring, header, indirect_table, past_the_region, read_only_status, status, used_ring,
};
use data::{memory_is_overwritten, read_only, secret_leaks, straddling};
use during_io::{domain_switch, in_flight, restart};
use lent_ram::lent_ram;
use rig::show::Show;

/// A case: it also gets how many requests to make, where it makes many.
pub type Case = rig::cases::Case<fn(Show, u32) -> Result<()>>;

macro_rules! cases {
    ($($name:ident: $title:literal),* $(,)?) => {
        pub const CASES: &[Case] = &[
            $( Case { name: stringify!($name), title: $title, run: $name } ),*
        ];
    };
}

cases! {
    holdings: "What the device holds of the guest's memory",
    strict: "Much I/O, with map and unmap around each request",
    deferred: "Much I/O, with unmaps that are deferred and made together",
    sizes: "Mappings of 4 KiB to 2 MiB",
    secret_leaks: "A write from a page that the device does not have",
    memory_is_overwritten: "A read into a page that the device does not have",
    straddling: "A write from two pages, of which the device has one",
    header: "A request header in a page that the device does not have",
    status: "A status byte in a page that the device does not have",
    indirect_table: "An indirect table in a page that the device does not have",
    descriptor_ring: "The descriptor table is unmapped",
    used_ring: "The used ring is unmapped",
    past_the_region: "A descriptor past the region",
    read_only: "A read into a page that the device may only read",
    read_only_status: "A status byte in a page that the device may only read",
    in_flight: "An unmap while a request is in flight",
    domain_switch: "The guest moves the device to another domain, in one step",
    restart: "The device dies during I/O, and a new one goes on",
    lent_ram: "The RAM is no file, but memory that the VMM lends",
    another_device: "Another device: an unmodified virtiofsd serves files through a space",
}
