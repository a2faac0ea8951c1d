// SPDX-License-Identifier: GPL-2.0

//! Settings of the processes of a test, and the signals that they die of.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

/// The signals that processes die of in the tests.
pub mod signals {
    use super::Signal;

    /// The memory is not there.
    pub const SIGBUS: i32 = Signal::BUS.as_raw();
    /// The access is not allowed.
    pub const SIGSEGV: i32 = Signal::SEGV.as_raw();
    /// Another process sent it.
    pub const SIGKILL: i32 = Signal::KILL.as_raw();
}

/// Disables core files for this process and its children, which die of signals on purpose.
pub fn no_core_files() -> Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("RLIMIT_CORE")
}

/// Makes this process end when its parent does.
pub fn end_with_parent() -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
}

/// Lets a command's process have a file descriptor, under the number that is returned.
pub fn inherit(command: &mut Command, fd: OwnedFd) -> RawFd {
    let number = fd.as_raw_fd();
    // SAFETY: Between fork and exec the closure makes one system call, and neither allocates
    // nor takes a lock.
    unsafe {
        command.pre_exec(move || fcntl_setfd(&fd, FdFlags::empty()).map_err(io::Error::from));
    }
    number
}
