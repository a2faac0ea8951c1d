// SPDX-License-Identifier: GPL-2.0

//! Row i: memory of another process that has lent it, against what there is to reach another
//! process's memory otherwise: process_vm_readv(), ptrace(), and memory that both share from
//! the start.

use std::io;

use address_space::{AddressSpace, Window};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::lender::{CYCLE, LENGTH, Lender};
use crate::memory::{PAGE, Touch, in_order, resident, shuffled, sparse, touch_pages};
use crate::rounds::{Bench, Goal, other, ours};

/// How many words are read in a sample, each on a page of its own.
const WORDS: usize = 1000;
/// How much is copied at once.
const COPY: usize = 1 << 20;

const LENT: &str = "lent memory";
const MEMFD: &str = "a memfd that both map";
const READV: &str = "process_vm_readv()";
const PEEK: &str = "ptrace(PTRACE_PEEKDATA), the process stopped";
const ALONE: &str = "memory that is not lent";

pub fn run(bench: &mut Bench) -> Result<()> {
    let lender = Lender::start()?;
    first_touch(bench, &lender)?;
    what_the_lender_has_not(bench, &lender)?;
    words(bench, &lender)?;
    copy(bench, &lender)?;
    cost_to_the_lender(bench, &lender)
}

fn goal(to: &'static str, at_most: f64) -> Goal {
    Goal {
        of: LENT,
        to,
        at_most,
    }
}

/// A new attachment of what was lent, of whose frames nothing is known.
fn attach(lender: &Lender) -> Result<Window> {
    let space = AddressSpace::new(LENGTH as u64)?;
    space.map(&lender.lend).at(0).prot(READ_WRITE).commit()?;
    Ok(space.attach(0..LENGTH as u64, READ_WRITE)?)
}

/// Touches pages; what a page takes.
///
/// # Safety
///
/// As for [`touch_pages()`].
unsafe fn touch(start: *mut u8, clock: Clock, pages: &[u32], how: Touch) -> Result<f64> {
    let took = clock.time(|| {
        // SAFETY: The caller guarantees it.
        unsafe { touch_pages(start, pages, how) };
        Ok(())
    })?;
    Ok(took / pages.len() as f64)
}

fn first_touch(bench: &mut Bench, lender: &Lender) -> Result<()> {
    let file = resident(LENGTH)?;
    for (order, pages) in [
        ("in order", in_order(LENGTH / PAGE)),
        ("at random", shuffled(LENGTH / PAGE)),
    ] {
        for how in [Touch::Read, Touch::Write] {
            let contenders = vec![
                ours(LENT, |clock| {
                    let window = attach(lender)?;
                    // SAFETY: All of it is lent for writing.
                    unsafe { touch(window.as_ptr(), clock, &pages, how) }
                }),
                other(MEMFD, |clock| {
                    let mapping = Plain::of(&file, 0, LENGTH)?;
                    // SAFETY: The file is mapped in all of it.
                    unsafe { touch(mapping.as_ptr(), clock, &pages, how) }
                }),
            ];
            let name = format!("first touch of 16 MiB that the lender has, {how:?}, {order}");
            bench.compare('i', name, 4, contenders, &[goal(MEMFD, 1.0)])?;
        }
    }
    Ok(())
}

fn what_the_lender_has_not(bench: &mut Bench, lender: &Lender) -> Result<()> {
    let pages = in_order(LENGTH / PAGE);
    let contenders = vec![
        ours(LENT, |clock| {
            lender.drop_all()?;
            let window = attach(lender)?;
            // SAFETY: All of it is lent for writing.
            unsafe { touch(window.as_ptr(), clock, &pages, Touch::Write) }
        }),
        other(MEMFD, |clock| {
            let mapping = Plain::of(sparse(LENGTH)?, 0, LENGTH)?;
            // SAFETY: The file is mapped in all of it.
            unsafe { touch(mapping.as_ptr(), clock, &pages, Touch::Write) }
        }),
    ];
    let name = "first touch of 16 MiB that nobody has touched";
    bench.compare('i', name, 8, contenders, &[goal(MEMFD, 1.0)])?;
    lender.touch_all()
}

