// SPDX-License-Identifier: GPL-2.0

//! Requests to a disk: what is asked, of which parts, and what becomes of it.

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};

/// Where a part of a request is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In the guest's memory: the driver maps it, and unmaps it when the request is done.
    Guest(u64),
    /// At a bus address, for which the driver maps nothing: what a broken or hostile
    /// driver does.
    Bus(u64),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whether it writes to the disk.
    pub write: bool,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// The parts of the data, and their lengths in bytes.
    pub data: Vec<(Place, u32)>,
    /// The header, if not in a page of its own.
    pub header: Option<Place>,
    /// The status byte, if not in a page of its own.
    pub status: Option<Place>,
    /// The table of descriptors, if the request has an indirect one.
    pub table: Option<Place>,
}

impl Order {
    /// A write of one part.
    pub fn write(offset: u64, place: Place, length: u32) -> Order {
        Order {
            write: true,
            offset,
            data: vec![(place, length)],
            header: None,
            status: None,
            table: None,
        }
    }

    /// A read of one part.
    pub fn read(offset: u64, place: Place, length: u32) -> Order {
        Order {
            write: false,
            ..Order::write(offset, place, length)
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Completed, with this status.
    Done(u8),
    /// The device died, of this signal if it was one.
    Died(Option<i32>),
    /// The device has closed the connection, and is alive.
    HungUp,
}

/// The request was done as asked.
pub const GOOD: Outcome = Outcome::Done(VIRTIO_BLK_S_OK as u8);
/// The request failed with an I/O error.
pub const IO_ERROR: Outcome = Outcome::Done(VIRTIO_BLK_S_IOERR as u8);
