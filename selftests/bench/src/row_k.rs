// SPDX-License-Identifier: GPL-2.0

//! Row k: what a call costs does not grow with what is there beside it. Each comparison is one
//! of address spaces alone: the same with much beside it, and with little.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread;

use address_space::{AddressSpace, Window};
use anyhow::{Result, anyhow};
use rig::READ_WRITE;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::clock::Clock;
use crate::memory::{HUGE, PAGE, Touch, sparse, touch};
use crate::rounds::{Bench, Goal, other, ours};

const MUCH: &str = "much beside it";
const LITTLE: &str = "little beside it";
/// A tree that has 1,000 times as much is 10 levels higher.
const AT_MOST: f64 = 1.5;
/// The most operations of one batch.
const CHUNK: usize = 1 << 15;

pub fn run(bench: &mut Bench) -> Result<()> {
    growth(bench, "unmap 16 files, 16 or 10000 mapped", |much| {
        Files::new(if much { 10_000 } else { 16 })
    })?;
    growth(
        bench,
        "end registrations, for each, of 100 or 5000",
        |much| Ok(Registered(if much { 5_000 } else { 100 })),
    )?;
    growth(
        bench,
        "unmap all ranges, for each, of 1000 or 100000",
        |much| Ok(Unmapped(if much { 100_000 } else { 1_000 })),
    )?;
    growth(
        bench,
        "truncate a file of which a page was touched, 10 or 100000 ranges",
        |much| Truncated::new(if much { Truncated::PAGES } else { 10 }),
    )?;
    growth(
        bench,
        "ADDRESS_SPACE_LAYOUT, for each of 1000 or 100000 ranges",
        |much| Told::new(if much { 100_000 } else { 1_000 }, false),
    )?;
    growth(bench, "fdinfo, for each of 1000 or 20000 ranges", |much| {
        Told::new(if much { 20_000 } else { 1_000 }, true)
    })?;
    growth(
        bench,
        "punch a page that one view shows, 16 or 8000 views attached",
        |much| Views::new(if much { 8_000 } else { 16 }),
    )?;
    growth(
        bench,
        "map 2 MiB anywhere, 1000 or 50000 holes that are not aligned",
        |much| Anywhere::new(if much { 50_000 } else { 1_000 }),
    )?;
    growth(
        bench,
        "map a page of a file that is mapped, of which 8 or 2000 pieces are mapped before it",
        |much| Pieces::new(if much { 2_000 } else { 8 }),
    )?;
    births(bench)
}

/// What is measured, with something beside it.
trait Beside {
    fn sample(&mut self, clock: Clock) -> Result<f64>;
}

fn growth<B: Beside>(
    bench: &mut Bench,
    name: &str,
    make: impl Fn(bool) -> Result<B>,
) -> Result<()> {
    if !bench.wants(name, MUCH) && !bench.wants(name, LITTLE) {
        return Ok(());
    }
    let (mut much, mut little) = (make(true)?, make(false)?);
    let goals = [Goal {
        of: MUCH,
        to: LITTLE,
        at_most: AT_MOST,
    }];
    let contenders = vec![
        ours(MUCH, |clock| much.sample(clock)),
        other(LITTLE, |clock| little.sample(clock)),
    ];
    bench.compare('k', name, 10, contenders, &goals)
}

fn page(index: usize) -> std::ops::Range<u64> {
    (index * PAGE) as u64..((index + 1) * PAGE) as u64
}

/// Single pages of a file at every other page of a space, in the opposite order, so that each is
/// a range.
fn scatter(space: &AddressSpace, file: &File, ranges: usize) -> Result<()> {
    for first in (0..ranges).step_by(CHUNK) {
        let mut batch = space.batch();
        for index in first..ranges.min(first + CHUNK) {
            let offset = (ranges - 1 - index) * PAGE;
            batch = batch.map(file, offset as u64, page(2 * index), READ_WRITE);
        }
        batch.commit()?;
    }
    Ok(())
}

/// A space with so many ranges of one file.
fn scattered(ranges: usize) -> Result<(AddressSpace, File)> {
    scattered_of(ranges, ranges)
}

/// The same of a file that has more pages.
fn scattered_of(ranges: usize, pages: usize) -> Result<(AddressSpace, File)> {
    let file = sparse(pages * PAGE)?;
    let space = AddressSpace::new((2 * ranges * PAGE) as u64)?;
    space.register(&file).prot(READ_WRITE).commit()?;
    scatter(&space, &file, ranges)?;
    Ok((space, file))
}

