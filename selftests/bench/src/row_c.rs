// SPDX-License-Identifier: GPL-2.0

//! Row c: the first touch of 64 MiB.

use std::fs::File;

use address_space::{AddressSpace, Window};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::huge::{self, Huge};
use crate::memory::{HUGE, PAGE, Touch, in_order, resident, shuffled, touch_pages};
use crate::rounds::{Bench, Goal, other, ours};

const LENGTH: usize = 64 << 20;

const KNOWN: &str = "another process has touched it before";
const RESIDENT: &str = "resident, its frames are not known";
const MISSING: &str = "its arena entry is missing";
const PLAIN: &str = "plain mapping of the memfd";

pub fn run(bench: &mut Bench) -> Result<()> {
    let file = resident(LENGTH)?;
    for (order, pages, goals) in [
        ("in order", in_order(LENGTH / PAGE), [0.5, 0.5, 1.05]),
        ("at random", shuffled(LENGTH / PAGE), [1.3, 1.3, 1.4]),
    ] {
        for touch in [Touch::Read, Touch::Write] {
            let name = format!("first touch of 64 MiB, 4 KiB pages, {touch:?}, {order}");
            small(bench, name, &file, &pages, touch, goals)?;
        }
    }
    drop(file);
    single(bench)?;
    for kind in [Huge::Thp, Huge::Hugetlb] {
        for touch in [Touch::Read, Touch::Write] {
            let pages = in_order(LENGTH / PAGE);
            let file = huge::resident(kind, LENGTH)?;
            let name = format!("first touch of 64 MiB, {kind}, {touch:?}, in order");
            let known = Space::new(&file, true)?;
            let faults_ours = known.faults(&pages, touch)?;
            let faults_plain = plain_faults(&file, &pages, touch)?;
            let contenders = vec![
                ours(KNOWN, |clock| known.touch(clock, &pages, touch)),
                ours(RESIDENT, |clock| {
                    Space::forgotten(&file)?.touch(clock, &pages, touch)
                }),
                other(PLAIN, |clock| plain(clock, &file, &pages, touch)),
            ];
            bench.compare('c', name.as_str(), 5, contenders, &[])?;
            let name = format!("faults of a {name}");
            bench.count(
                'c',
                name,
                "faults",
                (KNOWN, faults_ours),
                (PLAIN, faults_plain),
                Some(1.0),
            );
        }
    }
    Ok(())
}

fn small(
    bench: &mut Bench,
    name: String,
    file: &File,
    pages: &[u32],
    touch: Touch,
    [known_goal, resident_goal, missing_goal]: [f64; 3],
) -> Result<()> {
    let known = Space::new(file, true)?;
    let contenders = vec![
        ours(KNOWN, |clock| known.touch(clock, pages, touch)),
        ours(RESIDENT, |clock| {
            Space::forgotten(file)?.touch(clock, pages, touch)
        }),
        ours(MISSING, |clock| {
            Space::new(file, false)?.touch(clock, pages, touch)
        }),
        other(PLAIN, |clock| plain(clock, file, pages, touch)),
    ];
    let goal = |of, at_most| Goal {
        of,
        to: PLAIN,
        at_most,
    };
    let goals = [
        goal(KNOWN, known_goal),
        goal(RESIDENT, resident_goal),
        goal(MISSING, missing_goal),
    ];
    bench.compare('c', name, 10, contenders, &goals)
}

/// A single touch after a map, far from the one before.
fn single(bench: &mut Bench) -> Result<()> {
    let file = resident(LENGTH)?;
    let space = Space::new(&file, true)?;
    // One page of each 2 MiB, so that each needs its page table too, as after an mmap.
    let pages: Vec<_> = (0..LENGTH / HUGE)
        .map(|index| (index * HUGE / PAGE) as u32)
        .collect();
    let far = "a single touch of each of 32 mappings of 2 MiB";
    let contenders = vec![
        ours(KNOWN, |clock| space.touch(clock, &pages, Touch::Read)),
        ours(RESIDENT, |clock| {
            Space::forgotten(&file)?.touch(clock, &pages, Touch::Read)
        }),
        other(PLAIN, |clock| plain(clock, &file, &pages, Touch::Read)),
    ];
    let goals = [KNOWN, RESIDENT].map(|of| Goal {
        of,
        to: PLAIN,
        at_most: 1.3,
    });
    bench.compare('c', far, 2, contenders, &goals)
}

/// An address space that shows a file.
struct Space {
    space: AddressSpace,
    window: Window,
}

impl Space {
    /// `populated`: the space has the frames of the file's pages.
    fn new(file: &File, populated: bool) -> Result<Space> {
        let space = AddressSpace::new(LENGTH as u64)?;
        let mut register = space.register(file).prot(READ_WRITE);
        if populated {
            register = register.populate();
        }
        register.commit()?;
        Self::show(space, file)
    }

    /// A space whose arena has the file's pages, but which has no frames of them any more:
    /// the frames of a segment that is neither shown nor registered are dropped at once.
    fn forgotten(file: &File) -> Result<Space> {
        let space = AddressSpace::new(LENGTH as u64)?;
        let map = space.map(file).at(0).length(LENGTH as u64);
        map.prot(READ_WRITE).populate().commit()?;
        space.unmap(0..LENGTH as u64)?;
        Self::show(space, file)
    }

    fn show(space: AddressSpace, file: &File) -> Result<Space> {
        let map = space.map(file).at(0).length(LENGTH as u64);
        map.prot(READ_WRITE).commit()?;
        let window = space.attach(0..LENGTH as u64, READ_WRITE)?;
        Ok(Space { space, window })
    }

    /// Touches pages in a new attachment.
    fn touch(&self, clock: Clock, pages: &[u32], touch: Touch) -> Result<f64> {
        let window = self.space.attach(0..LENGTH as u64, READ_WRITE)?;
        // SAFETY: The file is mapped in all of it.
        let took = clock.time(|| unsafe {
            touch_pages(window.as_ptr(), pages, touch);
            Ok(())
        })?;
        Ok(took / pages.len() as f64)
    }

    fn faults(&self, pages: &[u32], touch: Touch) -> Result<f64> {
        // SAFETY: The file is mapped in all of it.
        faults_of(|| unsafe { touch_pages(self.window.as_ptr(), pages, touch) })
    }
}

fn plain(clock: Clock, file: &File, pages: &[u32], touch: Touch) -> Result<f64> {
    let mapping = Plain::of(file, 0, LENGTH)?;
    // SAFETY: The file is mapped in all of it.
    let took = clock.time(|| unsafe {
        touch_pages(mapping.as_ptr(), pages, touch);
        Ok(())
    })?;
    Ok(took / pages.len() as f64)
}

fn plain_faults(file: &File, pages: &[u32], touch: Touch) -> Result<f64> {
    let mapping = Plain::of(file, 0, LENGTH)?;
    // SAFETY: The file is mapped in all of it.
    faults_of(|| unsafe { touch_pages(mapping.as_ptr(), pages, touch) })
}

/// How many page faults the process has during `work`.
fn faults_of(work: impl FnOnce()) -> Result<f64> {
    let before = page_faults()?;
    work();
    Ok((page_faults()? - before) as f64)
}

fn page_faults() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, which comes second, may have blanks in it.
    let (_, rest) = stat.rsplit_once(") ").context("/proc/self/stat")?;
    let mut words = rest.split(' ').skip(7);
    let minor: u64 = words.next().context("minflt")?.parse()?;
    let major: u64 = words.nth(1).context("majflt")?.parse()?;
    Ok(minor + major)
}
