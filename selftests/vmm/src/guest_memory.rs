// SPDX-License-Identifier: GPL-2.0

//! All of the guest's memory as one address space, whose offsets are guest physical
//! addresses: its RAM, and a window in which a file server maps and unmaps. A device that
//! gets a view of it reaches both, and so can read a file from a disk into another file.
//!
//! The guest has the RAM as an ordinary memory slot, which is the same memory.
//!
//! A file may become shorter than what the window shows of it. What an access past its end
//! comes to is the VMM's to choose: it is absorbed, or it ends KVM_RUN.

use std::ops::Range;

use address_space::{AddressSpace, Events, Holes, KvmFlags, View, vm_fd};
use anyhow::Result;
use rig::{READ_WRITE, fdinfo};

use crate::machine::Base;
use crate::pci::{MEMORY_END, Shared, WINDOWS};

/// The number of the window's memory slot.
const WINDOW_SLOT: u32 = 1;
/// The standard's number for the cache of virtio-fs.
const CACHE: u8 = 0;

pub struct GuestMemory {
    space: AddressSpace,
    /// The window alone.
    part: AddressSpace,
    shared: Shared,
    holes: Holes,
}

impl GuestMemory {
    /// With a window of so many bytes, a power of two, and what accesses of guest and devices
    /// to what is not there come to.
    pub fn new(base: &Base, length: u64, holes: Holes) -> Result<GuestMemory> {
        let shared = Shared {
            id: CACHE,
            addr: WINDOWS.next_multiple_of(length),
            length,
        };
        let window = shared.addr..shared.addr + length;
        let space = AddressSpace::new(MEMORY_END)?;
        space
            .map(&*base.ram)
            .length(base.ram.length())
            .at(0)
            .prot(READ_WRITE)
            .commit()?;
        let vm = vm_fd(&base.vm);
        let part = space.part(window.clone(), READ_WRITE)?;
        let flags = match holes.contains(Holes::ABSORB) {
            true => KvmFlags::HOLES_ABSORB,
            false => KvmFlags::HOLES_SIGNAL,
        };
        // The guest has it for as long as this process lives, which has no other guest.
        space
            .attach_kvm(vm, WINDOW_SLOT, shared.addr, window, flags)?
            .leak();
        Ok(GuestMemory {
            space,
            part,
            shared,
            holes,
        })
    }

    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// What the file server gets: the window and nothing else, whose offset 0 is its start.
    pub fn part(&self) -> &AddressSpace {
        &self.part
    }

    /// What the file server's device shares with its driver.
    pub fn shared(&self) -> Shared {
        self.shared
    }

    pub fn window(&self) -> Range<u64> {
        self.shared.addr..self.shared.addr + self.shared.length
    }

    /// What a device gets that reaches all of it.
    pub fn view(&self) -> Result<View> {
        Ok(self
            .space
            .view_with(0..MEMORY_END, READ_WRITE, self.holes)?)
    }

    /// What tells of all accesses to what is not there.
    pub fn watch(&self) -> Result<Events> {
        Ok(self.space.watch(0..MEMORY_END, None)?)
    }

    /// What is mapped in the window.
    pub fn in_window(&self) -> Result<Vec<fdinfo::Mapping>> {
        let window = self.window();
        let mut mappings = fdinfo::mappings(&fdinfo::read(&self.space)?)?;
        mappings.retain(|mapping| window.contains(&mapping.range.start));
        Ok(mappings)
    }
}
