// SPDX-License-Identifier: GPL-2.0

//! Row b: pages mapped and unmapped at the rate of an IOMMU, single and in batches, with
//! few and many mappings present.

use std::collections::HashMap;
use std::fs::File;

use address_space::{AddressSpace, Batch, Window};
use anyhow::Result;
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::comparison::{Comparison, Measured, Ratio, Spread};
use crate::memory::{PAGE, Touch, shuffled, sparse, touch};
use crate::rounds::{Bench, Goal, other, ours};

/// How many pages one sample maps and unmaps.
const PAGES: usize = 256;
const PRESENT: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
/// A process may have 65530 mappings (vm.max_map_count).
const MOST_MMAPS: usize = 50_000;
/// The most operations of one batch while the mappings are made that are present.
const CHUNK: usize = 1 << 15;

const OF_64: &str = "batches of 64";
const MMAP: &str = "mmap, munmap";

pub fn run(bench: &mut Bench) -> Result<()> {
    let mut fewest = HashMap::new();
    for present in PRESENT {
        compare(bench, present)?;
        let of_these =
            |it: &&Comparison| it.name.ends_with(&format!(" {present} mappings present"));
        let Some(last) = bench.results.last().filter(of_these) else {
            // Not asked for.
            continue;
        };
        if present == PRESENT[0] {
            fewest = spreads(&last.contenders);
        }
        if present == PRESENT[PRESENT.len() - 1] {
            let ratios = growth(&last.contenders, &fewest);
            let growth = Comparison {
                row: 'b',
                name: "map and unmap 4 KiB, 1000000 mappings present against 10".into(),
                unit: last.unit,
                rounds: last.rounds,
                contenders: Vec::new(),
                ratios,
            };
            bench.add(growth);
        }
    }
    Ok(())
}

/// What ours took, by name.
fn spreads(contenders: &[Measured]) -> HashMap<&'static str, Spread> {
    let ours = contenders.iter().filter(|measured| measured.ours);
    ours.map(|measured| (measured.name, measured.spread))
        .collect()
}

/// What each took with the most mappings present, in times of that with the fewest.
fn growth(most: &[Measured], fewest: &HashMap<&'static str, Spread>) -> Vec<Ratio> {
    let ratio = |measured: &Measured| {
        let few = fewest.get(measured.name)?;
        let of = |value: f64| value / few.median;
        let ratio = of(measured.spread.median);
        Some(Ratio {
            of: measured.name,
            to: "the same with 10 present",
            ratio,
            spread: Spread {
                q1: of(measured.spread.q1),
                median: ratio,
                q3: of(measured.spread.q3),
            },
            goal: Some(2.0),
            met: Some(ratio <= 2.0),
        })
    };
    most.iter().filter_map(ratio).collect()
}

fn compare(bench: &mut Bench, present: usize) -> Result<()> {
    let room = Room::new(present)?;
    let plain = if present <= MOST_MMAPS {
        Some(PlainRoom::new(present)?)
    } else {
        None
    };
    let goals = [Goal {
        of: OF_64,
        to: MMAP,
        at_most: 0.13,
    }];
    for (touched, name, goals) in [
        (true, "map, read and unmap", &goals[..0]),
        (false, "map and unmap", &goals[..]),
    ] {
        let batches = |size| {
            let room = &room;
            move |clock| room.batches(clock, size, touched)
        };
        let mut contenders = vec![
            ours("single", |clock| room.single(clock, touched)),
            ours("batches of 16", batches(16)),
            ours(OF_64, batches(64)),
            ours("batches of 256", batches(256)),
        ];
        if let Some(plain) = &plain {
            contenders.push(other(MMAP, move |clock| plain.each(clock, touched)));
        }
        let name = format!("{name} 4 KiB, {present} mappings present");
        bench.compare('b', name, 1, contenders, goals)?;
    }
    Ok(())
}

/// Where a mapping that is present lies, and what page of the file it shows: no two that
/// lie side by side show pages that do, so that they stay mappings of their own.
fn place(index: usize, present: usize) -> (usize, usize) {
    (2 * index * PAGE, (present - 1 - index) * PAGE)
}

