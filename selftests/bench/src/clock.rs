// SPDX-License-Identifier: GPL-2.0

//! The clock that is read before and after an operation: nanoseconds, or instructions.

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

    /// What `work` takes, when it has no result.
    pub fn time(self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        Ok(self.measure(work)?.0)
    }
}

/// Begins to count instructions by their addresses, if `scripts/lib/profile/count.c` is loaded.
fn mark_begin() {
    // SAFETY: The instruction exchanges a register with itself and changes nothing.
    unsafe { std::arch::asm!("xchg bx, bx", options(nomem, nostack, preserves_flags)) };
}

/// Ends what [`mark_begin()`] began.
fn mark_end() {
    // SAFETY: The instruction exchanges a register with itself and changes nothing.
    unsafe { std::arch::asm!("xchg cx, cx", options(nomem, nostack, preserves_flags)) };
}

fn stamp() -> u64 {
    // SAFETY: Every x86-64 processor has the instruction, and a Linux kernel allows it.
    unsafe { std::arch::x86_64::_rdtsc() }
}
