// SPDX-License-Identifier: GPL-2.0

//! The device: holds a read-only view of a part of the window, and reads through it.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};

use address_space::{AddressSpace, Error, Prot, View, Window};
use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::process::no_core_files;
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::message::{Answer, DeviceOrder, LINE, first_line};
use crate::process;

struct Device {
    view: View,
    window: Window,
}

pub fn run() -> Result<()> {
    // It is to die of a signal.
    no_core_files()?;

    let mut device = None;
    process::serve(|order, mut fds, _| {
        if let DeviceOrder::Begin = order {
            let from_vmm = Channel::from(fds.pop().context("a channel expected")?);
            let view = View::from(from_vmm.receive_fd()?);
            let window = view.attach(0..view.length()?, Prot::READ)?;
            device = Some(Device { view, window });
            return Ok(Answer::Done);
        }
        device.as_ref().context("not begun")?.serve(order)
    })
}

impl Device {
    fn serve(&self, order: DeviceOrder) -> Result<Answer> {
        let length = self.view.length()?;
        match order {
            DeviceOrder::Begin => bail!("begun already"),
            DeviceOrder::Copy { offset } => self.copy(offset as usize),
            DeviceOrder::Read { offset } => {
                let mut bytes = [0; LINE];
                self.window.read_slice(offset as usize, &mut bytes)?;
                Ok(Answer::Line(first_line(&bytes)))
            }
            DeviceOrder::TryWriting => {
                refused(self.view.attach(0..length, Prot::READ | Prot::WRITE))
            }
            DeviceOrder::TryBeyond => refused(self.view.attach(length..2 * length, Prot::READ)),
            DeviceOrder::TryMapping => {
                let claim = AddressSpace::from(self.view.as_fd().try_clone_to_owned()?);
                let file = File::open("/proc/self/exe")?;
                refused(claim.map(&file).at(0).replace().commit())
            }
        }
    }

    /// Lets the kernel copy a line. In a hole the system call fails with EFAULT, where
    /// an access of the device itself would raise a signal.
    fn copy(&self, offset: usize) -> Result<Answer> {
        if offset + LINE > self.window.len() {
            bail!("{offset:#x} is not within the view");
        }
        let (out, into) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        // SAFETY: The range lies within the window, as was checked, and the kernel only
        // reads it; where it cannot, the call fails.
        let written = unsafe {
            let from = self.window.as_ptr().add(offset);
            libc::write(into.as_raw_fd(), from.cast(), LINE)
        };
        if written < 0 {
            let error = std::io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EFAULT) => Ok(Answer::Hole),
                _ => Err(error).context("write"),
            };
        }
        let mut bytes = [0; LINE];
        let length = read(&out, &mut bytes).context("read")?;
        Ok(Answer::Line(first_line(&bytes[..length])))
    }
}

/// Expects a refusal.
fn refused<T>(result: Result<T, Error>) -> Result<Answer> {
    match result {
        Ok(_) => bail!("the kernel did not refuse it"),
        Err(error) => Ok(Answer::Refused {
            errno: error.errno().map_or(0, Errno::raw_os_error),
            advice: error.advice().unwrap_or_default().to_owned(),
        }),
    }
}
