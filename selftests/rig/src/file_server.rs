// SPDX-License-Identifier: GPL-2.0

//! A virtio-fs file server: selftests/virtiofs.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::folder::Folder;
use crate::process::inherit;

/// How a server is started, and what it leaves to the next one.
pub struct FileServer {
    /// The program.
    pub program: PathBuf,
    /// The directory that it shares.
    pub directory: PathBuf,
    /// How many queues for requests there are.
    pub queues: u16,
    folder: Folder,
}

impl FileServer {
    /// A server for a directory.
    pub fn new(program: PathBuf, directory: PathBuf, queues: u16) -> Result<FileServer> {
        Ok(FileServer {
            program,
            directory,
            queues,
            folder: Folder::new("file-server")?,
        })
    }

    /// Starts it; if one was started before, as its successor. Its window is the first
    /// `length` bytes of the address space.
    pub fn start(&self, asfd: BorrowedFd<'_>, length: u64) -> Result<Daemon> {
        let socket = self.folder.path().join("socket");
        let state = self.folder.path().join("state");
        let mut command = Command::new(&self.program);
        let asfd = inherit(&mut command, asfd.try_clone_to_owned()?);
        command
            .arg("--socket")
            .arg(&socket)
            .args(["--asfd", &asfd.to_string()])
            .arg("--window")
            .arg(format!("0:{length}"))
            .arg("--shared-dir")
            .arg(&self.directory)
            .args(["--queues", &self.queues.to_string()])
            .arg("--state")
            .arg(state);
        Daemon::start(&mut command, &self.folder, &socket)
    }
}
