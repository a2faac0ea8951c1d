// SPDX-License-Identifier: GPL-2.0

//! A guest moves from one VMM to another, which runs it while its memory is on the way.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::thread::scope;
use std::time::Instant;

use address_space::{Event, EventKind};
use anyhow::{Context as _, Result, bail, ensure};
use rig::check::expect;
use rig::flat::CpuState;
use rig::process::signals::SIGBUS;
use rig::show::Show;

use super::{AFTER, BEFORE, ROUNDS, await_chunks, await_waiting};
use crate::device::written_byte;
use crate::guest::{BUFFER, CPUS, Stop, image};
use crate::machine::{Machine, all_reported};
use crate::memory::{CHUNK, CHUNKS, Memory, refused};
use crate::roles::{self, Answer, Order, Process};
use crate::source::Sends;
use crate::target::receive;
use crate::wire;

/// Half of the devices' buffer.
const HALF: usize = (BUFFER.end - BUFFER.start) / 2;

/// Another VMM, whose guest has stopped; the socket to it, and what came of the CPUs.
fn stopped_source(sends: Sends, show: Show) -> Result<(Process, UnixStream, Vec<CpuState>)> {
    let source = roles::start()?;
    source.does(&Order::RunGuest { reports: BEFORE }, &[])?;
    let (socket, theirs) = UnixStream::pair()?;
    source.send(&Order::Migrate { sends }, &[theirs.as_fd()])?;
    drop(theirs);
    let cpus = wire::receive_cpus(&socket)?;
    show.says(
        "source",
        &format!(
            "(process {}) has run a guest, and sends what is in its CPUs",
            source.id()
        ),
    );
    Ok((source, socket, cpus))
}

pub fn guest_and_device_move_to_another_process(show: Show) -> Result<()> {
    let (source, socket, cpus) = stopped_source(Sends::All, show)?;

    let start = Instant::now();
    let memory = Memory::empty()?;
    let events = memory.watch()?;
    let view = memory.view()?;
    let [reader, writer] = [roles::start_device(&view)?, roles::start_device(&view)?];
    let machine = Machine::restored(memory.space(), &cpus)?;
    expect("chunks that are there", memory.chunks_mapped()?, 0)?;
    reader.send(
        &Order::Check {
            at: 0,
            length: HALF,
        },
        &[],
    )?;
    // Not whole pages: what is beside must come, too.
    let length = HALF - 2 * CHUNK + 100;
    writer.send(&Order::Write { at: HALF, length }, &[])?;
    show.says(
        "target",
        &format!(
            "(process {}) runs it, and its devices {} and {}: no memory is there",
            std::process::id(),
            reader.id(),
            writer.id()
        ),
    );
    let memory = &memory;
    let (stops, came) = machine.run_while(AFTER, move || {
        await_waiting(memory, CPUS + 2)?;
        let came = receive(&socket, memory, &events)?;
        show.says(
            "target",
            &format!(
                "all has come after {} ms: {} chunks that somebody waited for, and {} others",
                start.elapsed().as_millis(),
                came.asked,
                came.chunks - came.asked
            ),
        );
        Ok(came)
    })?;
    all_reported(&stops)?;
    reader.done().context("the device that reads")?;
    writer.done().context("the device that writes")?;
    ensure!(came.is_all() && came.asked > 0, "{came:?}");
    let (Answer::Sent(sent), _) = source.answer()? else {
        bail!("the source has sent nothing");
    };
    expect("chunks that were sent", sent.asked + sent.unasked, CHUNKS)?;
    show.says(
        "source",
        &format!("has sent each chunk once, {} KiB in all", came.packed >> 10),
    );

    memory.check_complete()?;
    let mut should = image(ROUNDS);
    for at in HALF..HALF + length {
        should[BUFFER.start + at] = written_byte(at);
    }
    memory.compare(&should)?;
    show.says(
        "target",
        "the memory is right, byte by byte: what was sent, and what guest and device have written",
    );
    Ok(())
}

pub fn source_that_dies_ends_the_wait(show: Show) -> Result<()> {
    /// How many chunks come before.
    const MOST: usize = 40;
    let (mut source, socket, cpus) = stopped_source(Sends::Asked { most: MOST }, show)?;

    let memory = Memory::empty()?;
    let events = memory.watch()?;
    let view = memory.view()?;
    let machine = Machine::restored(memory.space(), &cpus)?;
    let [mut device, calling] = [roles::start_device(&view)?, roles::start_device(&view)?];
    let memory = &memory;
    let source = &mut source;
    let (device, calling) = (&mut device, &calling);
    let (stops, (came, events)) = machine.run_while(usize::MAX, || {
        let receive = || {
            let came = receive(&socket, memory, &events)?;
            Ok((came, events))
        };
        scope(|scope| {
            let killer = scope.spawn(|| {
                await_chunks(memory, MOST)?;
                await_waiting(memory, CPUS)?;
                let (at, length) = (0, CHUNK);
                device.send(&Order::Check { at, length }, &[])?;
                calling.send(&Order::CheckBySystemCall { at, length }, &[])?;
                await_waiting(memory, CPUS + 2)?;
                show.says(
                    "target",
                    &format!("{MOST} chunks have come; both CPUs and two devices wait"),
                );
                show.says("source", "is killed");
                source.kill()
            });
            let received = receive();
            match killer.join() {
                Ok(killed) => killed.and(received),
                Err(_) => bail!("a thread has panicked"),
            }
        })
    })?;
    expect("chunks that came", came.chunks, MOST)?;
    expect("how the CPUs stop", stops, vec![Stop::Refused; CPUS])?;
    let status = device.end()?;
    expect("how the device ends", status.signal(), Some(SIGBUS))?;
    let failed = calling
        .done()
        .expect_err("a system call on what never comes");
    ensure!(
        format!("{failed:#}").contains("Bad address"),
        "the other device: {failed:#}"
    );
    show.says(
        "device",
        "is killed by SIGBUS; another, in write(2), gets EFAULT",
    );
    let told = refused(&events)?;
    // A system call may try more than once.
    let poisoned = |event: &&Event| event.kind == EventKind::Poisoned;
    let tasks: BTreeSet<_> = told
        .iter()
        .filter(poisoned)
        .map(|event| event.tid)
        .collect();
    expect("tasks that were refused", tasks.len(), CPUS + 2)?;
    let mut places: Vec<_> = told.iter().map(|event| event.offset).collect();
    places.sort_unstable();
    places.dedup();
    show.says(
        "target",
        &format!("both CPUs are stopped: events tell that these pages did not come: {places:x?}"),
    );
    expect("tasks that wait", memory.waiting()?, 0)?;
    // Nor does anybody wait from then on.
    let (stops, ()) = machine.run_while(usize::MAX, || Ok(()))?;
    expect("how the CPUs stop then", stops, vec![Stop::Refused; CPUS])
}
