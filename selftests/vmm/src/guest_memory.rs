// SPDX-License-Identifier: GPL-2.0

//! All of the guest's memory as one address space, whose offsets are guest physical
//! addresses: its RAM, and a window in which a file server maps and unmaps. A device that
//! gets a view of it reaches both, and so can read a file from a disk into another file.
//!
//! The guest has the RAM as an ordinary memory slot, which is the same memory.

use std::ops::Range;

use address_space::{AddressSpace, KvmFlags, KvmWindow, View, vm_fd};
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
    slot: KvmWindow,
}

impl GuestMemory {
    /// With a window of so many bytes, a power of two.
    pub fn new(base: &Base, length: u64) -> Result<GuestMemory> {
        let shared = Shared {
            id: CACHE,
            addr: WINDOWS.next_multiple_of(length),
            length,
        };
        let window = shared.addr..shared.addr + length;
        let space = AddressSpace::new(MEMORY_END + length)?;
        space
            .map(base.ram.file())
            .length(base.ram.length())
            .at(0)
            .prot(READ_WRITE)
            .commit()?;
        let vm = vm_fd(&base.vm);
        let part = space.part(window.clone(), READ_WRITE)?;
        let slot = space.attach_kvm(vm, WINDOW_SLOT, shared.addr, window, KvmFlags::empty())?;
        Ok(GuestMemory {
            space,
            part,
            shared,
            slot,
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

    /// A part of the space that no device and no guest sees, as large as the window.
    pub fn aside(&self) -> Range<u64> {
        MEMORY_END..MEMORY_END + self.shared.length
    }

    /// The window, in this process.
    pub fn memory(&self) -> &KvmWindow {
        &self.slot
    }

    /// What a device gets that reaches all of it.
    pub fn view(&self) -> Result<View> {
        Ok(self.space.view(0..MEMORY_END, READ_WRITE)?)
    }

    /// What is mapped in the window.
    pub fn in_window(&self) -> Result<Vec<fdinfo::Mapping>> {
        let window = self.window();
        let mut mappings = fdinfo::mappings(&fdinfo::read(&self.space)?)?;
        mappings.retain(|mapping| window.contains(&mapping.range.start));
        Ok(mappings)
    }
}
