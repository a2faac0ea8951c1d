// SPDX-License-Identifier: GPL-2.0

//! A device process that knows nothing of all this: the disk of a guest.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::spawn;

use address_space::{AddressSpace, Device, EventKind, Events, Holes};
use anyhow::{Result, bail, ensure};
use rig::READ_WRITE;
use rig::bus::Bus;
use rig::machine::Machine;
use rig::show::Show;
use rustix::event::{PollFd, PollFlags, poll};

use crate::memory::{CHUNK, chunk_at};

const REQUESTS: u64 = 8;

pub fn unmodified_disk_waits_for_guest_memory(show: Show) -> Result<()> {
    let (stop, stopped) = UnixStream::pair()?;
    let mut manager = None;
    let mut machine = Machine::new(|ram| {
        let space = Device::open()?.create_with(ram.length(), Holes::WAIT)?;
        space.register(ram).prot(READ_WRITE).commit()?;
        let holes = Holes::WAIT | Holes::KERNEL;
        let view = space.view_with(0..ram.length(), READ_WRITE, holes)?;
        let events = space.watch(0..ram.length(), None)?;
        let ram: File = ram.as_fd().try_clone_to_owned()?.into();
        // From now on: the device touches its queue as soon as it is connected.
        manager = Some(spawn(move || serve(&space, &ram, &events, &stopped)));
        Ok(Bus::View(view))
    })?;
    for request in 0..REQUESTS {
        // In chunks that no request has used before.
        machine.ram.pages(3 * CHUNK as u64)?;
        machine.check_io(request << 20, "the guest's memory came")?;
    }
    ensure!(machine.daemon().is_alive()?, "the device has died");
    let process = machine.daemon().id();
    drop((machine, stop));
    let came = match manager.map(std::thread::JoinHandle::join) {
        Some(Ok(came)) => came?,
        _ => bail!("there is no manager"),
    };
    // One for each request, and that of the rings.
    ensure!(
        came as u64 > REQUESTS,
        "the device has waited for {came} chunks only"
    );
    show.says(
        "disk",
        &format!(
            "(process {process}) has read and written, in memory of which {came} chunks came \
             when it touched them"
        ),
    );
    Ok(())
}

/// Maps the chunks that are touched, until the other end of `stopped` is closed. Returns how
/// many.
fn serve(space: &AddressSpace, ram: &File, events: &Events, stopped: &UnixStream) -> Result<usize> {
    events.set_nonblocking(true)?;
    let mut mapped = BTreeSet::new();
    loop {
        let mut fds = [
            PollFd::new(events, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        if !fds[1].revents().is_empty() {
            return Ok(mapped.len());
        }
        while let Some(event) = events.try_next()? {
            let chunk = chunk_at(event.offset);
            if event.kind == EventKind::Wait && mapped.insert(chunk) {
                let at = (chunk * CHUNK) as u64;
                let map = space.map(ram).offset(at).length(CHUNK as u64).at(at);
                map.prot(READ_WRITE).commit()?;
            }
        }
    }
}