/// Files of a page each.
struct Files {
    space: AddressSpace,
    first: Vec<File>,
}

impl Files {
    const CHANGED: usize = 16;

    fn new(count: usize) -> Result<Files> {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, limit_of_all(limit))?;
        let space = AddressSpace::new((count * PAGE) as u64)?;
        let mut first = Vec::new();
        for index in 0..count {
            let file = sparse(PAGE)?;
            map_page(&space, &file, 0, index)?;
            if first.len() < Self::CHANGED {
                first.push(file);
            }
        }
        Ok(Files { space, first })
    }
}

fn limit_of_all(limit: rustix::process::Rlimit) -> rustix::process::Rlimit {
    rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    }
}

fn map_page(space: &AddressSpace, file: &File, offset: usize, index: usize) -> Result<()> {
    space
        .map(file)
        .offset((offset * PAGE) as u64)
        .length(PAGE as u64)
        .at(page(index).start)
        .prot(READ_WRITE)
        .commit()?;
    Ok(())
}

impl Beside for Files {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let range = 0..(Self::CHANGED * PAGE) as u64;
        let took = clock.time(|| Ok(self.space.unmap(range)?))?;
        for (index, file) in self.first.iter().enumerate() {
            map_page(&self.space, file, 0, index)?;
        }
        Ok(took)
    }
}

/// So many registered files, which all end.
struct Registered(usize);

impl Beside for Registered {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let space = AddressSpace::new(PAGE as u64)?;
        for _ in 0..self.0 {
            let file = sparse(PAGE)?;
            space.register(&file).prot(READ_WRITE).commit()?;
        }
        let took = clock.time(|| Ok(space.unregister_all()?))?;
        Ok(took / self.0 as f64)
    }
}

/// So many ranges, which are all unmapped by one call.
struct Unmapped(usize);

impl Beside for Unmapped {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let (space, _file) = scattered(self.0)?;
        let took = clock.time(|| Ok(space.unmap(..)?))?;
        Ok(took / self.0 as f64)
    }
}

/// A file of which so many ranges show something, a page of one was touched, and which somebody
/// truncates.
struct Truncated {
    _space: AddressSpace,
    window: Window,
    file: File,
}

impl Truncated {
    const PAGES: usize = 100_000;

    fn new(ranges: usize) -> Result<Truncated> {
        let (space, file) = scattered_of(ranges, Self::PAGES)?;
        let window = space.attach(.., READ_WRITE)?;
        Ok(Truncated {
            _space: space,
            window,
            file,
        })
    }
}

impl Beside for Truncated {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let length = self.file.metadata()?.len();
        // SAFETY: It is mapped.
        unsafe { touch(self.window.as_ptr(), Touch::Write) };
        let took = clock.time(|| Ok(self.file.set_len(0)?))?;
        self.file.set_len(length)?;
        Ok(took)
    }
}

/// So many ranges, of all of which is told.
struct Told {
    space: AddressSpace,
    ranges: usize,
    fdinfo: bool,
}

impl Told {
    fn new(ranges: usize, fdinfo: bool) -> Result<Told> {
        let (space, _file) = scattered(ranges)?;
        Ok(Told {
            space,
            ranges,
            fdinfo,
        })
    }
}

impl Beside for Told {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let took = clock.time(|| {
            let told = match self.fdinfo {
                false => self.space.layout(..)?.len(),
                true => {
                    let fd = self.space.as_fd().as_raw_fd();
                    std::fs::read(format!("/proc/self/fdinfo/{fd}"))?.len() / 16
                }
            };
            anyhow::ensure!(told >= self.ranges, "{told} ranges are told of");
            Ok(())
        })?;
        Ok(took / self.ranges as f64)
    }
}

/// Views of a page each, all attached; of a file, of which a page that one of them shows is
/// touched, and punched out.
struct Views {
    _space: AddressSpace,
    windows: Vec<Window>,
    file: File,
}

impl Views {
    fn new(count: usize) -> Result<Views> {
        let file = sparse(count * PAGE)?;
        let space = AddressSpace::new((count * PAGE) as u64)?;
        space.map(&file).at(0).prot(READ_WRITE).commit()?;
        let attach = |index| {
            let view = space.view(page(index), READ_WRITE)?;
            Ok(view.attach(.., READ_WRITE)?)
        };
        let windows = (0..count).map(attach).collect::<Result<_>>()?;
        Ok(Views {
            _space: space,
            windows,
            file,
        })
    }
}

