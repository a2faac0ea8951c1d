// SPDX-License-Identifier: GPL-2.0

//! What is read before and after: nanoseconds, or instructions.

use std::time::Instant;

use anyhow::Result;

/// What a sample is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nanoseconds.
    Time,
    /// Instructions. QEMU's `-icount shift=0` moves the time stamp counter by one for
    /// each; anywhere else it is a clock like others.
    Instructions,
}

impl Clock {
    pub fn unit(self) -> &'static str {
        match self {
            Clock::Time => "ns",
            Clock::Instructions => "instructions",
        }
    }

    /// What `work` takes.
    pub fn measure<T>(self, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
        match self {
            Clock::Time => {
                let start = Instant::now();
                let result = work()?;
                Ok((start.elapsed().as_nanos() as f64, result))
            }
            Clock::Instructions => {
                let start = stamp();
                mark_begin();
                let result = work();
                mark_end();
                Ok((stamp().wrapping_sub(start) as f64, result?))
            }
        }
    }

    /// What `work` takes that gives nothing.
    pub fn time(self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        Ok(self.measure(work)?.0)
    }
}

/// From here on, instructions are to be counted by where they are, if that is done
/// (`scripts/profile/count.c`).
fn mark_begin() {
    // SAFETY: Exchanges a register with itself.
    unsafe { std::arch::asm!("xchg bx, bx", options(nomem, nostack, preserves_flags)) };
}

/// See [`mark_begin()`].
fn mark_end() {
    // SAFETY: Exchanges a register with itself.
    unsafe { std::arch::asm!("xchg cx, cx", options(nomem, nostack, preserves_flags)) };
}

fn stamp() -> u64 {
    // SAFETY: Every x86-64 processor has it, and no kernel we run on forbids it.
    unsafe { std::arch::x86_64::_rdtsc() }
}
