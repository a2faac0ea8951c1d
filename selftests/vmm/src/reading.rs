// SPDX-License-Identifier: GPL-2.0

//! A guest that reads a file for the bench, in one directory by three file systems: one whose
//! window the server changes, one whose window this process changes, and one without.
//!
//! The bench is at the other end of the standard input. It sends a job, and gets an empty
//! message when the guest has done it; meanwhile the guest's CPU runs, and otherwise it does
//! not. The first message says that the guest is ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use address_space::Holes;
use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::file_server::FileServer;
use rig::process::end_with_parent;
use rig::tap::line;
use vmm_guest::reading::{Call, Mount, WINDOW};

use crate::asked_window::AskedWindow;
use crate::boot::Guest;
use crate::cpus::{self, Trial};
use crate::disk::Reach;
use crate::file_system::{FileSystem, Window};
use crate::guest_memory::GuestMemory;
use crate::machine::{Base, Console, Devices, Machine};
use crate::pci::{self, Shared, Slot};
use crate::virtio::Function;

/// Nothing in the directory changes.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

struct Hardware([Function<FileSystem>; 3]);

impl Devices for Hardware {
    const LAST: Slot = Slot(3);

    fn function(&mut self, slot: Slot) -> Option<&mut dyn pci::Function> {
        let index = usize::from(slot.0).checked_sub(1)?;
        Some(self.0.get_mut(index)?)
    }
}

impl Hardware {
    fn new(base: &Base, program: &Path, directory: &Path) -> Result<Hardware> {
        let memory = Arc::new(GuestMemory::new(base, WINDOW, Holes::empty())?);
        let own = memory.shared();
        let other = Shared {
            addr: own.addr + own.length,
            ..own
        };
        let asked = AskedWindow::new(base, other)?;
        let view = Reach::Space(memory.view()?);
        let ram = || Reach::Ram(base.ram.clone());
        let device = |mount: Mount, window, reach| {
            let mut server = FileServer::new(program.to_owned(), directory.to_owned(), 1)?;
            server.timeout = TIMEOUT;
            let files = FileSystem::new(mount.tag(), server, window, reach)?;
            let slot = Slot(1 + mount as u8);
            Function::new(files, slot, &base.vm, &base.router)
        };
        Ok(Hardware([
            device(Mount::Server, Window::Server(memory), view)?,
            device(Mount::Vmm, Window::Vmm(asked), ram())?,
            device(Mount::NoWindow, Window::None, ram())?,
        ]))
    }
}

struct Reading {
    bench: Channel,
}

/// Runs the guest until the bench wants nothing more, and so kills this process or closes its
/// end. Returns whether the guest has done all that it was told.
pub fn run(
    guest: &Path,
    server: PathBuf,
    directory: PathBuf,
    verbose: bool,
    console: &Console,
) -> bool {
    let result = (|| {
        end_with_parent()?;
        let bench = Channel::from_stdin()?;
        let guest = Guest {
            folder: guest.to_owned(),
            program: "reading-init",
            modules: &[],
            environment: String::new(),
            verbose,
        };
        let devices = |base: &Base| Hardware::new(base, &server, &directory);
        let (machine, cpus) = Machine::new(&guest, 1, console, devices)?;
        let (_machine, _trial, end) = cpus::run(machine, Reading { bench }, cpus)?;
        end
    })();
    if let Err(error) = &result {
        line(&format!("{error:#}"));
    }
    result.is_ok()
}

impl Trial for Reading {
    type Devices = Hardware;

    fn called(&mut self, machine: &mut Machine<Hardware>, call: u8, _: [u64; 2]) -> Result<bool> {
        if call != Call::Next as u8 {
            // It ends by itself, once the console has said why.
            return Ok(false);
        }
        self.bench.send(&(), &[])?;
        let (job, _) = self.bench.receive()?.context("the bench has gone")?;
        machine.answer_numbers(job);
        Ok(true)
    }

    fn reset(&mut self) -> Result<()> {
        bail!("the guest has ended")
    }
}
