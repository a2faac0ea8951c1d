// SPDX-License-Identifier: GPL-2.0

//! The virtual machine: the guest's CPUs on its memory, each CPU in a thread while it runs.

use std::sync::{Mutex, PoisonError};
use std::thread::scope;

use address_space::{AddressSpace, KvmFlags, KvmWindow, vm_fd};
use anyhow::{Context as _, Result, bail, ensure};
use kvm_ioctls::VmFd;
use rig::flat::{self, CpuState};

use crate::guest::{CPUS, Cpu, LENGTH, Stop, image};
use crate::memory::Memory;

/// A virtual machine.
pub struct Machine {
    cpus: Vec<Mutex<Cpu>>,
    // It goes with the machine, which it would keep alive.
    _slot: KvmWindow,
    _vm: VmFd,
}

impl Machine {
    /// A machine that begins with its program.
    pub fn new(space: &AddressSpace) -> Result<Machine> {
        Machine::with_cpus(space, Cpu::new)
    }

    /// A machine that goes on where another was. Nothing of its memory has to be there.
    pub fn restored(space: &AddressSpace, states: &[CpuState]) -> Result<Machine> {
        ensure!(states.len() == CPUS, "{} CPUs, not {CPUS}", states.len());
        Machine::with_cpus(space, |vm, index| Cpu::restored(vm, index, &states[index]))
    }

    fn with_cpus(
        space: &AddressSpace,
        cpu: impl Fn(&VmFd, usize) -> Result<Cpu>,
    ) -> Result<Machine> {
        let vm = flat::new_vm()?;
        let range = 0..LENGTH as u64;
        // It has the address space's policy: what is not there is waited for.
        let slot = space.attach_kvm(vm_fd(&vm), 0, 0, range, KvmFlags::empty())?;
        let cpus = (0..CPUS).map(|index| cpu(&vm, index).map(Mutex::new));
        Ok(Machine {
            cpus: cpus.collect::<Result<_>>()?,
            _slot: slot,
            _vm: vm,
        })
    }

    /// Runs all CPUs until each has made so many reports, or cannot go on. While they run,
    /// `meanwhile` does, in this thread.
    pub fn run_while<T>(
        &self,
        reports: usize,
        meanwhile: impl FnOnce() -> Result<T>,
    ) -> Result<(Vec<Stop>, T)> {
        scope(|scope| {
            let run = |cpu: &Mutex<Cpu>| {
                let mut cpu = cpu.lock().unwrap_or_else(PoisonError::into_inner);
                cpu.run(reports)
            };
            let threads: Vec<_> = self
                .cpus
                .iter()
                .map(|cpu| scope.spawn(move || run(cpu)))
                .collect();
            let result = meanwhile();
            let stops: Result<Vec<_>> = threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(stop) => stop,
                    Err(_) => bail!("a CPU's thread has panicked"),
                })
                .collect();
            Ok((stops?, result?))
        })
    }

    /// Runs all CPUs until each has made so many reports; fails if one cannot go on.
    pub fn run(&self, reports: usize) -> Result<()> {
        let (stops, ()) = self.run_while(reports, || Ok(()))?;
        all_reported(&stops)
    }

    /// What its CPUs have in them; they must not run.
    pub fn save(&mut self) -> Result<Vec<CpuState>> {
        self.cpus
            .iter_mut()
            .map(|cpu| cpu.get_mut().unwrap_or_else(PoisonError::into_inner).save())
            .collect()
    }
}

/// Fails if a CPU has stopped for anything but its reports.
pub fn all_reported(stops: &[Stop]) -> Result<()> {
    match stops.iter().position(|stop| *stop != Stop::Reports) {
        None => Ok(()),
        Some(cpu) => bail!("CPU {cpu} has stopped: {:?}", stops[cpu]),
    }
}

/// The memory and machine of a guest that has run until so many reports were made.
pub fn running_guest(reports: usize) -> Result<(Memory, Machine)> {
    let memory = Memory::with(&image(0))?;
    let machine = Machine::new(memory.space())?;
    machine.run(reports).context("the guest's first run")?;
    Ok((memory, machine))
}
