// SPDX-License-Identifier: GPL-2.0

//! A memory cgroup of the clones' processes, whose charge says what they take.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup, removed when this is dropped: its processes must have ended.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new() -> Result<Cgroup> {
        let root = PathBuf::from(ROOT);
        fs::write(root.join("cgroup.subtree_control"), "+memory")
            .context("no memory controller in cgroup2")?;
        let path = root.join(format!("clones-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Cgroup(path))
    }

    /// Moves a process into it.
    pub fn add(&self, process: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).context("cgroup.procs")
    }

    /// What it is charged, in KiB.
    pub fn charged(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.current"))?;
        let bytes: u64 = text.trim().parse().context("memory.current")?;
        Ok(bytes >> 10)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
