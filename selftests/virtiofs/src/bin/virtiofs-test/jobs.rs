// SPDX-License-Identifier: GPL-2.0

//! The jobs that the module has its workers do, which the kernel's tracing shows.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

const TRACING: &str = "/sys/kernel/tracing/instances/virtiofs-test";
const EVENT: &str = "events/workqueue/workqueue_execute_start/enable";

/// Longer than the module keeps what is no longer used, to release it then.
const SETTLE: Duration = Duration::from_millis(500);

/// Counts jobs until it is dropped. There must be one at a time.
pub struct Jobs(PathBuf);

impl Jobs {
    pub fn count_from_now() -> Result<Jobs> {
        let path = PathBuf::from(TRACING);
        fs::create_dir(&path).context("cannot trace")?;
        let jobs = Jobs(path);
        thread::sleep(SETTLE);
        fs::write(jobs.0.join(EVENT), "1")?;
        Ok(jobs)
    }

    /// How many there were.
    pub fn count(self) -> Result<usize> {
        let trace = fs::read_to_string(self.0.join("trace"))?;
        // After the name of the function is that of its module.
        let of_module = |line: &&str| line.contains("[address_space]");
        Ok(trace.lines().filter(of_module).count())
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join(EVENT), "0");
        let _ = fs::remove_dir(&self.0);
    }
}
