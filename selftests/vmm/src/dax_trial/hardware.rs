// SPDX-License-Identifier: GPL-2.0

//! The machine of a guest that mounts a directory, and what it boots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_space::Holes;
use anyhow::Result;
use rig::file_server::FileServer;
use vmm_guest::dax::{DISK, KILLS, ROLE, TAG};
use vmm_guest::pattern::pattern;

use crate::boot::Guest;
use crate::disk::{Disk, Reach};
use crate::file_system::{FileSystem, Window};
use crate::guest_memory::GuestMemory;
use crate::machine::{Base, Devices};
use crate::pci::{self, Slot};
use crate::virtio::Function;

/// How long the window is, in bytes. The compiler that the guest executes is in it as a whole:
/// Documentation/userspace-api/dax-window.rst says what becomes of a guest without room for that.
const WINDOW: u64 = 64 << 20;

/// The machine of both guests.
pub struct Hardware {
    pub memory: Arc<GuestMemory>,
    pub files: Function<FileSystem>,
    disk: Option<Function<Disk>>,
}

const FILES: Slot = Slot(1);
const DISK_SLOT: Slot = Slot(2);

impl Devices for Hardware {
    const LAST: Slot = DISK_SLOT;

    fn function(&mut self, slot: Slot) -> Option<&mut dyn pci::Function> {
        match slot {
            FILES => Some(&mut self.files),
            DISK_SLOT => Some(self.disk.as_mut()?),
            _ => None,
        }
    }
}

impl Hardware {
    /// The first guest has a disk, never notices what is not there, and has devices that reach
    /// the window, too.
    pub fn first(base: &Base, server: FileServer) -> Result<Hardware> {
        let memory = Arc::new(GuestMemory::new(base, WINDOW, Holes::ABSORB)?);
        let files = files(base, server, &memory, Reach::Space(memory.view()?))?;
        let disk = Disk::new("disk", Reach::Space(memory.view()?))?;
        disk.write(0, &pattern(DISK.file, 0, DISK.length))?;
        Ok(Hardware {
            files,
            memory,
            disk: Some(Function::new(disk, DISK_SLOT, &base.vm, &base.router)?),
        })
    }

    /// The runs of the second guest's CPU end there, and its device has the RAM alone, as
    /// without an address space.
    pub fn second(base: &Base, server: FileServer) -> Result<Hardware> {
        let memory = Arc::new(GuestMemory::new(base, WINDOW, Holes::SIGNAL)?);
        Ok(Hardware {
            files: files(base, server, &memory, Reach::Ram(base.ram.clone()))?,
            memory,
            disk: None,
        })
    }
}

/// The device of the shared directory, whose server changes the window and reaches this.
fn files(
    base: &Base,
    server: FileServer,
    memory: &Arc<GuestMemory>,
    reach: Reach,
) -> Result<Function<FileSystem>> {
    let window = Window::Server(memory.clone());
    let files = FileSystem::new(TAG, server, window, reach)?;
    Function::new(files, FILES, &base.vm, &base.router)
}

/// Where the programs are, and how much is printed.
pub struct Programs<'a> {
    /// The directory with the guest.
    pub guest: &'a Path,
    /// The file server.
    pub server: PathBuf,
    /// How often that is killed.
    pub kills: u64,
    pub verbose: bool,
}

impl Programs<'_> {
    /// What boots in this role.
    pub fn guest(&self, role: &str) -> Guest {
        Guest {
            folder: self.guest.to_owned(),
            program: "dax-init",
            modules: &["virtio_blk.ko.xz"],
            environment: format!("{ROLE}={role} {KILLS}={}", self.kills),
            verbose: self.verbose,
        }
    }
}
