// SPDX-License-Identifier: GPL-2.0

//! The death of a device amid I/O, and how the CPU's thread, which is in the guest,
//! comes to hear of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::Result;
use rig::daemon::Daemon;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process, pidfd_send_signal};
use vmm_sys_util::signal::register_signal_handler;

/// How long it lives on.
const DELAY: Duration = Duration::from_millis(300);

/// Until this is dropped, the CPU is interrupted again and again once the device is
/// dead: an interruption that comes between two runs of the guest has no effect.
pub struct Doom {
    heard: Arc<AtomicBool>,
}

impl Doom {
    pub fn new(daemon: &Daemon) -> Result<Doom> {
        register_signal_handler(Signal::USR1.as_raw(), nothing)?;
        let doom = Doom {
            heard: Arc::default(),
        };
        let heard = doom.heard.clone();
        let pidfd = daemon.pidfd().try_clone_to_owned()?;
        spawn(move || {
            sleep(DELAY);
            // Both fail only where it is dead already.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
            while !heard.load(Ordering::Relaxed) {
                // The first thread takes it, which is the CPU's.
                let _ = kill_process(getpid(), Signal::USR1);
                sleep(Duration::from_millis(20));
            }
        });
        Ok(doom)
    }
}

impl Drop for Doom {
    fn drop(&mut self) {
        self.heard.store(true, Ordering::Relaxed);
    }
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
