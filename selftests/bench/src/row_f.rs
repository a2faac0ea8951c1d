// SPDX-License-Identifier: GPL-2.0

//! Row f: faults of one and of two threads at a time, and faults while another thread
//! maps and unmaps elsewhere in the same address space.

use std::fs::File;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use address_space::AddressSpace;
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::memory::{PAGE, Touch, resident, shuffled, sparse, touch_pages};
use crate::rounds::{Bench, other, ours};

const LENGTH: usize = 32 << 20;
/// Where the other thread maps and unmaps, beyond what is touched.
const ROOM: usize = 2 << 20;

const OURS: &str = "attachment of an address space";
const PLAIN: &str = "plain mapping of the memfd";

pub fn run(bench: &mut Bench) -> Result<()> {
    let file = resident(LENGTH)?;
    let space = AddressSpace::new((LENGTH + ROOM) as u64)?;
    space.register(&file).prot(READ_WRITE).populate().commit()?;
    let map = space.map(&file).length(LENGTH as u64);
    map.at(0).prot(READ_WRITE).commit()?;
    let pages = shuffled(LENGTH / PAGE);
    let cpus = std::thread::available_parallelism()?.get();

    for threads in 1..=cpus.min(2) {
        let contenders = vec![
            ours(OURS, |clock| {
                let window = space.attach(0..LENGTH as u64, READ_WRITE)?;
                touch_all(clock, window.as_ptr(), &pages, threads)
            }),
            other(PLAIN, |clock| {
                let mapping = Plain::of(&file, 0, LENGTH)?;
                touch_all(clock, mapping.as_ptr(), &pages, threads)
            }),
        ];
        let name = format!("write faults at random, {threads} threads, for each page");
        bench.compare('f', name, 5, contenders, &[])?;
    }
    if cpus > 1 {
        disturbed(bench, &file, &space, &pages)?;
    }
    Ok(())
}

/// Each thread touches its part of the pages. What it takes for each page.
fn touch_all(clock: Clock, start: *mut u8, pages: &[u32], threads: usize) -> Result<f64> {
    let start = start as usize;
    let ready = Barrier::new(threads + 1);
    let took = scope(|scope| {
        let parts = pages.chunks(pages.len().div_ceil(threads));
        let threads: Vec<_> = parts
            .map(|part| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    // SAFETY: The file is mapped in all of it.
                    unsafe { touch_pages(start as *mut u8, part, Touch::Write) };
                })
            })
            .collect();
        clock.time(|| {
            ready.wait();
            for thread in threads {
                thread.join().ok().context("a thread has failed")?;
            }
            Ok(())
        })
    })?;
    Ok(took / pages.len() as f64)
}

fn disturbed(bench: &mut Bench, file: &File, space: &AddressSpace, pages: &[u32]) -> Result<()> {
    let small = sparse(ROOM)?;
    space.register(&small).prot(READ_WRITE).commit()?;
    let plain_room = Plain::reserved(ROOM)?;
    let room = LENGTH as u64..(LENGTH + PAGE) as u64;
    let contenders = vec![
        ours(OURS, |clock| {
            let window = space.attach(0..LENGTH as u64, READ_WRITE)?;
            while_another(
                || {
                    let map = space.map(&small).length(PAGE as u64).at(room.start);
                    map.prot(READ_WRITE).commit()?;
                    Ok(space.unmap(room.clone())?)
                },
                || touch_all(clock, window.as_ptr(), pages, 1),
            )
        }),
        other(PLAIN, |clock| {
            let mapping = Plain::of(file, 0, LENGTH)?;
            while_another(
                || {
                    plain_room.map_at(0, &small, 0, PAGE)?;
                    plain_room.reserve_at(0, PAGE)
                },
                || touch_all(clock, mapping.as_ptr(), pages, 1),
            )
        }),
    ];
    let name = "write faults at random while another thread maps and unmaps, for each page";
    bench.compare('f', name, 5, contenders, &[])
}

/// What `work` gives while another thread does `disturb` all the time.
fn while_another(
    disturb: impl Fn() -> Result<()> + Send + Sync,
    work: impl FnOnce() -> Result<f64>,
) -> Result<f64> {
    let done = AtomicBool::new(false);
    scope(|scope| {
        let other = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                disturb()?;
            }
            Ok(())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        other
            .join()
            .ok()
            .context("a thread has failed")?
            .and(result)
    })
}