fn words(bench: &mut Bench, lender: &Lender) -> Result<()> {
    let pages = &shuffled(LENGTH / PAGE)[..WORDS];
    let window = attach(lender)?;
    let mapping = Plain::of(resident(LENGTH)?, 0, LENGTH)?;
    let word = |page: u32| lender.address + page as usize * PAGE;
    for start in [window.as_ptr(), mapping.as_ptr()] {
        // SAFETY: There is memory at each page of both.
        unsafe { touch_pages(start, pages, Touch::Read) };
    }
    let contenders = vec![
        ours(LENT, |clock| {
            // SAFETY: All of it is lent.
            unsafe { touch(window.as_ptr(), clock, pages, Touch::Read) }
        }),
        other(MEMFD, |clock| {
            // SAFETY: The file is mapped in all of it.
            unsafe { touch(mapping.as_ptr(), clock, pages, Touch::Read) }
        }),
        other(READV, |clock| {
            let mut bytes = [0; 8];
            let took = clock.time(|| {
                for &page in pages {
                    read_of(lender.pid, word(page), &mut bytes)?;
                }
                Ok(())
            })?;
            Ok(took / WORDS as f64)
        }),
        other(PEEK, |clock| {
            let stopped = Stopped::new(lender.pid)?;
            let took = clock.time(|| {
                for &page in pages {
                    stopped.peek(word(page))?;
                }
                Ok(())
            })?;
            Ok(took / WORDS as f64)
        }),
    ];
    let goals = [goal(MEMFD, 1.05), goal(READV, 0.1)];
    bench.compare('i', "a word that was read before", 4, contenders, &goals)
}

fn copy(bench: &mut Bench, lender: &Lender) -> Result<()> {
    let window = attach(lender)?;
    let mapping = Plain::of(resident(LENGTH)?, 0, LENGTH)?;
    let mut bytes = vec![0_u8; COPY];
    let into = bytes.as_mut_ptr();
    let copy = |from: *const u8, clock: Clock| {
        clock.time(|| {
            // SAFETY: Both are as long, and do not overlap; the bytes may be any.
            unsafe { from.copy_to_nonoverlapping(into, COPY) };
            Ok(())
        })
    };
    // What is measured is a copy, and not first touches.
    for start in [window.as_ptr(), mapping.as_ptr()] {
        copy(start, Clock::Time)?;
    }
    let contenders = vec![
        ours(LENT, |clock| copy(window.as_ptr(), clock)),
        other(MEMFD, |clock| copy(mapping.as_ptr(), clock)),
        other(READV, |clock| {
            // SAFETY: The vector outlives the slice, and nothing else uses it meanwhile.
            let bytes = unsafe { std::slice::from_raw_parts_mut(into, COPY) };
            clock.time(|| read_of(lender.pid, lender.address, bytes))
        }),
    ];
    let goals = [goal(MEMFD, 1.05)];
    bench.compare('i', "a copy of 1 MiB, read before", 4, contenders, &goals)
}

fn cost_to_the_lender(bench: &mut Bench, lender: &Lender) -> Result<()> {
    let window = attach(lender)?;
    let pages = in_order(CYCLE);
    let contenders = vec![
        ours(LENT, |clock| {
            // SAFETY: All of it is lent for writing.
            unsafe { touch_pages(window.as_ptr(), &pages, Touch::Write) };
            lender.cycle(clock, true)
        }),
        other(ALONE, |clock| lender.cycle(clock, false)),
    ];
    let name = format!("the lender drops {CYCLE} pages that are shown, and touches them");
    bench.compare('i', name, 1, contenders, &[goal(ALONE, 1.06)])
}

/// Copies from another process's memory.
fn read_of(pid: i32, address: usize, bytes: &mut [u8]) -> Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(address),
        iov_len: bytes.len(),
    };
    // SAFETY: The kernel writes to `bytes` alone.
    let read = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    ensure!(
        read == bytes.len() as isize,
        "process_vm_readv: {read}, {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// A process that this one traces, and has stopped.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Result<Stopped> {
        // SAFETY: It concerns the other process, which only waits for messages.
        let stopped = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) == 0
                && libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) == pid
        };
        if !stopped {
            return Err(io::Error::last_os_error()).context("ptrace");
        }
        Ok(Stopped(pid))
    }

    fn peek(&self, address: usize) -> Result<i64> {
        let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(address);
        // SAFETY: It reads the other process's memory, and returns it.
        let word = unsafe {
            *libc::__errno_location() = 0;
            libc::ptrace(libc::PTRACE_PEEKDATA, self.0, address, 0)
        };
        let error = io::Error::last_os_error();
        ensure!(
            word != -1 || error.raw_os_error() == Some(0),
            "ptrace: {error}"
        );
        Ok(word)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: As above; it fails where the process has ended.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}
