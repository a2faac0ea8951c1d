// SPDX-License-Identifier: GPL-2.0

//! Row l: what a file server does for a guest's FUSE_SETUPMAPPING and FUSE_REMOVEMAPPING, by
//! itself and by messages to a VMM. `row_l_guest.rs` has the guests.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;

use address_space::AddressSpace;
use address_space::dax::Window;
use anyhow::Result;

use crate::clock::Clock;
use crate::memory::{HUGE, PAGE, resident, shuffled};
use crate::peer::Peer;
use crate::rounds::{Bench, Goal, other, ours};

/// How many ranges are mapped, and unmapped together.
const RANGES: usize = 6;
/// How long the file is.
const LENGTH: usize = 32 * HUGE;
/// How often in one sample.
const TIMES: usize = 8;
/// The server's number for its file.
const FILE: u64 = 1;

const REGISTERED: &str = "asfd, registered file";
const FIRST: &str = "asfd, opened and registered first";
const MESSAGE: &str = "message with fd, mapped in the VMM, acked";
const MESSAGE_FIRST: &str = "the file opened, and such a message";
const BATCH: &str = "asfd, one batch";
const MESSAGES: &str = "six messages, each acked";

pub fn run(bench: &mut Bench) -> Result<()> {
    let mut own = Own::new()?;
    let asked = Asked::new()?;

    let goals = [Goal {
        of: REGISTERED,
        to: MESSAGE,
        at_most: 0.1,
    }];
    let contenders = vec![
        ours(REGISTERED, |clock| own.map(clock)),
        other(MESSAGE, |clock| asked.map(clock)),
    ];
    let name = "server: map 2 MiB of a file in the window";
    bench.compare('l', name, 1, contenders, &goals)?;

    let contenders = vec![
        ours(FIRST, |clock| own.first(clock)),
        other(MESSAGE_FIRST, |clock| asked.first(clock)),
    ];
    let name = "server: map 2 MiB of a file that was not open";
    bench.compare('l', name, 1, contenders, &[])?;

    let goals = [Goal {
        of: BATCH,
        to: MESSAGES,
        at_most: 0.05,
    }];
    let contenders = vec![
        ours(BATCH, |clock| own.unmap(clock)),
        other(MESSAGES, |clock| asked.unmap(clock)),
    ];
    let name = "server: unmap 6 ranges, of each of which a page was touched";
    bench.compare('l', name, 1, contenders, &goals)
}

/// The places in the window, and the offset in the file of what is shown there: what follows in
/// the window does not follow in the file.
fn ranges() -> impl Iterator<Item = (Range<usize>, usize)> {
    let offsets = shuffled(LENGTH / HUGE).into_iter().take(RANGES);
    offsets.enumerate().map(|(place, index)| {
        let start = place * HUGE;
        (start..start + HUGE, index as usize * HUGE)
    })
}

fn bytes(range: &Range<usize>) -> Range<u64> {
    range.start as u64..range.end as u64
}

/// The file, opened once more.
fn open(file: &File) -> std::io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A server with an address space; another process has it attached.
struct Own {
    window: Window,
    file: File,
    attached: Peer,
    ranges: Vec<(Range<usize>, usize)>,
    places: Vec<Range<u64>>,
}

impl Own {
    fn new() -> Result<Own> {
        let length = RANGES * HUGE;
        let space = AddressSpace::new(length as u64)?;
        let attached = Peer::start()?;
        attached.attach(&space)?;
        attached.done()?;
        let ranges: Vec<_> = ranges().collect();
        Ok(Own {
            window: Window::new(space, 0..length as u64, 16)?,
            file: resident(LENGTH)?,
            attached,
            places: ranges.iter().map(|(place, _)| bytes(place)).collect(),
            ranges,
        })
    }

