// SPDX-License-Identifier: GPL-2.0

//! A block device: Debian's qemu-storage-daemon as it is.

use std::process::Command;

use anyhow::Result;

use crate::daemon::{Daemon, Folder};

/// How fast the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    Full,
    /// One request a second.
    Slow,
}

/// Starts it on the file `disk` in the folder.
pub fn start(folder: &Folder, speed: Speed) -> Result<Daemon> {
    let disk = folder.path().join("disk");
    let socket = folder.path().join("socket");
    let mut command = Command::new("qemu-storage-daemon");
    command.arg("--blockdev").arg(format!(
        // O_DIRECT does not work on what is mapped from an address space.
        "driver=file,node-name=file,filename={},cache.direct=off",
        disk.display()
    ));
    let node = match speed {
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
    Daemon::start(&mut command, folder.path(), &socket)
}
