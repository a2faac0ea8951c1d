// SPDX-License-Identifier: GPL-2.0

//! A socket between two processes that carries messages and file descriptors, and the
//! start of this program as another process at its other end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message in bytes.
const LONGEST: usize = 16 * 1024;

/// The most file descriptors in one message.
const MOST_FDS: usize = 2;

/// One end of a connection that keeps messages apart.
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Makes a connection and returns both ends.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("socketpair")?;
        Ok((one.into(), other.into()))
    }

    /// Starts this program again with these arguments, in a process that shares nothing
    /// with this one but a channel: its end is the standard input there.
    pub fn spawn(arguments: &[&str]) -> Result<(Channel, Child)> {
        Channel::start(Command::new("/proc/self/exe").args(arguments))
            .context("cannot start this program again")
    }

    /// Starts a program that has the other end as its standard input.
    pub fn start(program: &mut Command) -> Result<(Channel, Child)> {
        let (channel, other) = Channel::pair()?;
        let child = program.stdin(Stdio::from(other.socket)).spawn()?;
        Ok((channel, child))
    }

    /// The end that a process got as its standard input from [`start()`](Channel::start).
    pub fn from_stdin() -> Result<Channel> {
        let socket = rustix::stdio::stdin().try_clone_to_owned()?;
        Ok(socket.into())
    }

    /// Makes [`receive()`](Channel::receive) fail when nothing arrives for this long.
    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(timeout)).context("SO_RCVTIMEO")
    }

    /// Sends a message, and the file descriptors that go with it.
    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(message)?;
        ensure!(bytes.len() <= LONGEST, "a message of {} bytes", bytes.len());

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
            ensure!(pushed, "{} file descriptors in one message", fds.len());
        }
        // Without a signal: the error says that the other side has gone.
        sendmsg(
            &self.socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .context("sendmsg")?;
        Ok(())
    }

    /// Waits for a message. `None` once the other side has gone.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => received,
            Err(Errno::AGAIN) => bail!("no answer in time"),
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error).context("recvmsg"),
        };
        ensure!(
            !received
                .flags
                .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
            "a message was too long"
        );
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])?;
        Ok(Some((message, fds)))
    }

    /// Sends one file descriptor.
    pub fn send_fd(&self, fd: impl AsFd) -> Result<()> {
        self.send(&(), &[fd.as_fd()])
    }

    /// Waits for one file descriptor.
    pub fn receive_fd(&self) -> Result<OwnedFd> {
        let ((), mut fds) = self.receive()?.context("the other side has gone")?;
        fds.pop().context("a message without its file descriptor")
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Channel { socket }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read as _;

    #[test]
    fn messages_are_kept_apart_and_fds_go_with_theirs() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/etc/hostname").unwrap();
        one.send(&"first", &[]).unwrap();
        one.send(&"second", &[file.as_fd()]).unwrap();
        drop((one, file));

        let (text, fds) = other.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("first", 0));
        let (text, mut fds) = other.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("second", 1));
        let mut content = String::new();
        File::from(fds.pop().unwrap())
            .read_to_string(&mut content)
            .unwrap();
        assert!(other.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn waiting_ends_with_the_time_that_was_set() {
        let (_one, other) = Channel::pair().unwrap();
        other.set_timeout(Duration::from_millis(10)).unwrap();
        let error = other.receive::<String>().unwrap_err();
        assert_eq!(error.to_string(), "no answer in time");
    }
}
