// SPDX-License-Identifier: GPL-2.0

//! What clones take: until they run, until they have done what they do, and in memory; beside
//! MAP_PRIVATE in each VMM, and a copy for each.
//!
//! Memory is what the memory cgroup of the clones' processes is charged, more than before they
//! have clones: their pages, page tables and frame tables, and what KVM and the module allocate.
//! The snapshot is charged to another. (MemAvailable of /proc/meminfo has what is charged to
//! nobody, too; but what clones of a round before have had comes back to it late.)

use std::time::Instant;

use anyhow::{Context as _, Result};
use rig::check::expect;
use rig::tap::line;

use crate::blocks::Counts;
use crate::cgroup::Cgroup;
use crate::fleet::{Clone, all_do};
use crate::guest::{Command, State};
use crate::machine::Way;
use crate::snapshot::Snapshot;

/// How many clones there are.
const FLEETS: [usize; 3] = [1, 8, 32];

/// The ways, and their names in the tables.
const WAYS: [(Way, &str); 4] = [
    (Way::Blocks(4 << 10), "**private map, blocks of 4 KiB**"),
    (Way::Blocks(64 << 10), "**private map, blocks of 64 KiB**"),
    (Way::Private, "MAP_PRIVATE in each VMM"),
    (Way::Copy, "a copy of all memory"),
];

/// The blocks that are compared.
const BLOCKS: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 2 << 20];

/// What one round comes to. Times are in nanoseconds, memory in KiB.
#[derive(Clone, Copy, Default)]
struct Sample {
    /// Until all of them have run.
    all_run: u64,
    /// until one has, the mean;
    one_runs: u64,
    /// what all of them take in memory then,
    memory_at_first: u64,
    /// until all have walked their tables, counted and marked,
    all_done: u64,
    /// and what they take in memory then.
    memory: u64,
}

/// Prints the tables.
pub fn print(rounds: usize) -> Result<()> {
    let snapshot = Snapshot::take()?;
    // What is done for the first time takes longer.
    for (way, _) in WAYS {
        sample(1, way, &snapshot)?;
    }
    line(
        "| clones | | until one runs, µs | until all run, µs | MiB then | until all are done, µs \
         | MiB then |",
    );
    line("|---:|---|---:|---:|---:|---:|---:|");
    for count in FLEETS {
        for (way, name) in WAYS {
            let samples: Vec<_> = (0..rounds)
                .map(|_| sample(count, way, &snapshot))
                .collect::<Result<_>>()?;
            let median = |of: fn(&Sample) -> u64| median(samples.iter().map(of).collect());
            let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
            line(&format!(
                "| {count} | {name} | {} | {} | {} | {} | {} |",
                median(|sample| sample.one_runs) / 1000,
                median(|sample| sample.all_run) / 1000,
                mib(median(|sample| sample.memory_at_first)),
                median(|sample| sample.all_done) / 1000,
                mib(median(|sample| sample.memory)),
            ));
        }
    }
    line("");
    line(
        "| block | until it has walked, µs | until it has counted and marked, µs | and walked \
         again, µs | writes that exit | that wait | pages copied |",
    );
    line("|---:|---:|---:|---:|---:|---:|---:|");
    for block in BLOCKS {
        let rows: Vec<_> = (0..rounds)
            .map(|_| steps(Way::Blocks(block), &snapshot))
            .collect::<Result<_>>()?;
        let [first, second, third] = medians(&rows);
        let counts = rows.last().context("no round")?.1;
        line(&format!(
            "| {} KiB | {first} | {second} | {third} | {} | {} | {} |",
            block >> 10,
            counts.done,
            counts.waited,
            counts.copies
        ));
    }
    let rows: Vec<_> = (0..rounds)
        .map(|_| steps(Way::Private, &snapshot))
        .collect::<Result<_>>()?;
    let [first, second, third] = medians(&rows);
    line(&format!(
        "| MAP_PRIVATE | {first} | {second} | {third} | | | |"
    ));
    Ok(())
}

/// Starts so many clones, and has them do what they do.
fn sample(count: usize, way: Way, snapshot: &Snapshot) -> Result<Sample> {
    // Dropped after the processes.
    let cgroup = Cgroup::new()?;
    let clones: Vec<_> = (0..count).map(|_| Clone::vmm()).collect::<Result<_>>()?;
    for clone in &clones {
        cgroup.add(clone.id())?;
        // It has run, and has its stack and heap.
        clone.counts().err().context("a VMM without a clone")?;
    }
    let before = cgroup.charged()?;
    let begin = Instant::now();
    for clone in &clones {
        clone.begin(snapshot, way)?;
    }
    let mut each = 0;
    for clone in &clones {
        each += clone.started()?;
    }
    let all_run = begin.elapsed().as_nanos() as u64;
    let memory_at_first = cgroup.charged()?.saturating_sub(before);
    let state = |number: u32| State {
        count: snapshot.state.count + number,
        mark: number,
    };
    let begin = Instant::now();
    all_do(&clones, Command::Walk, |_| 0, |_| snapshot.state.walked())?;
    all_do(
        &clones,
        Command::Count,
        |number| number,
        |number| state(number).count,
    )?;
    all_do(&clones, Command::Mark, |number| number, |number| number)?;
    all_do(
        &clones,
        Command::Walk,
        |_| 0,
        |number| state(number).walked(),
    )?;
    Ok(Sample {
        all_run,
        one_runs: each / count as u64,
        memory_at_first,
        all_done: begin.elapsed().as_nanos() as u64,
        memory: cgroup.charged()?.saturating_sub(before),
    })
}

/// What each step of one clone takes, in microseconds, and what has come of it.
fn steps(way: Way, snapshot: &Snapshot) -> Result<([u64; 3], Counts)> {
    let clone = Clone::start(snapshot, way)?;
    let took = |step: &dyn Fn() -> Result<()>| {
        let begin = Instant::now();
        step()?;
        anyhow::Ok(begin.elapsed().as_micros() as u64)
    };
    let walk = |mark| {
        let walked = State { count: 0, mark }.walked();
        expect("the walk", clone.does(Command::Walk, 0)?, walked)
    };
    let steps = [
        took(&|| walk(0))?,
        took(&|| {
            clone.does(Command::Count, 1)?;
            clone.does(Command::Mark, 5).map(drop)
        })?,
        took(&|| walk(5))?,
    ];
    let counts = match way {
        Way::Blocks(_) => clone.counts()?,
        _ => Counts::default(),
    };
    Ok((steps, counts))
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn medians(rows: &[([u64; 3], Counts)]) -> [u64; 3] {
    [0, 1, 2].map(|step| median(rows.iter().map(|(steps, _)| steps[step]).collect()))
}
