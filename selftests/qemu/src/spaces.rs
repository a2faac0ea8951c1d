// SPDX-License-Identifier: GPL-2.0

//! Address spaces with a name: a file system of them, in a directory.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use address_space::AddressSpace;
use anyhow::{Context as _, Result};
use rig::folder::Folder;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// How long the kernel may take to let go of what is not used any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// The file system, which is unmounted when this is dropped.
pub struct Spaces(Folder);

impl Spaces {
    /// Mounts one in which holes are absorbed, so that a guest goes on that touches one.
    pub fn mount() -> Result<Spaces> {
        let folder = Folder::new("spaces")?;
        let at = folder.path();
        mount(
            "none",
            at,
            "address_space",
            MountFlags::empty(),
            c"holes=absorb",
        )
        .context("mount -t address_space")?;
        Ok(Spaces(folder))
    }

    /// Where one is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes one.
    pub fn create(&self, name: &str, length: u64) -> Result<AddressSpace> {
        let mut options = OpenOptions::new();
        let path = self.path(name);
        let file = options.read(true).write(true).create_new(true).open(path)?;
        file.set_len(length)?;
        Ok(AddressSpace::from(OwnedFd::from(file)))
    }

    /// Unmounts it, which the kernel refuses while anything of it is used.
    pub fn unmount(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match unmount(self.0.path(), UnmountFlags::empty()) {
                Err(Errno::BUSY) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result.context("umount"),
            }
        }
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        // It fails if that was done.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Opens one by its path.
pub fn open(path: &Path, write: bool) -> Result<AddressSpace> {
    let file = OpenOptions::new().read(true).write(write).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    Ok(AddressSpace::from(OwnedFd::from(file)))
}
