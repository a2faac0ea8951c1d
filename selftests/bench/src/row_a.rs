// SPDX-License-Identifier: GPL-2.0

//! Row a: change an attachment of 2 MiB, that is map, touch and unmap.

use std::fs::File;
use std::sync::LazyLock;

use address_space::{AddressSpace, Window};
use anyhow::Result;
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::clock::Clock;
use crate::memory::{HUGE, PAGE, Touch, in_order, resident, sparse, touch_pages};
use crate::peer::Peer;
use crate::rounds::{Bench, Goal, other, ours};

/// One page, or all pages of the attachment.
const ONE: &[u32] = &[0];
static ALL: LazyLock<Vec<u32>> = LazyLock::new(|| in_order(HUGE / PAGE));

/// How often in one sample.
const TIMES: usize = 16;

pub fn run(bench: &mut Bench) -> Result<()> {
    let attached = Attached::new()?;
    let peer = Peer::start()?;
    let known = resident(HUGE)?;
    let registered = resident(HUGE)?;
    attached
        .space
        .register(&registered)
        .prot(READ_WRITE)
        .commit()?;

    let own = "mmap, munmap in the own process";
    let socket = "fd over a socket, mapped there, acked";
    let goal = |of, to, at_most| Goal { of, to, at_most };
    let contenders = vec![
        ours("registered file", |clock| {
            attached.change(clock, &registered, ONE)
        }),
        ours("file seen before", |clock| {
            attached.change(clock, &known, ONE)
        }),
        other(own, |clock| plain(clock, &known, ONE)),
        other(socket, |clock| messages(clock, &peer, &known)),
    ];
    bench.compare(
        'a',
        "map 2 MiB, touch a word, unmap",
        1,
        contenders,
        &[
            goal("registered file", own, 0.25),
            goal("registered file", socket, 1.0 / 30.0),
        ],
    )?;

    let contenders = vec![
        ours("registered file", |clock| {
            attached.change(clock, &registered, &ALL)
        }),
        ours("file seen before", |clock| {
            attached.change(clock, &known, &ALL)
        }),
        other(own, |clock| plain(clock, &known, &ALL)),
    ];
    bench.compare('a', "map 2 MiB, read each page, unmap", 1, contenders, &[])?;

    let contenders = vec![
        ours("file never seen", |clock| {
            average(clock, |clock| {
                let file = new_file()?;
                clock.time(|| attached.once(&file, ONE))
            })
        }),
        other(own, |clock| {
            average(clock, |clock| {
                let file = new_file()?;
                clock.time(|| plain_once(&file, ONE))
            })
        }),
        other(socket, |clock| {
            average(clock, |clock| {
                let file = new_file()?;
                clock.time(|| messages_once(&peer, &file))
            })
        }),
    ];
    bench.compare(
        'a',
        "the same with a new file each time",
        1,
        contenders,
        &[goal("file never seen", socket, 1.0)],
    )
}

/// A new file, with its first page in memory.
fn new_file() -> Result<File> {
    let file = sparse(HUGE)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; PAGE], 0)?;
    Ok(file)
}

/// The average of some samples.
fn average(clock: Clock, mut sample: impl FnMut(Clock) -> Result<f64>) -> Result<f64> {
    let mut sum = 0.0;
    for _ in 0..TIMES {
        sum += sample(clock)?;
    }
    Ok(sum / TIMES as f64)
}

/// An address space of 2 MiB, attached.
struct Attached {
    space: AddressSpace,
    window: Window,
}

impl Attached {
    fn new() -> Result<Attached> {
        let space = AddressSpace::new(HUGE as u64)?;
        let window = space.attach(0..HUGE as u64, READ_WRITE)?;
        Ok(Attached { space, window })
    }

    fn once(&self, file: &File, pages: &[u32]) -> Result<()> {
        self.space
            .map(file)
            .at(0)
            .length(HUGE as u64)
            .prot(READ_WRITE)
            .commit()?;
        // SAFETY: It was just mapped.
        unsafe { touch_pages(self.window.as_ptr(), pages, Touch::Read) };
        self.space.unmap(0..HUGE as u64)?;
        Ok(())
    }

    fn change(&self, clock: Clock, file: &File, pages: &[u32]) -> Result<f64> {
        // To warm up, since other contenders were measured meanwhile.
        self.once(file, pages)?;
        let took = clock.time(|| (0..TIMES).try_for_each(|_| self.once(file, pages)))?;
        Ok(took / TIMES as f64)
    }
}

fn plain_once(file: &File, pages: &[u32]) -> Result<()> {
    let mapping = Plain::of(file, 0, HUGE)?;
    // SAFETY: It was just mapped.
    unsafe { touch_pages(mapping.as_ptr(), pages, Touch::Read) };
    Ok(())
}

fn plain(clock: Clock, file: &File, pages: &[u32]) -> Result<f64> {
    plain_once(file, pages)?;
    let took = clock.time(|| (0..TIMES).try_for_each(|_| plain_once(file, pages)))?;
    Ok(took / TIMES as f64)
}

fn messages_once(peer: &Peer, file: &File) -> Result<()> {
    peer.map_and_touch(file, HUGE)?;
    peer.done()?;
    peer.unmap(HUGE)?;
    peer.done()
}

fn messages(clock: Clock, peer: &Peer, file: &File) -> Result<f64> {
    messages_once(peer, file)?;
    let took = clock.time(|| (0..TIMES).try_for_each(|_| messages_once(peer, file)))?;
    Ok(took / TIMES as f64)
}
