// SPDX-License-Identifier: GPL-2.0

//! A virtio-fs file server: selftests/virtiofs.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

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
    /// How long the guest may trust what it knows of names and attributes.
    pub timeout: Duration,
    folder: Folder,
}

/// The guest's window, of so many bytes, and who changes it.
#[derive(Clone, Copy, Debug)]
pub enum Window<'a> {
    /// The server: it is the start of this address space.
    Server(BorrowedFd<'a>, u64),
    /// The VMM, which the server asks by messages on this socket.
    Vmm(BorrowedFd<'a>, u64),
    /// There is none.
    None,
}

impl FileServer {
    /// A server for a directory, of which the guest trusts nothing for long.
    pub fn new(program: PathBuf, directory: PathBuf, queues: u16) -> Result<FileServer> {
        Ok(FileServer {
            program,
            directory,
            queues,
            timeout: Duration::ZERO,
            folder: Folder::new("file-server")?,
        })
    }

    /// Starts it; if one was started before, as its successor.
    pub fn start(&self, window: Window<'_>) -> Result<Daemon> {
        let socket = self.folder.path().join("socket");
        let state = self.folder.path().join("state");
        let mut command = Command::new(&self.program);
        let given = match window {
            Window::Server(asfd, length) => Some(("--asfd", asfd, length)),
            Window::Vmm(socket, length) => Some(("--messages", socket, length)),
            Window::None => None,
        };
        if let Some((option, fd, length)) = given {
            let fd = inherit(&mut command, fd.try_clone_to_owned()?);
            let range = format!("0:{length}");
            command.args([option, &fd.to_string(), "--window", &range]);
        }
        command
            .arg("--socket")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(&self.directory)
            .args(["--queues", &self.queues.to_string()])
            .args(["--timeout", &self.timeout.as_secs().to_string()])
            .arg("--state")
            .arg(state);
        Daemon::start(&mut command, &self.folder, &socket)
    }
}