/// Where the pages come and go: between those present, spread over them.
fn holes(present: usize) -> Vec<usize> {
    let mut order = shuffled(present.max(PAGES));
    order.truncate(PAGES);
    order
        .iter()
        .map(|&index| (2 * index as usize + 1) * PAGE)
        .collect()
}

fn range(at: usize) -> std::ops::Range<u64> {
    at as u64..(at + PAGE) as u64
}

/// An address space with so many mappings of one registered file.
struct Room {
    space: AddressSpace,
    window: Window,
    file: File,
    holes: Vec<usize>,
}

impl Room {
    fn new(present: usize) -> Result<Room> {
        let file = sparse(present.max(PAGES) * PAGE)?;
        let length = (2 * present.max(PAGES) * PAGE) as u64;
        let space = AddressSpace::new(length)?;
        let window = space.attach(0..length, READ_WRITE)?;
        space.register(&file).prot(READ_WRITE).commit()?;
        for first in (0..present).step_by(CHUNK) {
            let mut batch = space.batch();
            for index in first..present.min(first + CHUNK) {
                let (at, offset) = place(index, present);
                batch = batch.map(&file, offset as u64, range(at), READ_WRITE);
            }
            batch.commit()?;
        }
        let holes = holes(present);
        Ok(Room {
            space,
            window,
            file,
            holes,
        })
    }

    fn single(&self, clock: Clock, touched: bool) -> Result<f64> {
        let took = clock.time(|| {
            for (index, &at) in self.holes.iter().enumerate() {
                self.space
                    .map(&self.file)
                    .offset((index * PAGE) as u64)
                    .length(PAGE as u64)
                    .at(at as u64)
                    .prot(READ_WRITE)
                    .commit()?;
                if touched {
                    // SAFETY: It was just mapped.
                    unsafe { touch(self.window.as_ptr().add(at), Touch::Read) };
                }
                self.space.unmap(range(at))?;
            }
            Ok(())
        })?;
        Ok(took / self.holes.len() as f64)
    }

    fn batches(&self, clock: Clock, size: usize, touched: bool) -> Result<f64> {
        // A program that makes such batches has to write them down in any case.
        let batches: Vec<(&[usize], Batch<'_>, Batch<'_>)> = self
            .holes
            .chunks(size)
            .map(|holes| {
                let (mut map, mut unmap) = (self.space.batch(), self.space.batch());
                for (index, &at) in holes.iter().enumerate() {
                    map = map.map(&self.file, (index * PAGE) as u64, range(at), READ_WRITE);
                    unmap = unmap.unmap(range(at));
                }
                (holes, map, unmap)
            })
            .collect();
        let took = clock.time(|| {
            for (holes, map, unmap) in &batches {
                map.commit()?;
                if touched {
                    for &at in *holes {
                        // SAFETY: It was just mapped.
                        unsafe { touch(self.window.as_ptr().add(at), Touch::Read) };
                    }
                }
                unmap.commit()?;
            }
            Ok(())
        })?;
        Ok(took / self.holes.len() as f64)
    }
}

/// The same with mappings of the process.
struct PlainRoom {
    room: Plain,
    file: File,
    holes: Vec<usize>,
}

impl PlainRoom {
    fn new(present: usize) -> Result<PlainRoom> {
        let file = sparse(present.max(PAGES) * PAGE)?;
        let room = Plain::reserved(2 * present.max(PAGES) * PAGE)?;
        for index in 0..present {
            let (at, offset) = place(index, present);
            room.map_at(at, &file, offset, PAGE)?;
        }
        let holes = holes(present);
        for &at in &holes {
            room.unmap_at(at, PAGE)?;
        }
        Ok(PlainRoom { room, file, holes })
    }

    fn each(&self, clock: Clock, touched: bool) -> Result<f64> {
        let took = clock.time(|| {
            for (index, &at) in self.holes.iter().enumerate() {
                self.room.map_at(at, &self.file, index * PAGE, PAGE)?;
                if touched {
                    // SAFETY: It was just mapped.
                    unsafe { touch(self.room.as_ptr().add(at), Touch::Read) };
                }
                self.room.unmap_at(at, PAGE)?;
            }
            Ok(())
        })?;
        Ok(took / self.holes.len() as f64)
    }
}
