// SPDX-License-Identifier: GPL-2.0

//! A kill of a device during I/O, and an interruption of the CPU's thread, which is in the
//! guest, once the device is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::Result;
use rig::daemon::Daemon;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::cpus::interrupt_first;

/// How long the device stays alive.
const DELAY: Duration = Duration::from_millis(300);

/// A device that will be killed. Once it is dead, and until this is dropped, the CPU's
/// thread is interrupted again and again: an interruption between two runs of the guest has
/// no effect.
pub struct DelayedKill {
    noticed: Arc<AtomicBool>,
}

impl DelayedKill {
    pub fn new(daemon: &Daemon) -> Result<DelayedKill> {
        let noticed = Arc::<AtomicBool>::default();
        let kill = DelayedKill {
            noticed: noticed.clone(),
        };
        let pidfd = daemon.pidfd().try_clone_to_owned()?;
        spawn(move || {
            sleep(DELAY);
            // Both fail only if it is dead already.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
            while !noticed.load(Ordering::Relaxed) {
                interrupt_first();
                sleep(Duration::from_millis(20));
            }
        });
        Ok(kill)
    }
}

impl Drop for DelayedKill {
    fn drop(&mut self) {
        self.noticed.store(true, Ordering::Relaxed);
    }
}
