// SPDX-License-Identifier: GPL-2.0

//! A guest that reads a file as it is told, through each of three file systems: what the
//! bench, the VMM and the guest's program have agreed on.

use anyhow::{Context as _, Result};

use crate::ports::Number;

/// How long a window is, in bytes.
pub const WINDOW: u64 = 32 << 20;
/// The file in the directory, and its length in bytes. Each of its pages begins with the
/// page's number, in 64 bits.
pub const FILE: &str = "file";
pub const LENGTH: u64 = 8 * WINDOW;
/// How much is read at a time, in bytes.
pub const PAGE: u64 = 4096;

/// A file system of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The file server changes its window.
    Server,
    /// The VMM changes it, as the server asks by messages.
    Vmm,
    /// There is none.
    NoWindow,
}

impl Mount {
    pub const ALL: [Mount; 3] = [Mount::Server, Mount::Vmm, Mount::NoWindow];

    pub fn tag(self) -> &'static str {
        match self {
            Mount::Server => "server",
            Mount::Vmm => "vmm",
            Mount::NoWindow => "none",
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Read so many pages from one on, in their order; after the last page comes the first.
    InOrder { first: u32, count: u32 },
    /// Read so many pages at random; the same with the same seed.
    AtRandom { seed: u32, count: u32 },
    /// Forget what is in the guest's own page cache.
    Forget,
}

/// The numbers that a job is, so that it can be told.
pub fn numbers(mount: Mount, job: Job) -> [u64; 2] {
    let (kind, start, count) = match job {
        Job::InOrder { first, count } => (0, first, count),
        Job::AtRandom { seed, count } => (1, seed, count),
        Job::Forget => (2, 0, 0),
    };
    let both = (u64::from(start) << 32) | u64::from(count);
    [mount as u64 | (kind << 8), both]
}

/// The job that numbers are.
pub fn job([what, both]: [u64; 2]) -> Result<(Mount, Job)> {
    let mount = Mount::ALL.get((what & 0xff) as usize);
    let (start, count) = ((both >> 32) as u32, both as u32);
    let job = match what >> 8 {
        0 => Some(Job::InOrder {
            first: start,
            count,
        }),
        1 => Some(Job::AtRandom { seed: start, count }),
        2 => Some(Job::Forget),
        _ => None,
    };
    mount.copied().zip(job).context("no such job")
}

/// What the program calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// It has done its job, if it had one, and wants the next.
    Next = 1,
    /// Something went wrong. The console says what.
    Failed,
}

impl Number for Call {
    fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_the_numbers_that_they_are_told_by() {
        for mount in Mount::ALL {
            for of in [
                Job::InOrder { first: 7, count: 9 },
                Job::AtRandom {
                    seed: !0,
                    count: !0,
                },
                Job::Forget,
            ] {
                assert_eq!(job(numbers(mount, of)).unwrap(), (mount, of));
            }
        }
        assert!(job([3, 0]).is_err());
        assert!(job([3 << 8, 0]).is_err());
    }
}
