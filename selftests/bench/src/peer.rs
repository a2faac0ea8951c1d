// SPDX-License-Identifier: GPL-2.0

//! Another process that changes its mappings on request over a socket and acknowledges each
//! request: how a vhost-user front end and its devices change what they see (SHMEM_MAP,
//! ADD_MEM_REG). It makes only the system calls that this needs.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use address_space::{AddressSpace, Window};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::memory::{PAGE, Touch, touch};

/// How many bytes of addresses a peer reserves for mappings: the room.
pub const ROOM: usize = 64 << 20;

/// The argument that makes a process of this program a peer.
pub const ARGUMENT: &str = "peer";

/// Only answer.
const ANSWER: u64 = 0;
/// Map the file that comes with the message, at a place in the room.
const MAP: u64 = 1;
/// The same, and touch the first word.
const MAP_AND_TOUCH: u64 = 2;
/// Make a place in the room inaccessible.
const UNMAP: u64 = 3;
/// Read each page of a place in the room,
const READ: u64 = 4;
/// or in the attached address space.
const READ_ATTACHED: u64 = 5;
/// Attach the address space that comes with the message.
const ATTACH: u64 = 6;
/// As [`MAP`], only for reading.
const MAP_FOR_READING: u64 = 7;

/// What to do, how many bytes, where, and from which offset of the file on.
type Message = [u64; 4];

fn send(socket: impl AsFd, message: Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut bytes = [0; size_of::<Message>()];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(message) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        ensure!(
            control.push(SendAncillaryMessage::ScmRights(fds)),
            "no room for the file descriptor"
        );
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    ensure!(sent.context("sendmsg")? == bytes.len(), "half a message");
    Ok(())
}

/// Receives a message; `None` after the last.
fn receive(socket: impl AsFd) -> Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = [0; size_of::<Message>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .context("recvmsg")?;
    if received.bytes == 0 {
        return Ok(None);
    }
    ensure!(received.bytes == bytes.len(), "half a message");
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    Ok(Some((std::array::from_fn(|index| word(8 * index)), fd)))
}

/// The other process, as seen from this one.
pub struct Peer {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Peer {
    pub fn start() -> Result<Peer> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("socketpair")?;
        // Not a fork, which would have all that this process has mapped.
        let child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .stdin(Stdio::from(theirs))
            .spawn()
            .context("cannot start another process")?;
        let socket = Some(ours);
        Ok(Peer { child, socket })
    }

    /// Sends a request; [`done()`](Peer::done) waits for its answer.
    fn request(&self, request: u64, length: usize, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.request_at(request, length, 0, 0, fd)
    }

    fn request_at(
        &self,
        request: u64,
        length: usize,
        place: usize,
        offset: usize,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let socket = self.socket.as_ref().context("the socket is closed")?;
        let numbers = [length, place, offset].map(|number| number as u64);
        send(socket, [request, numbers[0], numbers[1], numbers[2]], fd)
    }

    /// Waits until the last request is done.
    pub fn done(&self) -> Result<()> {
        let socket = self.socket.as_ref().context("the socket is closed")?;
        receive(socket)?.context("the other process has ended")?;
        Ok(())
    }

    pub fn map(&self, file: &File, length: usize) -> Result<()> {
        self.request(MAP, length, Some(file.as_fd()))
    }

    pub fn map_and_touch(&self, file: &File, length: usize) -> Result<()> {
        self.request(MAP_AND_TOUCH, length, Some(file.as_fd()))
    }

    pub fn map_for_reading(&self, file: &File, offset: usize, place: Range<usize>) -> Result<()> {
        let fd = Some(file.as_fd());
        self.request_at(MAP_FOR_READING, place.len(), place.start, offset, fd)
    }

    pub fn unmap_at(&self, place: Range<usize>) -> Result<()> {
        self.request_at(UNMAP, place.len(), place.start, 0, None)
    }

    pub fn read_at(&self, place: Range<usize>) -> Result<()> {
        self.request_at(READ, place.len(), place.start, 0, None)
    }

    pub fn read_attached_at(&self, place: Range<usize>) -> Result<()> {
        self.request_at(READ_ATTACHED, place.len(), place.start, 0, None)
    }

    pub fn unmap(&self, length: usize) -> Result<()> {
        self.request(UNMAP, length, None)
    }

    pub fn read(&self, length: usize) -> Result<()> {
        self.request(READ, length, None)
    }

    pub fn read_attached(&self, length: usize) -> Result<()> {
        self.request(READ_ATTACHED, length, None)
    }

    /// Sends a message and waits for the answer.
    pub fn round_trip(&self) -> Result<()> {
        self.request(ANSWER, 0, None)?;
        self.done()
    }

    pub fn attach(&self, space: &AddressSpace) -> Result<()> {
        self.request(ATTACH, 0, Some(space.as_fd()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends when the socket is closed.
        self.socket = None;
        let _ = self.child.wait();
    }
}

/// What the other process does.
pub fn live() -> Result<()> {
    let socket = rustix::stdio::stdin();
    let room = Plain::reserved(ROOM)?;
    let mut window: Option<Window> = None;
    while let Some(([request, numbers @ ..], fd)) = receive(socket)? {
        let [length, place, offset] = numbers.map(|number| number as usize);
        match request {
            ANSWER => {}
            MAP | MAP_AND_TOUCH => {
                room.map_at(place, fd.context("no file came")?, offset, length)?;
                if request == MAP_AND_TOUCH {
                    // SAFETY: It was just mapped, and nothing else uses the room.
                    unsafe { touch(room.as_ptr().add(place), Touch::Read) };
                }
            }
            MAP_FOR_READING => {
                room.map_for_reading_at(place, fd.context("no file came")?, offset, length)?;
            }
            UNMAP => room.reserve_at(place, length)?,
            READ => read(room.as_ptr(), place, length),
            READ_ATTACHED => {
                let window = window.as_ref().context("nothing is attached")?;
                read(window.as_ptr(), place, length);
            }
            ATTACH => {
                let space = AddressSpace::from(fd.context("no address space came")?);
                window = Some(space.attach(0..space.length()?, READ_WRITE)?);
            }
            _ => anyhow::bail!("request {request} is not known"),
        }
        send(socket, [request, 0, 0, 0], None)?;
    }
    Ok(())
}

fn read(start: *mut u8, place: usize, length: usize) {
    for at in (place..place + length).step_by(PAGE) {
        // SAFETY: The caller maps a file there before it sends the request.
        unsafe { touch(start.add(at), Touch::Read) };
    }
}