    fn map_one(&mut self, index: usize) -> Result<()> {
        let (place, (_, offset)) = (self.places[index].clone(), &self.ranges[index]);
        let file = &self.file;
        let open = || Ok(OwnedFd::from(open(file)?));
        Ok(self.window.map(FILE, *offset as u64, place, false, open)?)
    }

    fn map_all(&mut self) -> Result<()> {
        (0..RANGES).try_for_each(|index| self.map_one(index))
    }

    fn touch(&self) -> Result<()> {
        for (place, _) in &self.ranges {
            self.attached
                .read_attached_at(place.start..place.start + PAGE)?;
            self.attached.done()?;
        }
        Ok(())
    }

    fn unmap_all(&mut self) -> Result<()> {
        Ok(self.window.unmap(&self.places)?)
    }

    fn map(&mut self, clock: Clock) -> Result<f64> {
        let mut took = 0.0;
        // The first is to warm up.
        for time in 0..=TIMES {
            let this = clock.time(|| self.map_all())?;
            self.touch()?;
            self.unmap_all()?;
            took += if time > 0 { this } else { 0.0 };
        }
        Ok(took / (TIMES * RANGES) as f64)
    }

    fn first(&mut self, clock: Clock) -> Result<f64> {
        let mut took = 0.0;
        for _ in 0..TIMES {
            self.window.forget(FILE);
            took += clock.time(|| self.map_one(0))?;
            self.unmap_all()?;
        }
        Ok(took / TIMES as f64)
    }

    fn unmap(&mut self, clock: Clock) -> Result<f64> {
        let mut took = 0.0;
        for time in 0..=TIMES {
            self.map_all()?;
            self.touch()?;
            let this = clock.time(|| self.unmap_all())?;
            took += if time > 0 { this } else { 0.0 };
        }
        Ok(took / TIMES as f64)
    }
}

/// A server that asks another process.
struct Asked {
    vmm: Peer,
    file: File,
    ranges: Vec<(Range<usize>, usize)>,
}

impl Asked {
    fn new() -> Result<Asked> {
        Ok(Asked {
            vmm: Peer::start()?,
            file: resident(LENGTH)?,
            ranges: ranges().collect(),
        })
    }

    fn map_all(&self) -> Result<()> {
        for (place, offset) in &self.ranges {
            self.vmm
                .map_for_reading(&self.file, *offset, place.clone())?;
            self.vmm.done()?;
        }
        Ok(())
    }

    fn touch(&self) -> Result<()> {
        for (place, _) in &self.ranges {
            self.vmm.read_at(place.start..place.start + PAGE)?;
            self.vmm.done()?;
        }
        Ok(())
    }

    fn unmap_all(&self) -> Result<()> {
        for (place, _) in &self.ranges {
            self.vmm.unmap_at(place.clone())?;
            self.vmm.done()?;
        }
        Ok(())
    }

    fn map(&self, clock: Clock) -> Result<f64> {
        let mut took = 0.0;
        for time in 0..=TIMES {
            let this = clock.time(|| self.map_all())?;
            self.touch()?;
            self.unmap_all()?;
            took += if time > 0 { this } else { 0.0 };
        }
        Ok(took / (TIMES * RANGES) as f64)
    }

    fn first(&self, clock: Clock) -> Result<f64> {
        let (place, offset) = &self.ranges[0];
        let mut took = 0.0;
        for _ in 0..TIMES {
            let (this, file) = clock.measure(|| {
                let file = open(&self.file)?;
                self.vmm.map_for_reading(&file, *offset, place.clone())?;
                self.vmm.done()?;
                Ok(file)
            })?;
            drop(file);
            self.unmap_all()?;
            took += this;
        }
        Ok(took / TIMES as f64)
    }

    fn unmap(&self, clock: Clock) -> Result<f64> {
        let mut took = 0.0;
        for time in 0..=TIMES {
            self.map_all()?;
            self.touch()?;
            let this = clock.time(|| self.unmap_all())?;
            took += if time > 0 { this } else { 0.0 };
        }
        Ok(took / TIMES as f64)
    }
}
