// SPDX-License-Identifier: GPL-2.0

//! What never comes: nobody waits for ever who need not, and who does can be killed.

use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::slice;

use address_space::{Event, EventKind};
use anyhow::{Result, bail, ensure};
use rig::check::expect;
use rig::folder::Folder;
use rig::process::signals::{SIGBUS, SIGKILL};
use rig::show::Show;

use super::{AFTER, ROUNDS, await_waiting, take_snapshot};
use crate::guest::{CPUS, DATA, Stop, image};
use crate::machine::{Machine, all_reported};
use crate::memory::{CHUNK, CHUNKS, Memory, chunk_at, refused};
use crate::restore::{Background, Restore};
use crate::roles::{self, Order};

pub fn damaged_chunk_is_refused_until_it_is_mended(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;
    // In a chunk that both CPUs go through.
    let chunk = DATA.start / CHUNK + 10;
    let mut good = vec![0; CHUNK];
    snapshot.read(chunk, &mut good)?;
    snapshot.damage(chunk)?;

    let memory = &Memory::empty()?;
    let machine = Machine::restored(memory.space(), snapshot.cpus())?;
    let events = memory.watch()?;
    let (stops, (events, brought)) = machine.run_while(usize::MAX, || {
        let mut restore = Restore::new(memory, &snapshot);
        restore.serve(&events, Background::All)?;
        Ok((events, restore.brought().clone()))
    })?;
    let [(place, why)] = &brought.lost[..] else {
        bail!("one chunk should be lost: {brought:?}");
    };
    expect("the chunk that is lost", *place, chunk)?;
    show.says(
        "manager",
        &format!("{why}: gives up chunk {place}, and brings the others"),
    );
    expect("how the CPUs stop", stops, vec![Stop::Refused; CPUS])?;
    // The manager was told of some while it had others to bring.
    let told = [brought.refused, refused(&events)?].concat();
    let is_poisoned =
        |event: &Event| event.kind == EventKind::Poisoned && chunk_at(event.offset) == chunk;
    ensure!(
        told.len() == CPUS && told.iter().all(is_poisoned),
        "an event for each CPU, in chunk {chunk}: {told:x?}"
    );
    show.says(
        "guest",
        &format!(
            "both CPUs are stopped where they touch it; events tell where: {:#x} and {:#x}",
            told[0].offset, told[1].offset
        ),
    );
    expect("chunks that are there", memory.chunks_mapped()?, CHUNKS - 1)?;

    memory.bring(chunk, Some(&good))?;
    drop(events);
    memory.check_complete()?;
    // Each has made some of its reports already, and so goes further than the image.
    machine.run(AFTER)?;
    show.says("guest", "goes on when the chunk has been mapped after all");
    Ok(())
}

pub fn manager_that_dies_is_replaced(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;
    let memory = &Memory::empty()?;
    let space = memory.space();
    let mut manager = roles::start()?;
    manager.send(&Order::Watch, &[space.as_fd()])?;
    manager.done()?;
    let machine = Machine::restored(space, snapshot.cpus())?;
    let view = memory.view()?;
    let mut device = roles::start_device(&view)?;
    let (at, length) = (0, CHUNK);
    device.send(&Order::Check { at, length }, &[])?;
    let (stops, ()) = machine.run_while(AFTER, || {
        await_waiting(memory, CPUS + 1)?;
        show.says(
            "manager",
            &format!(
                "(process {}) is killed: both CPUs and a device wait",
                manager.id()
            ),
        );
        expect("its end", manager.kill()?.signal(), Some(SIGKILL))
    })?;
    expect("how the CPUs stop", stops, vec![Stop::Refused; CPUS])?;
    expect("the device's end", device.end()?.signal(), Some(SIGBUS))?;
    show.says(
        "guest",
        "KVM_RUN fails with EFAULT on both CPUs; the device is killed by SIGBUS",
    );

    let events = memory.watch()?;
    let device = roles::start_device(&view)?;
    device.send(&Order::Check { at, length }, &[])?;
    let (stops, ()) = machine.run_while(AFTER, move || {
        Restore::new(memory, &snapshot).serve(&events, Background::All)
    })?;
    all_reported(&stops)?;
    device.done()?;
    memory.check_complete()?;
    memory.compare(&image(ROUNDS))?;
    show.says(
        "guest",
        "is run again with another manager, and all is right, byte by byte",
    );
    Ok(())
}

pub fn who_waits_can_be_killed(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    // It is read by the other VMM, and not here.
    take_snapshot(&folder, show)?;
    let snapshot = folder.path().join("snapshot");
    let memory = Memory::empty()?;
    let _events = memory.watch()?;
    let mut vmm = roles::start()?;
    vmm.send(
        &Order::Restore { snapshot },
        slice::from_ref(&memory.space().as_fd()),
    )?;
    await_waiting(&memory, CPUS)?;
    let view = memory.view()?;
    let [mut device, mut calling] = [roles::start_device(&view)?, roles::start_device(&view)?];
    let (at, length) = (0, CHUNK);
    device.send(&Order::Check { at, length }, &[])?;
    calling.send(&Order::CheckBySystemCall { at, length }, &[])?;
    await_waiting(&memory, CPUS + 2)?;
    show.says(
        "VMM",
        "another one waits with both of its CPUs, a device in an access, and one in write(2)",
    );
    for process in [&mut vmm, &mut device, &mut calling] {
        expect("its end", process.kill()?.signal(), Some(SIGKILL))?;
    }
    expect("tasks that wait", memory.waiting()?, 0)?;
    show.says("VMM", "all three are killed, and nobody waits any more");
    Ok(())
}
