// SPDX-License-Identifier: GPL-2.0

//! A descriptor that the guest's driver did not make: it points the device at memory
//! that the driver did not map; or a ring that the driver has unmapped. The guest does not run
//! meanwhile, and its queue is restored afterwards.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use address_space::page_size;
use anyhow::{Result, ensure};
use rig::daemon::TIMEOUT;
use rig::ram::Ram;
use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_OUT;
use virtio_queue::desc::split::Descriptor;
use vm_memory::ByteValued as _;

use crate::disk::{self, Disk};

/// Where on the disk the device shall write: a place where the guest writes nothing.
const OFFSET: u64 = disk::LENGTH - 4096;
/// What is there before.
pub const BEFORE: [u8; 4096] = [0x55; 4096];

/// Which part of the request is at an address that the driver did not map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Header,
    Data,
    Status,
    /// A table of more descriptors.
    Table,
    /// None of the request: the rings are no longer at theirs.
    Rings,
    /// None.
    Nothing,
}

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device has completed it, with this status.
    Done(u8),
    /// The device has refused it, closed the connection, and is alive.
    HungUp,
    /// The device died of this signal, and was started again.
    Died(Option<i32>),
}

/// Makes a request to write to the image what is at bus address `addr`; returns its
/// outcome and what is in the image, where there was something else.
///
/// `translate` returns the guest physical address of what the driver has mapped.
/// `without_rings` unmaps their page, or maps it again.
pub fn attempt(
    ram: &Ram,
    disk: &mut Disk,
    translate: impl Fn(u64) -> Result<u64>,
    without_rings: impl Fn(Range<u64>, bool) -> Result<()>,
    part: Part,
    addr: u64,
) -> Result<(Outcome, Vec<u8>)> {
    // The rings are in one page, which has space for a header and a status.
    let page = page_size();
    let queue = disk.queue()?;
    let start = queue.descriptors & !(page - 1);
    let end = queue.used + 6 + 8 * u64::from(queue.size);
    let header = start + page - 64;
    let status = header + 16;
    ensure!(end <= header, "the rings fill their page");
    let gpa = translate(start)?;
    let before = ram.read(gpa, page as usize)?;
    let (size, within) = (u64::from(queue.size), |addr: u64| gpa + (addr - start));
    let (descriptors, available) = (within(queue.descriptors), within(queue.available));
    let used = within(queue.used);

    let index = |at: u64| -> Result<u16> {
        let bytes = ram.read(at + 2, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let base = index(available)?;
    ensure!(index(used)? == base, "a request of the guest is in flight");

    let mut order = [0; 16];
    order[..4].copy_from_slice(&VIRTIO_BLK_T_OUT.to_le_bytes());
    order[8..].copy_from_slice(&(OFFSET / 512).to_le_bytes());
    ram.write(within(header), &order)?;
    ram.write(within(status), &[0xff])?;
    disk.write(OFFSET, &BEFORE)?;
    let at = |which, own| if part == which { addr } else { own };
    let next = VRING_DESC_F_NEXT as u16;
    let mut chain = vec![
        Descriptor::new(at(Part::Header, header), 16, next, 1),
        Descriptor::new(at(Part::Data, start), page as u32, next, 2),
        Descriptor::new(at(Part::Status, status), 1, VRING_DESC_F_WRITE as u16, 0),
    ];
    if part == Part::Table {
        chain = vec![Descriptor::new(
            addr,
            3 * 16,
            VRING_DESC_F_INDIRECT as u16,
            0,
        )];
    }
    for (index, descriptor) in (0..).zip(&chain) {
        ram.write(descriptors + 16 * index, descriptor.as_slice())?;
    }
    let rings = start..start + page;
    if part == Part::Rings {
        // Before there is a request: a device that polls would find it, not having been kicked.
        without_rings(rings.clone(), true)?;
    }
    let entry = available + 4 + 2 * (u64::from(base) % size);
    ram.write(entry, &0_u16.to_le_bytes())?;
    ram.write(available + 2, &base.wrapping_add(1).to_le_bytes())?;

    disk.kick.write(1)?;
    let begin = Instant::now();
    while index(used)? == base && !disk.has_hung_up()? {
        ensure!(begin.elapsed() < TIMEOUT, "the device does not answer");
        sleep(Duration::from_millis(2));
    }
    let answered = index(used)? != base;
    let answer = ram.read(within(status), 1)?[0];

    disk.halt();
    if part == Part::Rings {
        without_rings(rings, false)?;
    }
    ram.write(gpa, &before)?;
    let outcome = if answered {
        Outcome::Done(answer)
    } else if disk.daemon.is_alive()? && !disk.daemon.is_dying()? {
        Outcome::HungUp
    } else {
        Outcome::Died(disk.signal()?)
    };
    disk.restart(base)?;
    Ok((outcome, disk.read(OFFSET, page as usize)?))
}
