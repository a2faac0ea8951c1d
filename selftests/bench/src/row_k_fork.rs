// SPDX-License-Identifier: GPL-2.0

//! Row k, continued: fork() of a process that has touched much. The kernel copies the entries
//! of a window, and those of a mapped file the child enters again when it touches them.

use std::io;

use address_space::AddressSpace;
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;
use rustix::mm::{Advice, madvise};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::clock::Clock;
use crate::memory::{PAGE, Touch, in_order, resident, touch_pages};
use crate::rounds::{Bench, other, ours};

const LENGTH: usize = 64 << 20;

pub fn run(bench: &mut Bench) -> Result<()> {
    let contenders = vec![
        ours("a window", |clock| window(clock, false)),
        ours("a window, MADV_DONTFORK", |clock| window(clock, true)),
        other("a memfd", memfd),
    ];
    bench.compare('k', "fork with 64 MiB touched", 10, contenders, &[])
}

/// What is touched is mapped for one sample, or every fork would have all of it.
fn window(clock: Clock, keep_out: bool) -> Result<f64> {
    let file = resident(LENGTH)?;
    let space = AddressSpace::new(LENGTH as u64)?;
    space.map(&file).at(0).prot(READ_WRITE).commit()?;
    let window = space.attach(.., READ_WRITE)?;
    if keep_out {
        // SAFETY: It is for the child alone, which does not use the window.
        unsafe { madvise(window.as_ptr().cast(), LENGTH, Advice::LinuxDontFork) }?;
    }
    // SAFETY: All of it is mapped.
    unsafe { touch_pages(window.as_ptr(), &in_order(LENGTH / PAGE), Touch::Write) };
    clock.time(fork_and_wait)
}

fn memfd(clock: Clock) -> Result<f64> {
    let file = resident(LENGTH)?;
    let memory = Plain::of(&file, 0, LENGTH)?;
    // SAFETY: All of it is mapped.
    unsafe { touch_pages(memory.as_ptr(), &in_order(LENGTH / PAGE), Touch::Write) };
    clock.time(fork_and_wait)
}

/// Forks a child that ends at once, and waits for that.
fn fork_and_wait() -> Result<()> {
    // SAFETY: The child calls nothing but _exit().
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()).context("fork"),
        // SAFETY: It does not return.
        0 => unsafe { libc::_exit(0) },
        pid => Pid::from_raw(pid).context("fork")?,
    };
    let ended = waitpid(Some(child), WaitOptions::empty())?;
    ensure!(
        ended.is_some_and(|(_, status)| status.exit_status() == Some(0)),
        "the child ended with {ended:?}"
    );
    Ok(())
}
