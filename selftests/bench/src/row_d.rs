// SPDX-License-Identifier: GPL-2.0

//! Row d: the steady state, of memory that has been touched: through an attachment and
//! through a plain mapping, from a process and from a guest. (A page table does not change
//! how many instructions there are, so only time means something here.)

use std::fs::File;
use std::hint::black_box;

use address_space::AddressSpace;
use anyhow::{Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::guest::{End, Machine, Program, Vcpu};
use crate::huge::{self, Huge};
use crate::memory::{PAGE, resident, shuffled};
use crate::rounds::{Bench, Goal, other, ours};

const LENGTH: usize = 64 << 20;
/// How much is read and written in order.
const PART: usize = 16 << 20;
/// How many steps from page to page.
const STEPS: usize = 1 << 16;

const OURS: &str = "through an address space";
const PLAIN: &str = "through a plain mapping";
/// 0.98 of the native speed.
const GOAL: &[Goal] = &[Goal {
    of: OURS,
    to: PLAIN,
    at_most: 1.0 / 0.98,
}];

#[derive(Clone, Copy, Debug)]
enum Access {
    Read,
    Write,
    Chase,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Access::Write => "write 16 MiB in order",
            Access::Read => "read 16 MiB in order",
            Access::Chase => "read a page after another, at random",
        }
    }
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let files = [
        ("4 KiB pages", resident(LENGTH)?),
        ("THP", huge::resident(Huge::Thp, LENGTH)?),
        ("hugetlb", huge::resident(Huge::Hugetlb, LENGTH)?),
    ];
    // Writing destroys the chain that a chase follows.
    for access in [Access::Write, Access::Read, Access::Chase] {
        for (kind, file) in &files {
            in_process(bench, kind, file, access)?;
            in_guest(bench, kind, file, access)?;
        }
    }
    Ok(())
}

fn space_of(file: &File) -> Result<AddressSpace> {
    let space = AddressSpace::new(LENGTH as u64)?;
    let map = space.map(file).length(LENGTH as u64);
    map.at(0).prot(READ_WRITE).commit()?;
    Ok(space)
}

fn in_process(bench: &mut Bench, kind: &str, file: &File, access: Access) -> Result<()> {
    let window = space_of(file)?.attach(0..LENGTH as u64, READ_WRITE)?;
    let plain = Plain::of(file, 0, LENGTH)?;
    write_chain(&plain);
    let through = |start: *mut u8| {
        move |clock: Clock| {
            clock.time(|| {
                // SAFETY: The file is mapped in all of it, and there is a chain in it.
                unsafe { make(access, start) };
                Ok(())
            })
        }
    };
    let contenders = vec![
        ours(OURS, through(window.as_ptr())),
        other(PLAIN, through(plain.as_ptr())),
    ];
    let name = format!("{}, {kind}", access.name());
    bench.compare('d', name, 4, contenders, GOAL)
}

fn in_guest(bench: &mut Bench, kind: &str, file: &File, access: Access) -> Result<()> {
    let memory = Plain::of(file, 0, LENGTH)?;
    write_chain(&memory);
    let through = |machine| -> Result<_> {
        let mut vcpu = Vcpu::new(&machine, 0)?;
        Ok(move |clock: Clock| {
            vcpu.load(match access {
                Access::Read => Program::ReadAll(PART),
                Access::Write => Program::WriteAll(PART),
                Access::Chase => Program::Chase(STEPS),
            })?;
            let (took, end) = clock.measure(|| vcpu.run())?;
            ensure!(end == End::Done, "the guest met a hole");
            Ok(took)
        })
    };
    let contenders = vec![
        ours(OURS, through(Machine::with_space(&space_of(file)?)?)?),
        other(PLAIN, through(Machine::with_plain(&memory)?)?),
    ];
    let name = format!("{}, {kind}, in a guest", access.name());
    bench.compare('d', name, 4, contenders, GOAL)
}

/// Writes the offset of the next page to the first word of each, in one circle through all.
fn write_chain(memory: &Plain) {
    let pages = shuffled(LENGTH / PAGE);
    for (index, &page) in pages.iter().enumerate() {
        let next = pages[(index + 1) % pages.len()] as usize * PAGE;
        // SAFETY: Within the mapping.
        unsafe {
            let word = memory.as_ptr().add(page as usize * PAGE).cast::<u64>();
            word.write_volatile(next as u64);
        }
    }
}

/// # Safety
///
/// At `start` there must be `LENGTH` bytes, with a chain in them if one is followed.
unsafe fn make(access: Access, start: *mut u8) {
    let words = start.cast::<u64>();
    let all = 0..PART / size_of::<u64>();
    // SAFETY: By the caller.
    unsafe {
        match access {
            Access::Read => all.for_each(|at| _ = words.add(at).read_volatile()),
            Access::Write => all.for_each(|at| words.add(at).write_volatile(0)),
            Access::Chase => {
                let mut at = 0;
                for _ in 0..STEPS {
                    at = start.add(at).cast::<u64>().read_volatile() as usize;
                }
                black_box(at);
            }
        }
    }
}
