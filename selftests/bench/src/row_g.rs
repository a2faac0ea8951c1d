// SPDX-License-Identifier: GPL-2.0

//! Row g: bytes of kernel memory, from what a memory cgroup is charged when there are many
//! more of something: the creator of a space is charged. Memory that is charged to no cgroup
//! is not counted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, Window};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;

use crate::huge::{self, Huge};
use crate::memory::{HUGE, PAGE, Touch, in_order, resident, sparse, touch_pages};
use crate::rounds::Bench;

const CGROUP: &str = "/sys/fs/cgroup/address-space-bench";

const SPACES: usize = 500;
const SEGMENTS: usize = 800;
const MAPPINGS: usize = 500_000;
const CHUNK: usize = 1 << 15;
const LENGTH: usize = 256 << 20;
const REGISTERED: usize = 64 << 30;
const SPARSE: usize = 64 << 30;
/// How often the huge pages are attached: the charge is in pages of 4 KiB, which is too
/// coarse for the few huge pages that fit into memory.
const ATTACHMENTS: usize = 16;

pub fn run(bench: &mut Bench) -> Result<()> {
    enter_cgroup()?;
    let mut add = |name: &str, per: usize, goal: Option<f64>, used: Used| {
        bench.bytes('g', name, used.beyond_tables / per as f64, goal);
        bench.bytes(
            'g',
            format!("{name}, page tables"),
            used.tables / per as f64,
            None,
        );
    };
    add("per space", SPACES, None, spaces()?);
    add("per segment", SEGMENTS, None, segments()?);
    add("per mapping", MAPPINGS, Some(256.0), mappings()?);
    add(
        "per 2 MiB of a registered file",
        REGISTERED / HUGE,
        Some(8.0),
        registered()?,
    );
    let file = resident(LENGTH)?;
    add(
        "per attached page",
        (LENGTH - HUGE) / PAGE,
        Some(8.0),
        attached(&file, LENGTH, PAGE, 1)?,
    );
    drop(file);
    let file = resident_here_and_there()?;
    add(
        "per page of a file with one in each 2 MiB, attached",
        SPARSE / HUGE - 1,
        Some(16.0),
        attached(&file, SPARSE, HUGE, 1)?,
    );
    drop(file);
    let file = huge::resident(Huge::Thp, LENGTH)?;
    add(
        "per attached huge page",
        (LENGTH / HUGE - 1) * ATTACHMENTS,
        Some(8.0),
        attached(&file, LENGTH, HUGE, ATTACHMENTS)?,
    );
    Ok(())
}

/// Memory that is in use more than before.
struct Used {
    beyond_tables: f64,
    tables: f64,
}

/// What is in use more after `work`, while its result exists.
fn used<T>(work: impl FnOnce() -> Result<T>) -> Result<Used> {
    let before = Charged::read()?;
    let kept = work()?;
    let after = Charged::read()?;
    drop(kept);
    let tables = after.tables - before.tables;
    Ok(Used {
        beyond_tables: after.kernel - before.kernel - tables,
        tables,
    })
}

/// What the bench's own memory cgroup is charged for.
struct Charged {
    kernel: f64,
    tables: f64,
}

impl Charged {
    fn read() -> Result<Charged> {
        let text = std::fs::read_to_string(format!("{CGROUP}/memory.stat"))?;
        let bytes = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.with_context(|| format!("no {name}in memory.stat"))?;
            Ok(value.parse()?)
        };
        Ok(Charged {
            kernel: bytes("kernel ")?,
            tables: bytes("pagetables ")?,
        })
    }
}

/// Puts this process into a memory cgroup of its own.
fn enter_cgroup() -> Result<()> {
    // It may exist already, with memory counted.
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
    let _ = std::fs::create_dir(CGROUP);
    std::fs::write(format!("{CGROUP}/cgroup.procs"), "0").context("cannot enter a memory cgroup")
}

fn spaces() -> Result<Used> {
    let make = |_| Ok(AddressSpace::new(HUGE as u64)?);
    // The first takes what all share.
    (0..SPACES / 10).try_for_each(|at| make(at).map(drop))?;
    used(|| (0..SPACES).map(make).collect::<Result<Vec<_>>>())
}

fn segments() -> Result<Used> {
    let space = AddressSpace::new(HUGE as u64)?;
    let files = (0..SEGMENTS)
        .map(|_| sparse(PAGE))
        .collect::<Result<Vec<_>>>()?;
    used(|| {
        let mut files = files.iter();
        Ok(files.try_for_each(|file| space.register(file).prot(READ_WRITE).commit())?)
    })
}

fn mappings() -> Result<Used> {
    let file = sparse(MAPPINGS * PAGE)?;
    let space = AddressSpace::new((2 * MAPPINGS * PAGE) as u64)?;
    space.register(&file).prot(READ_WRITE).commit()?;
    used(|| {
        for first in (0..MAPPINGS).step_by(CHUNK) {
            let mut batch = space.batch();
            for index in first..MAPPINGS.min(first + CHUNK) {
                let (at, offset) = (2 * index * PAGE, (MAPPINGS - 1 - index) * PAGE);
                let range = at as u64..(at + PAGE) as u64;
                batch = batch.map(&file, offset as u64, range, READ_WRITE);
            }
            batch.commit()?;
        }
        Ok(())
    })
}

/// What a registered file costs for each huge page before any of its frames is known.
fn registered() -> Result<Used> {
    let space = AddressSpace::new(HUGE as u64)?;
    let file = sparse(REGISTERED)?;
    let register = |file| Ok(space.register(file).prot(READ_WRITE).commit()?);
    let of_all = used(|| register(&file))?;
    let small = sparse(PAGE)?;
    let of_segment = used(|| register(&small))?;
    Ok(Used {
        beyond_tables: of_all.beyond_tables - of_segment.beyond_tables,
        ..of_all
    })
}

/// A file that has a page in each 2 MiB.
fn resident_here_and_there() -> Result<File> {
    let file = sparse(SPARSE)?;
    for at in (0..SPARSE).step_by(HUGE) {
        file.write_all_at(b"x", at as u64)?;
    }
    Ok(file)
}

/// Of a file that was shown and not touched, each page of `size` but those of the first 2 MiB,
/// which also allocate what there is once.
fn attached(file: &File, length: usize, size: usize, attachments: usize) -> Result<Used> {
    let space = AddressSpace::new(length as u64)?;
    let map = space.map(file).length(length as u64);
    map.at(0).prot(READ_WRITE).commit()?;
    let attach = |_| Ok(space.attach(0..length as u64, READ_WRITE)?);
    let windows: Vec<Window> = (0..attachments).map(attach).collect::<Result<_>>()?;
    let pages: Vec<_> = in_order(length / size)
        .iter()
        .map(|page| page * (size / PAGE) as u32)
        .collect();
    let (first, others) = pages.split_at(HUGE / size);
    let touch = |pages| {
        for window in &windows {
            // SAFETY: The file is mapped in all of it.
            unsafe { touch_pages(window.as_ptr(), pages, Touch::Read) };
        }
        Ok(())
    };
    touch(first)?;
    used(|| touch(others))
}
