// SPDX-License-Identifier: GPL-2.0

//! The VMM's side of the vhost-user protocol: the messages that every device needs.

use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// The feature that lets both sides agree on protocol features.
pub const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What a device offers.
pub struct Offer {
    /// The features of virtio.
    pub features: u64,
    /// The features of the protocol.
    pub protocol: VhostUserProtocolFeatures,
}

/// A queue as the driver set it up, with addresses on the device's bus.
#[derive(Clone, Copy)]
pub struct Queue<'a> {
    /// How many descriptors it may have at most,
    pub max_size: u16,
    /// and how many it has.
    pub size: u16,
    /// The index of the first request.
    pub base: u16,
    /// Its parts.
    pub parts: Parts,
    /// What the device signals after requests.
    pub call: &'a EventFd,
    /// What the driver signals for requests.
    pub kick: &'a EventFd,
}

/// Where the parts of a queue are.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The descriptor table.
    pub descriptors: u64,
    /// The ring of available descriptors.
    pub available: u64,
    /// The ring of used descriptors.
    pub used: u64,
}

/// Becomes the owner of a device, and sets those of the `wanted` protocol features that it
/// offers. With REPLY_ACK among them, each message then waits until the device has done it.
pub fn handshake(
    stream: UnixStream,
    queues: usize,
    wanted: VhostUserProtocolFeatures,
) -> Result<(Frontend, Offer)> {
    let mut frontend = Frontend::from_stream(stream, queues as u64);
    frontend.set_owner()?;
    let features = frontend.get_features()?;
    let protocol = frontend.get_protocol_features()?;
    frontend.set_protocol_features(protocol & wanted)?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    Ok((frontend, Offer { features, protocol }))
}

/// Gives the device a queue, and starts it.
pub fn start_queue(frontend: &mut Frontend, index: usize, queue: &Queue<'_>) -> Result<()> {
    frontend.set_vring_num(index, queue.size)?;
    frontend.set_vring_base(index, queue.base)?;
    let config = VringConfigData {
        queue_max_size: queue.max_size,
        queue_size: queue.size,
        flags: 0,
        desc_table_addr: queue.parts.descriptors,
        avail_ring_addr: queue.parts.available,
        used_ring_addr: queue.parts.used,
        log_addr: None,
    };
    frontend
        .set_vring_addr(index, &config)
        .context("SET_VRING_ADDR: the device does not find the queue")?;
    frontend.set_vring_call(index, queue.call)?;
    frontend.set_vring_kick(index, queue.kick)?;
    frontend.set_vring_enable(index, true)?;
    Ok(())
}

/// A region of memory for SET_MEM_TABLE: `file`, from its start on, at these addresses of
/// the device's bus. It keeps the number of the file descriptor, which must be open when
/// the message is sent.
pub fn region(range: Range<u64>, file: BorrowedFd<'_>) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: range.start,
        memory_size: range.end - range.start,
        // By this address the device finds the rings. It is a name and nothing else, so it
        // is the same number.
        userspace_addr: range.start,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}