impl Beside for Views {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let index = self.windows.len() / 2;
        // SAFETY: It is mapped.
        unsafe { touch(self.windows[index].as_ptr(), Touch::Write) };
        clock.time(|| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(
                &self.file,
                flags,
                page(index).start,
                PAGE as u64,
            )?)
        })
    }
}

/// Holes that are longer than a huge page and have none aligned; and one after them that has.
struct Anywhere {
    space: AddressSpace,
    file: File,
}

impl Anywhere {
    fn new(holes: usize) -> Result<Anywhere> {
        let pitch = HUGE + HUGE / 4;
        let file = sparse(HUGE)?;
        let space = AddressSpace::new(((holes + 4) * pitch) as u64)?;
        space.register(&file).prot(READ_WRITE).commit()?;
        for index in 0..holes {
            let at = index * pitch / PAGE;
            map_page(&space, &file, 0, at)?;
            // One in four would have room.
            if index % 4 == 3 {
                map_page(&space, &file, 0, at + HUGE / 2 / PAGE)?;
            }
        }
        Ok(Anywhere { space, file })
    }
}

impl Beside for Anywhere {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        let map = self
            .space
            .map(&self.file)
            .length(HUGE as u64)
            .anywhere()
            .prot(READ_WRITE);
        let (took, at) = clock.measure(|| Ok(map.commit()?))?;
        anyhow::ensure!(at % HUGE as u64 == 0, "{at:#x} is not aligned");
        self.space.unmap(at..at + HUGE as u64)?;
        Ok(took)
    }
}

/// Single pages of one file that lie far apart in it, each of which was mapped by itself, then all
/// of the file, and a page behind all of those that comes and goes.
struct Pieces {
    space: AddressSpace,
    file: File,
    count: usize,
}

impl Pieces {
    const APART: usize = 1 << 14;

    fn new(count: usize) -> Result<Pieces> {
        let pages = (count + 1) * Self::APART;
        let file = sparse(pages * PAGE)?;
        let whole = count + 1;
        let space = AddressSpace::new(((whole + pages) * PAGE) as u64)?;
        for index in 0..count {
            map_page(&space, &file, index * Self::APART, index)?;
        }
        let at = (whole * PAGE) as u64;
        space.map(&file).at(at).prot(READ_WRITE).commit()?;
        Ok(Pieces { space, file, count })
    }
}

impl Beside for Pieces {
    fn sample(&mut self, clock: Clock) -> Result<f64> {
        const TIMES: usize = 16;
        let (index, place) = (self.count * Self::APART, self.count);
        map_page(&self.space, &self.file, index, place)?;
        let took = clock.time(|| {
            for _ in 0..TIMES {
                self.space.unmap(page(place))?;
                map_page(&self.space, &self.file, index, place)?;
            }
            Ok(())
        })?;
        self.space.unmap(page(place))?;
        Ok(took / TIMES as f64)
    }
}

/// What it takes to make an address space, one after the other and two at a time.
fn births(bench: &mut Bench) -> Result<()> {
    const BURST: usize = 100;
    let space = || AddressSpace::new(PAGE as u64);
    let contenders = vec![
        ours("one of 100 address spaces", |clock| {
            burst(clock, BURST, space)
        }),
        other("one of 100 memfds", |clock| {
            burst(clock, BURST, || sparse(PAGE))
        }),
    ];
    bench.compare('k', "make and keep", 10, contenders, &[])?;

    let together = |clock: Clock| {
        let mut kept = Vec::with_capacity(2);
        clock.time(|| {
            thread::scope(|scope| {
                let maker = || -> Result<Vec<_>> { (0..BURST).map(|_| Ok(space()?)).collect() };
                let both = [scope.spawn(maker), scope.spawn(maker)];
                for made in both {
                    kept.push(made.join().map_err(|_| anyhow!("a panic"))??);
                }
                Ok(())
            })
        })
    };
    let contenders = vec![
        ours("by two threads", |clock| {
            Ok(together(clock)? / (2 * BURST) as f64)
        }),
        other("by one thread", |clock| burst(clock, 2 * BURST, space)),
    ];
    bench.compare('k', "make and keep 200 address spaces", 10, contenders, &[])
}

/// What it takes to make one of so many, which are kept until all are there.
fn burst<T, E>(clock: Clock, count: usize, make: impl Fn() -> Result<T, E>) -> Result<f64>
where
    anyhow::Error: From<E>,
{
    let mut made = Vec::with_capacity(count);
    let took = clock.time(|| {
        for _ in 0..count {
            made.push(make()?);
        }
        Ok(())
    })?;
    Ok(took / count as f64)
}
