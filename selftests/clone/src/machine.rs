// SPDX-License-Identifier: GPL-2.0

//! A clone: a virtual machine whose memory begins as the snapshot's, in one of three ways.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use address_space::{KvmFlags, KvmWindow, vm_fd};
use anyhow::{Context as _, Result, bail, ensure};
use kvm_ioctls::{VcpuFd, VmFd};
use rig::flat::{self, CpuState};
use rig::plain::Plain;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::blocks::{Blocks, Counts};
use crate::cpu::{self, Refused};
use crate::guest::{Command, LENGTH, PAGE};

/// How a clone gets its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// An address space that maps the snapshot private, and that is made writable by blocks of
    /// so many bytes.
    Blocks(usize),
    /// `mmap()` with MAP_PRIVATE.
    Private,
    /// A copy of all that is in the snapshot.
    Copy,
}

/// The memory of a clone, as the VMM has it.
enum Memory {
    Space {
        blocks: Arc<Blocks>,
        window: KvmWindow,
    },
    Plain(Plain),
}

/// A clone.
pub struct Machine {
    cpu: VcpuFd,
    // After the CPU, before the VM.
    memory: Memory,
    _vm: VmFd,
}

impl Machine {
    /// Makes it, and runs it until it waits for a command.
    pub fn start(way: Way, snapshot: &File, state: &CpuState) -> Result<Machine> {
        let vm = flat::new_vm()?;
        let memory = match way {
            Way::Blocks(block) => {
                flat::exit_where_kvm_cannot_emulate(&vm)?;
                let blocks = Blocks::new(snapshot, block)?;
                let range = 0..LENGTH as u64;
                let flags = KvmFlags::empty();
                let window = blocks.space().attach_kvm(vm_fd(&vm), 0, 0, range, flags)?;
                Memory::Space { blocks, window }
            }
            Way::Private => Memory::Plain(Plain::private(snapshot, LENGTH)?),
            Way::Copy => Memory::Plain(copy(snapshot)?),
        };
        if let Memory::Plain(ram) = &memory {
            flat::add_slot(&vm, 0, 0, ram)?;
        }
        let mut cpu = state.restore(&vm, 0)?;
        cpu::start(&mut cpu)?;
        Ok(Machine {
            cpu,
            memory,
            _vm: vm,
        })
    }

    /// Has the guest do what it is told.
    pub fn obey(&mut self, command: Command, argument: u32) -> Result<u32> {
        let memory = &self.memory;
        cpu::obey(&mut self.cpu, command, argument, |what| {
            memory.refused(&what)
        })
    }

    /// Fails unless its memory is that.
    pub fn compare(&self, should: &[u8]) -> Result<()> {
        let from = match &self.memory {
            Memory::Space { window, .. } => window.as_ptr(),
            Memory::Plain(ram) => ram.as_ptr(),
        };
        ensure!(should.len() == LENGTH, "it has another length");
        let mut is = [0; PAGE];
        for (page, should) in should.chunks_exact(PAGE).enumerate() {
            // SAFETY: So long the mapping is, all of it can be read, and the guest does not run.
            unsafe {
                let from = from.add(page * PAGE);
                from.copy_to_nonoverlapping(is.as_mut_ptr(), PAGE);
            }
            if is != should {
                let differs = (0..PAGE).find(|&at| is[at] != should[at]);
                let at = page * PAGE + differs.unwrap_or_default();
                bail!("at {at:#x}: it is not what it should be");
            }
        }
        Ok(())
    }

    /// What it has taken to have an address space as memory.
    pub fn blocks(&self) -> Result<&Blocks> {
        match &self.memory {
            Memory::Space { blocks, .. } => Ok(blocks),
            Memory::Plain(_) => bail!("its memory is not an address space"),
        }
    }

    pub fn counts(&self) -> Result<Counts> {
        self.blocks()?.counts()
    }
}

impl Memory {
    /// Does what the guest could not do.
    fn refused(&self, what: &Refused<'_>) -> Result<()> {
        let Memory::Space { blocks, window } = self else {
            bail!("the guest cannot access its memory: {what:x?}");
        };
        match *what {
            Refused::Write(at, bytes) => {
                let at = at as usize;
                let end = at + bytes.len();
                ensure!(end <= LENGTH, "a write beyond the memory, at {at:#x}");
                blocks.allow(at..end)?;
                Ok(window.write_slice(at, bytes)?)
            }
            Refused::Unknown => blocks.search(),
        }
    }
}

/// A copy of what is in a file; nothing where that has holes.
fn copy(file: &File) -> Result<Plain> {
    let ram = Plain::anonymous(LENGTH)?;
    // SAFETY: So long the mapping is, and nobody else has it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(ram.as_ptr(), LENGTH) };
    let mut end = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error).context("SEEK_DATA"),
        };
        end = seek(file, SeekFrom::Hole(start)).context("SEEK_HOLE")?;
        file.read_exact_at(&mut bytes[start as usize..end as usize], start)?;
    }
    Ok(ram)
}
