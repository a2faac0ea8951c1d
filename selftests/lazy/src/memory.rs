// SPDX-License-Identifier: GPL-2.0

//! The guest's memory: an address space that shows a memfd, of which chunks are there or not
//! yet. Guest, VMM and devices all have it through the same address space.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, Device, Event, EventKind, Events, Holes, Map, Prot, View};
use anyhow::{Result, ensure};
use rig::{READ_WRITE, fdinfo, memfd};

use crate::guest::LENGTH;

/// What comes at a time, in bytes. Larger chunks compress better and are fewer; but who touches
/// a byte waits for all of one.
pub const CHUNK: usize = 64 << 10;

/// How many chunks the memory has.
pub const CHUNKS: usize = LENGTH / CHUNK;

/// The memory of a guest.
pub struct Memory {
    file: File,
    space: AddressSpace,
}

impl Memory {
    /// Memory of which nothing is there yet. Whoever touches it waits, as soon as it is
    /// [watched](Memory::watch), and is refused before.
    pub fn empty() -> Result<Memory> {
        let file = memfd::sparse("guest-ram", LENGTH as u64)?;
        let space = Device::open()?.create_with(LENGTH as u64, Holes::WAIT)?;
        // So that to map a chunk is no more than an entry in a table.
        space.register(&file).prot(READ_WRITE).commit()?;
        Ok(Memory { file, space })
    }

    /// Memory that is there, with this in it.
    pub fn with(image: &[u8]) -> Result<Memory> {
        let memory = Memory::empty()?;
        memory.file.write_all_at(image, 0)?;
        memory.map(0, LENGTH).commit()?;
        Ok(memory)
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Has whoever touches what is not there wait, and be told of.
    pub fn watch(&self) -> Result<Events> {
        Ok(self.space.watch(0..LENGTH as u64, None)?)
    }

    /// What a device gets: it waits in its system calls too, since most devices have those
    /// access the guest's memory.
    pub fn view(&self) -> Result<View> {
        let holes = Holes::WAIT | Holes::KERNEL;
        Ok(self.space.view_with(0..LENGTH as u64, READ_WRITE, holes)?)
    }

    /// Brings a chunk that is not there, with these bytes in it; without any it is zero.
    pub fn bring(&self, chunk: usize, bytes: Option<&[u8]>) -> Result<()> {
        if let Some(bytes) = bytes {
            ensure!(bytes.len() == CHUNK, "a chunk of {} bytes", bytes.len());
            // Nobody sees it in the file before it is mapped.
            self.file.write_all_at(bytes, (chunk * CHUNK) as u64)?;
        }
        // Who waits for it will not have to wait for the file, too.
        self.map(chunk * CHUNK, CHUNK).populate().commit()?;
        Ok(())
    }

    fn map(&self, at: usize, length: usize) -> Map<'_> {
        let map = self.space.map(&self.file).offset(at as u64);
        map.length(length as u64).at(at as u64).prot(READ_WRITE)
    }

    /// Refuses from now on whoever touches what is not there: it will not come.
    pub fn give_up(&self) -> Result<()> {
        Ok(self.space.poison(0..LENGTH as u64)?)
    }

    /// The same of one chunk.
    pub fn give_up_chunk(&self, chunk: usize) -> Result<()> {
        let start = (chunk * CHUNK) as u64;
        Ok(self.space.poison(start..start + CHUNK as u64)?)
    }

    /// Reads a chunk from the file.
    pub fn read(&self, chunk: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; CHUNK];
        self.file
            .read_exact_at(&mut bytes, (chunk * CHUNK) as u64)?;
        Ok(bytes)
    }

    /// How many tasks wait for a page.
    pub fn waiting(&self) -> Result<u64> {
        fdinfo::number(&fdinfo::read(&self.space)?, "waiting")
    }

    /// How many chunks are there. Fails if a part of one is.
    pub fn chunks_mapped(&self) -> Result<usize> {
        let mappings = fdinfo::mappings(&fdinfo::read(&self.space)?)?;
        let bytes: u64 = mappings
            .iter()
            .map(|mapping| mapping.range.end - mapping.range.start)
            .sum();
        ensure!(bytes % CHUNK as u64 == 0, "a part of a chunk is mapped");
        Ok((bytes / CHUNK as u64) as usize)
    }

    /// Fails unless the memory is all there, and nobody watches it any more.
    pub fn check_complete(&self) -> Result<()> {
        let mappings = fdinfo::mappings(&fdinfo::read(&self.space)?)?;
        let mut end = 0;
        for mapping in mappings {
            // Where pages are migrated meanwhile, neighbours are not joined.
            ensure!(
                mapping.range.start == end,
                "nothing is mapped from {end:#x} to {:#x}",
                mapping.range.start
            );
            end = mapping.range.end;
        }
        ensure!(end == LENGTH as u64, "nothing is mapped from {end:#x} on");
        // It would be EBUSY.
        drop(self.watch()?);
        Ok(())
    }

    /// Compares all of it, as its guest sees it, with what it should be, byte by byte.
    pub fn compare(&self, should: &[u8]) -> Result<()> {
        let window = self.space.attach(0..LENGTH as u64, Prot::READ)?;
        let mut bytes = vec![0; CHUNK];
        for (chunk, should) in should.chunks_exact(CHUNK).enumerate() {
            window.read_slice(chunk * CHUNK, &mut bytes)?;
            if let Some(at) = (0..CHUNK).find(|&at| bytes[at] != should[at]) {
                let (is, should) = (bytes[at], should[at]);
                let at = chunk * CHUNK + at;
                anyhow::bail!("at {at:#x}: {is:#x}, should be {should:#x}");
            }
        }
        Ok(())
    }
}

/// In which chunk an address is.
pub fn chunk_at(offset: u64) -> usize {
    offset as usize / CHUNK
}

/// The events that tell of accesses that were refused, and that were not read yet.
pub fn refused(events: &Events) -> Result<Vec<Event>> {
    events.set_nonblocking(true)?;
    let mut refused = Vec::new();
    while let Some(event) = events.try_next()? {
        if event.kind != EventKind::Wait {
            refused.push(event);
        }
    }
    Ok(refused)
}
