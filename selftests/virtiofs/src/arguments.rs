// SPDX-License-Identifier: GPL-2.0

//! The arguments, and the files that they name.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use address_space::{AddressSpace, dax};
use anyhow::{Context as _, Result};
use clap::{ArgGroup, Parser};
use rustix::io::{FdFlags, fcntl_setfd};
use virtiofs::asked::Asked;
use virtiofs::share::{Options, Window};

/// How many files are kept open, and registered, for the window.
const MOST_FILES: usize = 256;

/// Serve a directory to a guest by virtio-fs, and map its files into the guest's DAX window.
///
/// File descriptors are given by number, and inherited from the VMM.
#[derive(Parser)]
#[command(version,
    group(ArgGroup::new("where").required(true).args(["socket", "socket_fd"])),
    group(ArgGroup::new("how").requires("window").args(["asfd", "messages"])))]
pub struct Arguments {
    /// Listen at this path for the VMM.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Accept the VMM from this listening socket.
    #[arg(long, value_name = "FD")]
    socket_fd: Option<RawFd>,
    /// The address space with the DAX window. Without it there is no DAX.
    #[arg(long, value_name = "FD")]
    asfd: Option<RawFd>,
    /// Instead of an address space, a socket on which the VMM is asked to change the window:
    /// vhost-user's SHMEM_MAP and SHMEM_UNMAP. For comparison.
    #[arg(long, value_name = "FD")]
    messages: Option<RawFd>,
    /// Where in the address space the window is, in bytes.
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = range, requires = "how")]
    window: Option<Range<u64>>,
    /// The directory.
    #[arg(long, value_name = "DIR")]
    pub shared_dir: PathBuf,
    /// Let nothing in it be written.
    #[arg(long)]
    pub readonly: bool,
    /// How many queues for requests there are, besides the one for urgent ones.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = queues)]
    pub queues: usize,
    /// Keep here what a server needs to take over from this one if it is killed; if there is
    /// something, take over.
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
    /// How long, in seconds, the guest may trust what it knows of names and attributes.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Wait for another VMM when the first has gone.
    #[arg(long)]
    pub stay: bool,
    /// Say on standard error what happens.
    #[arg(long)]
    pub log: bool,
}

impl Arguments {
    /// The socket on which the VMM is awaited.
    pub fn listener(&self) -> Result<UnixListener> {
        match (&self.socket, self.socket_fd) {
            (Some(path), _) => {
                UnixListener::bind(path).with_context(|| format!("cannot listen at {path:?}"))
            }
            (None, Some(fd)) => Ok(inherited(fd).context("--socket-fd")?.into()),
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }

    /// The window, if there is to be one.
    pub fn window(&self) -> Result<Option<Box<dyn Window>>> {
        let Some(range) = self.window.clone() else {
            return Ok(None);
        };
        Ok(Some(match (self.asfd, self.messages) {
            (Some(fd), _) => {
                let space = AddressSpace::from(inherited(fd).context("--asfd")?);
                // Those of a server that was killed, whose files are open in the space alone.
                space.unregister_all().context("--asfd")?;
                Box::new(dax::Window::new(space, range, MOST_FILES).context("--window")?)
            }
            (None, Some(fd)) => {
                let socket = inherited(fd).context("--messages")?;
                Box::new(Asked::new(socket.into(), range))
            }
            (None, None) => unreachable!("clap asks for one of them"),
        }))
    }

    /// The file that keeps the state.
    pub fn state_file(&self) -> Result<Option<File>> {
        let Some(path) = &self.state else {
            return Ok(None);
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path);
        Ok(Some(file.with_context(|| format!("cannot open {path:?}"))?))
    }

    /// What the server may do.
    pub fn options(&self) -> Options {
        Options {
            readonly: self.readonly,
            timeout: Duration::from_secs(self.timeout),
        }
    }
}

/// Takes an inherited file descriptor, which is not passed on. Called once for each.
fn inherited(fd: RawFd) -> Result<OwnedFd> {
    anyhow::ensure!(fd > 2, "{fd} is not a file descriptor from the VMM");
    // SAFETY: It is not one that this program opened: those are opened later, or by the
    // standard library, which has 0 to 2 only. That it is open at all is checked next.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl_setfd(&fd, FdFlags::CLOEXEC) {
        Ok(()) => Ok(fd),
        Err(error) => {
            // It is not open, and so must not be closed.
            std::mem::forget(fd);
            Err(error).context("is not open")
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (offset, length) = text.split_once(':').ok_or("not OFFSET:LENGTH")?;
    let number = |text: &str| {
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map_err(|error| error.to_string())
    };
    let (offset, length) = (number(offset)?, number(length)?);
    let end = offset.checked_add(length).ok_or("does not end")?;
    Ok(offset..end)
}

/// Queues are bits of a word, one of which is that of the urgent one.
fn queues(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(queues @ 1..=63) => Ok(queues),
        _ => Err("1 to 63".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_make_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn window_is_given_by_offset_and_length() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let good = "virtiofs --socket-fd 3 --asfd 4 --window 0x200000:4096 --shared-dir /";
        let arguments = parse(good).map_err(|error| error.to_string()).unwrap();
        assert_eq!(arguments.window, Some(0x20_0000..0x20_1000));
        for bad in [
            "virtiofs --shared-dir /",
            "virtiofs --socket-fd 3 --asfd 4 --shared-dir /",
            "virtiofs --socket-fd 3 --window 0:4096 --shared-dir /",
            "virtiofs --socket-fd 3 --messages 4 --shared-dir /",
            "virtiofs --socket-fd 3 --asfd 4 --messages 5 --window 0:4096 --shared-dir /",
            "virtiofs --socket-fd 3 --asfd 4 --window 4096 --shared-dir /",
            "virtiofs --socket-fd 3 --socket a --shared-dir /",
            "virtiofs --socket-fd 3 --shared-dir / --queues 64",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_descriptor_that_is_not_open_is_refused() {
        assert!(inherited(1 << 20).is_err());
        assert!(inherited(1).is_err());
    }
}
