// SPDX-License-Identifier: GPL-2.0

//! The CPUs, each in a thread of its own, and what happens when one of them leaves the guest.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kvm_ioctls::VcpuFd;
use rig::tap::line;
use rustix::process::{Signal, getpid, kill_process};
use vmm_sys_util::signal::{Killable as _, register_signal_handler};

use crate::machine::{Devices, Machine, Stop};
use crate::report::Report;

/// How long until an interruption is repeated: one that comes between two runs of the guest
/// has no effect.
const INTERVAL: Duration = Duration::from_millis(20);

/// What happens outside of the guest. While a method runs, the CPU that has caused it does
/// not, nor can another one cause the next.
pub trait Trial: Send + 'static {
    type Devices: Devices + Send + 'static;

    /// The guest's program makes a call. Returns whether it may go on.
    fn called(
        &mut self,
        machine: &mut Machine<Self::Devices>,
        call: u8,
        numbers: [u64; 2],
    ) -> Result<bool>;

    /// A CPU was interrupted.
    fn interrupted(&mut self, _: &mut Machine<Self::Devices>) -> Result<()> {
        Ok(())
    }

    /// A CPU has accessed memory that is not there, and will again.
    fn hole(&mut self, _: &mut Machine<Self::Devices>) -> Result<()> {
        bail!("the guest has accessed a hole")
    }

    /// The guest has reset the machine.
    fn reset(&mut self) -> Result<()>;

    /// Prints what a reader needs who wants to know why the guest has failed.
    fn failed(&self, _: &Machine<Self::Devices>) {}
}

struct Shared<T: Trial> {
    state: Mutex<(Machine<T::Devices>, T)>,
    end: Mutex<Option<Result<()>>>,
}

/// Runs all CPUs, the first of them in this thread, which must be the first of the process,
/// until the guest resets the machine or something fails.
pub fn run<T: Trial>(
    machine: Machine<T::Devices>,
    trial: T,
    cpus: Vec<VcpuFd>,
) -> Result<(Machine<T::Devices>, T, Result<()>)> {
    interruptible()?;
    let shared = Arc::new(Shared {
        state: Mutex::new((machine, trial)),
        end: Mutex::new(None),
    });
    let first_has_ended = Arc::<AtomicBool>::default();
    let mut cpus = cpus.into_iter();
    let first = cpus.next().context("a machine without a CPU")?;
    let others: Vec<_> = cpus
        .map(|cpu| {
            let (shared, first_has_ended) = (shared.clone(), first_has_ended.clone());
            spawn(move || {
                shared.drive(cpu);
                while !first_has_ended.load(Relaxed) {
                    interrupt_first();
                    sleep(INTERVAL);
                }
            })
        })
        .collect();
    shared.drive(first);
    first_has_ended.store(true, Relaxed);
    for other in others {
        join(other);
    }
    let Some(shared) = Arc::into_inner(shared) else {
        bail!("a CPU still runs");
    };
    let (machine, trial) = into_inner(shared.state);
    let end = into_inner(shared.end).context("no CPU has a reason to end")?;
    Ok((machine, trial, end))
}

/// Runs a machine, if it could be made, and reports on the trial; returns whether all
/// promises are kept.
pub fn run_and_report<T: Trial>(
    made: Result<(Machine<T::Devices>, Vec<VcpuFd>)>,
    trial: T,
    report: impl FnOnce(T) -> Report,
) -> bool {
    let (machine, cpus) = match made {
        Ok(made) => made,
        Err(error) => return report(trial).end(&Err(error)),
    };
    match run(machine, trial, cpus) {
        Ok((machine, trial, end)) => {
            if end.is_err() {
                trial.failed(&machine);
            }
            report(trial).end(&end)
        }
        Err(error) => {
            line(&format!("# {error:#}"));
            false
        }
    }
}

impl<T: Trial> Shared<T> {
    /// Runs a CPU until any of them has a reason to end.
    fn drive(&self, mut cpu: VcpuFd) {
        while lock(&self.end).is_none() {
            if let Some(end) = self.step(&mut cpu).transpose() {
                lock(&self.end).get_or_insert(end);
            }
        }
    }

    /// Runs a CPU until it leaves the guest; returns `Some` if the guest has ended.
    fn step(&self, cpu: &mut VcpuFd) -> Result<Option<()>> {
        let exit = cpu.run();
        let (machine, trial) = &mut *lock(&self.state);
        match machine.exit(exit)? {
            None => {}
            Some(Stop::Call(call, numbers)) => {
                let good = trial.called(machine, call, numbers)?;
                machine.answer(good);
            }
            Some(Stop::Interrupted) => trial.interrupted(machine)?,
            Some(Stop::Hole) => trial.hole(machine)?,
            Some(Stop::Reset) => return trial.reset().map(Some),
        }
        Ok(None)
    }
}

/// Interrupts a CPU's thread until it ends.
fn join(thread: JoinHandle<()>) {
    while !thread.is_finished() {
        // It fails only if the thread has ended.
        let _ = thread.kill(Signal::USR1.as_raw());
        sleep(INTERVAL);
    }
    // A panic has been printed.
    let _ = thread.join();
}

/// Interrupts the first CPU: of all threads, the first gets the signal.
pub fn interrupt_first() {
    let _ = kill_process(getpid(), Signal::USR1);
}

/// Makes the signal that interrupts CPUs do nothing else.
fn interruptible() -> Result<()> {
    Ok(register_signal_handler(Signal::USR1.as_raw(), nothing)?)
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
