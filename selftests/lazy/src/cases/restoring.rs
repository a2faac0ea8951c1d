// SPDX-License-Identifier: GPL-2.0

//! A guest is restored from a snapshot, and its memory comes.

use std::time::Instant;

use address_space::EventKind;
use anyhow::{Result, ensure};
use rig::check::expect;
use rig::folder::Folder;
use rig::show::Show;

use super::{AFTER, BUFFER_CHUNKS, ROUNDS, await_waiting, take_snapshot};
use crate::guest::{BUFFER, CPUS, DATA, LENGTH, image};
use crate::machine::{Machine, all_reported};
use crate::memory::{CHUNK, CHUNKS, Memory};
use crate::restore::{Background, Restore};
use crate::roles::{self, Order};

/// What the guest touches: its program, and its data.
const TOUCHED: usize = 1 + (DATA.end - DATA.start) / CHUNK;

pub fn guest_runs_before_its_memory_is_there(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;

    let start = Instant::now();
    let memory = Memory::empty()?;
    let events = memory.watch()?;
    let machine = Machine::restored(memory.space(), snapshot.cpus())?;
    expect("chunks that are there", memory.chunks_mapped()?, 0)?;
    show.says(
        "VMM",
        &format!(
            "has made another guest of it, and runs that after {} ms: no memory is there",
            start.elapsed().as_millis()
        ),
    );
    let (stops, brought) = machine.run_while(AFTER, move || {
        await_waiting(&memory, CPUS)?;
        let mut restore = Restore::new(&memory, &snapshot);
        restore.serve(&events, Background::All)?;
        let brought = restore.brought().clone();
        show.says(
            "manager",
            &format!(
                "has brought {} chunks of {} KiB that the guest touched, and {} before it did",
                brought.touched,
                CHUNK >> 10,
                brought.background
            ),
        );
        show.says(
            "manager",
            &format!(
                "closes the events after {} ms, and is no longer needed",
                start.elapsed().as_millis()
            ),
        );
        Ok((memory, brought))
    })?;
    all_reported(&stops)?;
    let (memory, brought) = brought;
    expect("chunks", brought.touched + brought.background, CHUNKS)?;
    ensure!(brought.touched > 0, "the guest has waited for nothing");
    memory.check_complete()?;
    memory.compare(&image(ROUNDS))?;
    show.says(
        "guest",
        &format!(
            "has gone on where it was, through all of its data: {} MiB are right, byte by byte",
            LENGTH >> 20
        ),
    );
    Ok(())
}

pub fn only_what_is_touched_comes(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;
    let memory = Memory::empty()?;
    let machine = Machine::restored(memory.space(), snapshot.cpus())?;
    let mut restore = Restore::new(&memory, &snapshot);
    let events = memory.watch()?;
    let (stops, (events, mut restore)) = machine.run_while(AFTER, move || {
        restore.serve(&events, Background::Nothing { until: TOUCHED })?;
        Ok((events, restore))
    })?;
    all_reported(&stops)?;
    expect("chunks that are there", memory.chunks_mapped()?, TOUCHED)?;
    show.says(
        "guest",
        &format!("is through all of its data: {TOUCHED} of {CHUNKS} chunks have come"),
    );
    restore.serve(&events, Background::All)?;
    expect("touched", restore.brought().touched, TOUCHED)?;
    drop(events);
    memory.check_complete()?;
    memory.compare(&image(ROUNDS))?;
    show.says("manager", "brings the rest, and all is right, byte by byte");
    Ok(())
}

pub fn two_cpus_wait_for_one_page(show: Show) -> Result<()> {
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;
    let memory = Memory::empty()?;
    let machine = Machine::restored(memory.space(), snapshot.cpus())?;
    let events = memory.watch()?;
    let memory = &memory;
    let (stops, ()) = machine.run_while(AFTER, move || {
        // Both begin with the page that has the program.
        await_waiting(memory, CPUS)?;
        let told: Vec<_> = (0..CPUS)
            .map(|_| Ok(events.try_next()?))
            .collect::<Result<Option<_>>>()?
            .unwrap_or_default();
        ensure!(
            told.len() == CPUS && told.iter().all(|event| event.kind == EventKind::Wait),
            "each CPU waits: {told:?}"
        );
        ensure!(
            told[0].offset == told[1].offset && told[0].tid != told[1].tid,
            "two threads wait for one page: {told:?}"
        );
        show.says(
            "manager",
            &format!(
                "is told of both: threads {} and {} wait for {:#x}",
                told[0].tid, told[1].tid, told[0].offset
            ),
        );
        let mut restore = Restore::new(memory, &snapshot);
        for event in &told {
            restore.told(event)?;
        }
        expect("chunks brought for both", restore.brought().touched, 1)?;
        restore.serve(&events, Background::All)
    })?;
    all_reported(&stops)?;
    memory.compare(&image(ROUNDS))?;
    show.says("guest", "has gone on with both, and all is right");
    Ok(())
}

pub fn many_devices_wait_for_their_pages(show: Show) -> Result<()> {
    /// How many devices there are: some wait for the same pages.
    const DEVICES: usize = 24;
    const LENGTH: usize = CHUNK / 2;
    let folder = Folder::new("lazy")?;
    let snapshot = take_snapshot(&folder, show)?;
    let memory = Memory::empty()?;
    let events = memory.watch()?;
    let view = memory.view()?;
    let mut devices = Vec::new();
    for index in 0..DEVICES {
        let device = roles::start_device(&view)?;
        let at = index * CHUNK % (BUFFER.end - BUFFER.start);
        let length = LENGTH;
        let order = match index % 3 {
            0 => Order::CheckBySystemCall { at, length },
            _ => Order::Check { at, length },
        };
        device.send(&order, &[])?;
        devices.push(device);
    }
    await_waiting(&memory, DEVICES)?;
    show.says("devices", &format!("{DEVICES} wait"));
    let mut restore = Restore::new(&memory, &snapshot);
    let until = BUFFER_CHUNKS.len();
    restore.serve(&events, Background::Nothing { until })?;
    for device in &devices {
        device.done()?;
    }
    expect("chunks that are there", memory.chunks_mapped()?, until)?;
    expect("tasks that wait", memory.waiting()?, 0)?;
    show.says(
        "devices",
        &format!("all have what they waited for: {until} chunks have come"),
    );
    Ok(())
}
