// SPDX-License-Identifier: GPL-2.0

//! Files in huge pages.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rig::memfd;
use rig::plain::Plain;
use rustix::fs::MemfdFlags;

use crate::memory::{HUGE, Touch, sparse, touch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Huge {
    /// A memfd that the kernel gives transparent huge pages.
    Thp,
    /// A memfd of hugetlbfs.
    Hugetlb,
}

impl fmt::Display for Huge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Huge::Thp => "THP",
            Huge::Hugetlb => "hugetlb",
        })
    }
}

/// The most bytes in files of hugetlbfs at one time.
const RESERVED: usize = 128 << 20;

/// Allows huge pages for memfds, and reserves some for hugetlbfs.
fn allow() -> Result<()> {
    let write = |path: &str, value: &str| {
        fs::write(path, value).with_context(|| format!("cannot write {value} to {path}"))
    };
    write(
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "advise",
    )?;
    write("/proc/sys/vm/nr_hugepages", &(RESERVED / HUGE).to_string())
}

/// A file of `length` bytes, all of which are in memory, in huge pages.
pub fn resident(kind: Huge, length: usize) -> Result<File> {
    allow()?;
    let file = match kind {
        Huge::Thp => sparse(length)?,
        Huge::Hugetlb => memfd::with_flags("bench", length as u64, MemfdFlags::HUGETLB)
            .context("a file of hugetlbfs")?,
    };
    let mapping = Plain::of(&file, 0, length)?;
    if kind == Huge::Thp {
        mapping.advise_huge()?;
    }
    for at in (0..length).step_by(HUGE) {
        // SAFETY: Within the mapping.
        unsafe { touch(mapping.as_ptr().add(at), Touch::Write) };
    }
    if kind == Huge::Thp {
        let huge = huge_in_smaps(&mapping)?;
        ensure!(
            huge == length,
            "the kernel gave {huge} bytes of {length} in huge pages"
        );
    }
    Ok(file)
}

/// How many bytes of a mapping of shared memory are mapped by huge entries.
fn huge_in_smaps(mapping: &Plain) -> Result<usize> {
    let smaps = fs::read_to_string(Path::new("/proc/self/smaps"))?;
    let start = format!("{:x}-", mapping.as_ptr() as usize);
    let (_, rest) = smaps
        .split_once(&format!("\n{start}"))
        .context("the mapping is not in smaps")?;
    let line = rest
        .lines()
        .find_map(|line| line.strip_prefix("ShmemPmdMapped:"))
        .context("no ShmemPmdMapped in smaps")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
