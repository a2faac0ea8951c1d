// SPDX-License-Identifier: GPL-2.0

//! A connection to a vhost-user device whose queues run.

use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::VhostBackend as _;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::bus::Bus;
use crate::daemon::Daemon;
use crate::frontend::{self, PROTOCOL, Queue};
use crate::ram::Ram;
use crate::ring::{Ring, SIZE};

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The device has signalled: a request is completed.
    Called,
    /// The process has ended, by this signal if it was one.
    Died(Option<i32>),
    /// The process has closed the connection, and is alive.
    HungUp,
    /// Nothing has happened.
    Silence,
}

/// A connection to a device.
pub struct Device {
    _frontend: Frontend,
    stream: UnixStream,
    kicks: Vec<EventFd>,
    call: EventFd,
}

impl Device {
    /// Connects to the daemon, gives it its memory and its queues, and starts them.
    pub fn connect(daemon: &Daemon, bus: &Bus, ram: &Ram, rings: &[Ring]) -> Result<Device> {
        let stream = daemon.connect()?;
        let acknowledge = VhostUserProtocolFeatures::REPLY_ACK;
        let (mut frontend, offer) =
            frontend::handshake(stream.try_clone()?, rings.len(), acknowledge)?;
        let wanted = PROTOCOL | (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_INDIRECT_DESC);
        frontend.set_features(offer.features & wanted)?;
        frontend
            .set_mem_table(&[bus.region(ram)])
            .context("SET_MEM_TABLE")?;

        let call = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let mut kicks = Vec::new();
        for (index, ring) in rings.iter().enumerate() {
            let kick = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            let queue = Queue {
                max_size: SIZE,
                size: SIZE,
                base: 0,
                parts: ring.parts(),
                call: &call,
                kick: &kick,
            };
            frontend::start_queue(&mut frontend, index, &queue)?;
            kicks.push(kick);
        }
        Ok(Device {
            _frontend: frontend,
            stream,
            kicks,
            call,
        })
    }

    /// Says that there is a request in a queue.
    pub fn kick(&self, queue: usize) -> Result<()> {
        Ok(self.kicks[queue].write(1)?)
    }

    /// Closes the connection, if the device has not: it serves one at a time.
    pub fn hang_up(&self) {
        // It fails if the device has.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits for something to happen, for so long.
    pub fn wait(&self, daemon: &mut Daemon, timeout: Duration) -> Result<Event> {
        let pidfd = daemon.pidfd();
        let mut events = [
            PollFd::from_borrowed_fd(self.call_fd(), PollFlags::IN),
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::RDHUP),
        ];
        let timeout = Timespec::try_from(timeout)?;
        rustix::io::retry_on_intr(|| poll(&mut events, Some(&timeout)))?;
        let is = |index: usize| !events[index].revents().is_empty();
        if is(0) {
            self.call.read()?;
            Ok(Event::Called)
        } else if is(1) {
            Ok(Event::Died(daemon.wait()?.signal()))
        } else if is(2) {
            // The connection of a daemon that dies is closed before it is dead.
            if !daemon.is_dying()? {
                return Ok(Event::HungUp);
            }
            Ok(Event::Died(daemon.wait()?.signal()))
        } else {
            Ok(Event::Silence)
        }
    }

    fn call_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.call` owns the file descriptor and is borrowed for as long as the
        // result; it is not -1, since the eventfd was made.
        unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) }
    }
}
