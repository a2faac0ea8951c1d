// SPDX-License-Identifier: GPL-2.0

//! A vhost-user disk: an unmodified qemu-storage-daemon.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::folder::Folder;

/// How fast the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it can.
    Full,
    /// One request a second.
    Slow,
}

/// The image of a disk, in a directory of its own.
pub struct Storage {
    folder: Folder,
    speed: Speed,
}

impl Storage {
    /// Makes an empty image.
    pub fn new(name: &str, length: u64, speed: Speed) -> Result<Storage> {
        let folder = Folder::new(name)?;
        File::create(folder.path().join("disk"))?.set_len(length)?;
        Ok(Storage { folder, speed })
    }

    /// Starts a daemon on the image.
    pub fn start(&self) -> Result<Daemon> {
        let disk = self.folder.path().join("disk");
        let socket = self.folder.path().join("socket");
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!(
            // O_DIRECT does not work on what is mapped from an address space.
            "driver=file,node-name=file,filename={},cache.direct=off",
            disk.display()
        ));
        let node = match self.speed {
            Speed::Full => "file",
            Speed::Slow => {
                command
                    .args(["--object", "throttle-group,id=slow,x-iops-total=1"])
                    .args([
                        "--blockdev",
                        "driver=throttle,node-name=slow,throttle-group=slow,file=file",
                    ]);
                "slow"
            }
        };
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=disk,node-name={node},writable=on,\
             addr.type=unix,addr.path={}",
            socket.display()
        ));
        Daemon::start(&mut command, &self.folder, &socket)
    }

    /// Writes a part of the image.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let image = OpenOptions::new()
            .write(true)
            .open(self.folder.path().join("disk"))?;
        Ok(image.write_all_at(bytes, offset)?)
    }

    /// Reads a part of the image.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.folder.path().join("disk"))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads all of the image.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.folder.path().join("disk"))?)
    }
}
