// SPDX-License-Identifier: GPL-2.0

//! Row l under Debian's kernel as guest: reads of a file through a window of an eighth of it,
//! which the file server changes by itself, or the VMM as the server asks it by vhost-user's
//! messages, and without a window. And what memory that takes, for several guests.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rig::folder::Folder;
use vmm_guest::reading::{FILE, Job, LENGTH, Mount, PAGE};

use crate::clock::Clock;
use crate::linux::Linux;
use crate::rounds::{Bench, Goal, other, ours};

/// How many guests there are, and how many bytes each reads without a window, since its own
/// memory has to have them.
const GUESTS: usize = 4;
const PART: u64 = LENGTH / 2;

/// How many pages a sample reads in order,
const IN_ORDER: u32 = 4096;
/// and at random.
const AT_RANDOM: u32 = 128;

const SERVER: &str = "window that the server changes";
const VMM: &str = "window that the VMM changes for a message";
const NONE: &str = "no window, nothing in the guest's cache";

pub fn run(bench: &mut Bench) -> Result<()> {
    let in_order = format!(
        "guest: read {} MiB of {} in order, 4 KiB at a time",
        mib(LENGTH / 16),
        mib(LENGTH)
    );
    let at_random = format!("guest: read 4 KiB of {} MiB at random", mib(LENGTH));
    let memory = format!(
        "guests: memory of {} MiB that {GUESTS} have read",
        mib(LENGTH)
    );
    let wanted = |name: &str| [SERVER, VMM, NONE].iter().any(|of| bench.wants(name, of));
    let all = wanted(&memory);
    if !all && !wanted(&in_order) && !wanted(&at_random) {
        return Ok(());
    }
    let folder = Folder::new("share")?;
    write_file(&folder.path().join(FILE))?;
    let guests = Linux::start(folder.path(), if all { GUESTS } else { 1 })?;
    if all {
        measure_memory(bench, &memory, &guests)?;
    }
    let guest = &guests[0];
    let goals = [Goal {
        of: SERVER,
        to: VMM,
        at_most: 1.0 / 3.0,
    }];
    compare(bench, in_order, guest, IN_ORDER, &[], |turn| Job::InOrder {
        first: turn * IN_ORDER,
        count: IN_ORDER,
    })?;
    compare(bench, at_random, guest, AT_RANDOM, &goals, |turn| {
        Job::AtRandom {
            seed: turn,
            count: AT_RANDOM,
        }
    })
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Writes the file, all of which is in the page cache then.
fn write_file(path: &Path) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut page = [0; PAGE as usize];
    for number in 0..LENGTH / PAGE {
        page[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&page)?;
    }
    Ok(file.flush()?)
}

/// Compares the three for one kind of job, of which the number of the round makes the next.
fn compare(
    bench: &mut Bench,
    name: String,
    guest: &Linux,
    count: u32,
    goals: &[Goal],
    job: impl Fn(u32) -> Job,
) -> Result<()> {
    let sample = |mount, turn: &Cell<u32>, clock: Clock| {
        if mount == Mount::NoWindow {
            guest.run(mount, Job::Forget)?;
        }
        let job = job(turn.replace(turn.get() + 1));
        let took = clock.time(|| guest.run(mount, job))?;
        Ok(took / f64::from(count))
    };
    // All three read the same in a round.
    let turns = [const { Cell::new(0) }; 3];
    let contenders = vec![
        ours(SERVER, |clock| sample(Mount::Server, &turns[0], clock)),
        other(VMM, |clock| sample(Mount::Vmm, &turns[1], clock)),
        other(NONE, |clock| sample(Mount::NoWindow, &turns[2], clock)),
    ];
    bench.compare('l', name, 10, contenders, goals)
}

/// What is used of this machine's memory when each of the guests has read the file, which is in
/// the page cache before.
fn measure_memory(bench: &mut Bench, name: &str, guests: &[Linux]) -> Result<()> {
    let added = |mount, length: u64| {
        let before = used()?;
        for guest in guests {
            let count = (length / PAGE) as u32;
            guest.run(mount, Job::InOrder { first: 0, count })?;
        }
        Ok::<_, anyhow::Error>(used()? - before)
    };
    let length = LENGTH as f64;
    let of_window = added(Mount::Server, LENGTH)?;
    bench.bytes('l', name, length + of_window, Some(1.05 * length));

    let without = added(Mount::NoWindow, PART)?;
    let read = guests.len() as f64;
    bench.count(
        'l',
        "guests: memory for each byte that one has read",
        "bytes",
        (SERVER, of_window / read / length),
        (NONE, without / read / PART as f64),
        None,
    );
    Ok(())
}

/// How many bytes of memory are in use, for whatever.
fn used() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |key: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("no {key}"))?.parse()?)
    };
    Ok((kib("MemTotal:")? - kib("MemFree:")?) * 1024.0)
}
