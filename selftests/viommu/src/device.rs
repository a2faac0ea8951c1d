// SPDX-License-Identifier: GPL-2.0

//! The VMM's end of a vhost-user device.

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::VhostBackend as _;
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::daemon::Daemon;
use crate::ram::{Bus, Ram};
use crate::ring::{Ring, SIZE};

/// What became of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It has called: something is completed.
    Called,
    /// It is gone, by this signal if it was one.
    Died(Option<i32>),
    /// It has hung up, and lives.
    HungUp,
    /// Nothing.
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
    /// Connects to the daemon, tells it of its memory and its queues, and starts
    /// them.
    pub fn connect(daemon: &Daemon, bus: &Bus, ram: &Ram, rings: &[Ring]) -> Result<Device> {
        let stream = daemon.connect()?;
        let mut frontend = Frontend::from_stream(stream.try_clone()?, rings.len() as u64);
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        let wanted = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC);
        let protocol = frontend.get_protocol_features()?;
        frontend.set_protocol_features(protocol & VhostUserProtocolFeatures::REPLY_ACK)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(offered & wanted)?;
        frontend
            .set_mem_table(&[bus.region(ram)])
            .context("SET_MEM_TABLE")?;

        let call = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let mut kicks = Vec::new();
        for (index, ring) in rings.iter().enumerate() {
            let kick = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            frontend.set_vring_num(index, SIZE)?;
            frontend.set_vring_base(index, 0)?;
            frontend
                .set_vring_addr(index, &ring.config())
                .context("SET_VRING_ADDR")?;
            frontend.set_vring_call(index, &call)?;
            frontend.set_vring_kick(index, &kick)?;
            frontend.set_vring_enable(index, true)?;
            kicks.push(kick);
        }
        Ok(Device {
            _frontend: frontend,
            stream,
            kicks,
            call,
        })
    }

    pub fn kick(&self, queue: usize) -> Result<()> {
        Ok(self.kicks[queue].write(1)?)
    }

    /// Waits for something to happen.
    pub fn wait(&self, daemon: &mut Daemon, patience: Duration) -> Result<Event> {
        let mut events = [
            PollFd::from_borrowed_fd(self.call_fd(), PollFlags::IN),
            PollFd::new(daemon.pidfd(), PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::RDHUP),
        ];
        let patience = Timespec::try_from(patience)?;
        rustix::io::retry_on_intr(|| poll(&mut events, Some(&patience)))?;
        let is = |index: usize| !events[index].revents().is_empty();
        if is(0) {
            self.call.read()?;
            Ok(Event::Called)
        } else if is(1) {
            Ok(Event::Died(daemon.wait()?.signal()))
        } else if is(2) {
            // A daemon that dies hangs up before it is dead.
            if !daemon.is_dying()? {
                return Ok(Event::HungUp);
            }
            Ok(Event::Died(daemon.wait()?.signal()))
        } else {
            Ok(Event::Silence)
        }
    }

    fn call_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: It is open as long as `self.call` lives, which is borrowed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.call.as_raw_fd()) }
    }
}
