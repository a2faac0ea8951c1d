// SPDX-License-Identifier: GPL-2.0

//! A snapshot: the memory of a guest that was stopped, in a file that nobody can write any
//! more, and what was in its CPU.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use rig::check::expect;
use rig::flat::{self, CpuState};
use rig::memfd;
use rig::plain::Plain;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::io::Errno;

use crate::cpu;
use crate::guest::{Command, LENGTH, State, program};

/// Nobody can change the file.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A snapshot.
pub struct Snapshot {
    pub file: File,
    pub cpu: CpuState,
    /// What the guest had counted and marked,
    pub state: State,
    /// and how many commands it had had.
    pub commands: u32,
}

impl Snapshot {
    /// Runs a guest, and takes one of it: its memory was a memfd, which is kept.
    pub fn take() -> Result<Snapshot> {
        let file = memfd::with_flags("snapshot", LENGTH as u64, MemfdFlags::ALLOW_SEALING)?;
        let machine = flat::Machine::new(Plain::of(&file, 0, LENGTH)?, program())?;
        let mut vcpu = flat::new_vcpu(machine.vm(), 0)?;
        let mut state = State::default();
        let mut commands = 0;
        let mut obey = |command, argument| {
            commands += 1;
            cpu::obey(&mut vcpu, command, argument, |what| {
                bail!("the guest cannot access its memory: {what:x?}")
            })
        };
        obey(Command::Build, 0)?;
        for more in 1..=3 {
            state.count += more;
            expect("a counter", obey(Command::Count, more)?, state.count)?;
        }
        expect("the walk", obey(Command::Walk, 0)?, state.walked())?;
        let cpu = CpuState::save(&mut vcpu)?;
        // Else somebody could still write it.
        drop((vcpu, machine));
        fcntl_add_seals(&file, SEALS).context("F_ADD_SEALS")?;
        Ok(Snapshot {
            file,
            cpu,
            state,
            commands,
        })
    }

    /// Fails unless it is as it was, byte by byte, and cannot be changed.
    pub fn check(&self) -> Result<()> {
        let mut bytes = vec![0; LENGTH];
        self.file.read_exact_at(&mut bytes, 0)?;
        ensure!(bytes == self.state.image(), "the snapshot has changed");
        expect("its seals", fcntl_get_seals(&self.file)?, SEALS)?;
        let written = rustix::io::pwrite(&self.file, &[1], 0);
        expect("a write to it", written, Err(Errno::PERM))
    }
}
