// SPDX-License-Identifier: GPL-2.0

//! The cases, and what they have in common.

mod disk;
mod ends;
mod migration;
mod restoring;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rig::cases::Case;
use rig::folder::Folder;
use rig::show::Show;

use crate::guest::{BUFFER, REPORTS};
use crate::machine::running_guest;
use crate::memory::{CHUNK, Memory};
use crate::snapshot::Snapshot;

/// All cases, in the order in which they run.
pub const CASES: &[Case] = &[
    Case {
        name: "guest_runs_before_its_memory_is_there",
        title: "A guest is restored from a compressed snapshot, and runs at once.",
        run: restoring::guest_runs_before_its_memory_is_there,
    },
    Case {
        name: "only_what_is_touched_comes",
        title: "Nothing comes in the background: only what is touched does.",
        run: restoring::only_what_is_touched_comes,
    },
    Case {
        name: "two_cpus_wait_for_one_page",
        title: "Both CPUs touch the same page, which is not there.",
        run: restoring::two_cpus_wait_for_one_page,
    },
    Case {
        name: "many_devices_wait_for_their_pages",
        title: "Many device processes wait at once, in accesses of their own and in system calls.",
        run: restoring::many_devices_wait_for_their_pages,
    },
    Case {
        name: "unmodified_disk_waits_for_guest_memory",
        title: "An unmodified qemu-storage-daemon serves a guest whose memory has not come.",
        run: disk::unmodified_disk_waits_for_guest_memory,
    },
    Case {
        name: "guest_and_device_move_to_another_process",
        title: "A guest moves to another VMM, and runs there before its memory has come.",
        run: migration::guest_and_device_move_to_another_process,
    },
    Case {
        name: "source_that_dies_ends_the_wait",
        title: "The source is killed before all of the memory has come.",
        run: migration::source_that_dies_ends_the_wait,
    },
    Case {
        name: "damaged_chunk_is_refused_until_it_is_mended",
        title: "A part of the snapshot is damaged.",
        run: ends::damaged_chunk_is_refused_until_it_is_mended,
    },
    Case {
        name: "manager_that_dies_is_replaced",
        title: "The manager is killed while everybody waits, and another takes its place.",
        run: ends::manager_that_dies_is_replaced,
    },
    Case {
        name: "who_waits_can_be_killed",
        title: "A page never comes: a VMM and a device that wait for it are killed.",
        run: ends::who_waits_can_be_killed,
    },
];

/// In how many rounds guests are through; the last is what the image is compared with.
const ROUNDS: u32 = 3;
/// After how many reports they are stopped, to be moved: in the middle of the second round.
const BEFORE: usize = REPORTS + REPORTS / 2 + 3;
/// How many are left then.
const AFTER: usize = ROUNDS as usize * REPORTS - BEFORE;

/// How long others may take to come so far.
const LIMIT: Duration = Duration::from_secs(60);

/// The chunks of the devices' buffer.
const BUFFER_CHUNKS: std::ops::Range<usize> = BUFFER.start / CHUNK..BUFFER.end / CHUNK;

/// Takes a snapshot of a guest that was running.
fn take_snapshot(folder: &Folder, show: Show) -> Result<Snapshot> {
    let path = folder.path().join("snapshot");
    let (memory, mut machine) = running_guest(BEFORE)?;
    Snapshot::write(&path, &memory, &mut machine)?;
    let snapshot = Snapshot::open(&path)?;
    show.says(
        "VMM",
        &format!(
            "has taken a snapshot of a guest: {} KiB, of {} MiB of memory",
            snapshot.length()? >> 10,
            crate::guest::LENGTH >> 20
        ),
    );
    Ok(snapshot)
}

/// Waits until so many tasks wait for a page.
fn await_waiting(memory: &Memory, count: usize) -> Result<()> {
    await_count("tasks wait", count, || Ok(memory.waiting()? as usize))
}

/// Waits until so many chunks are there.
fn await_chunks(memory: &Memory, count: usize) -> Result<()> {
    await_count("chunks are there", count, || memory.chunks_mapped())
}

fn await_count(what: &str, count: usize, now: impl Fn() -> Result<usize>) -> Result<()> {
    let start = Instant::now();
    loop {
        let is = now()?;
        if is == count {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "{is} {what}, not {count}");
        sleep(Duration::from_millis(1));
    }
}
