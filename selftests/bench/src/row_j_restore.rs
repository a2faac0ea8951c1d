// SPDX-License-Identifier: GPL-2.0

//! Row j: a guest is restored from compressed memory, of which it touches little or all.

use anyhow::Result;
use lz4_flex::block::{compress, decompress_into};

use crate::clock::Clock;
use crate::guest::{Machine, Vcpu};
use crate::memory::{PAGE, Random, Touch, shuffled};
use crate::on_demand::{Mapping, Provider, Space, with_manager};
use crate::rounds::{Bench, Goal, other, ours};
use crate::row_c_guest::run_list;
use crate::row_j::vcpu;
use crate::uffd::Mode;

const LENGTH: usize = 16 << 20;
/// What comes at a time.
const CHUNK: usize = 64 << 10;

const SPACE: &str = "address space: lazily, 64 KiB at a time";
const CONTINUE: &str = "userfaultfd: write to the file, CONTINUE 64 KiB";
const COPY: &str = "userfaultfd: COPY 64 KiB";
const EAGER: &str = "all of it first, in a plain memory slot";

pub fn run(bench: &mut Bench) -> Result<()> {
    let image = Image::new();
    for (pages, what) in [
        (1, "until it has touched a page"),
        (
            LENGTH / PAGE,
            "until it has touched all of 16 MiB, at random",
        ),
    ] {
        let name = format!("restore of a guest from compressed memory, {what}");
        let mut list = shuffled(LENGTH / PAGE);
        list.truncate(pages);
        let (image, list) = (&image, &list[..]);

        let space = Space::new(LENGTH, true)?;
        let mut guest = vcpu(Machine::with_space(&space.space)?, list)?;
        let mut contenders = vec![ours(SPACE, move |clock| {
            space.reset()?;
            clock.time(|| image.restore(&space.watch()?, &mut guest, list))
        })];
        for (name, mode) in [(CONTINUE, Mode::Continue), (COPY, Mode::Copy)] {
            let mapping = Mapping::new(LENGTH, true, mode)?;
            mapping.reset()?;
            let mut guest = vcpu(Machine::with_plain(&mapping.memory)?, list)?;
            contenders.push(other(name, move |clock| {
                mapping.reset()?;
                clock.time(|| image.restore(&mapping.register()?, &mut guest, list))
            }));
        }
        let mapping = Mapping::new(LENGTH, true, Mode::Copy)?;
        mapping.reset()?;
        let mut guest = vcpu(Machine::with_plain(&mapping.memory)?, list)?;
        contenders.push(other(EAGER, move |clock| {
            mapping.reset()?;
            clock.time(|| {
                image.restore_all(&mapping)?;
                touch(&mut guest, list)
            })
        }));
        let goals = [CONTINUE, COPY].map(|to| Goal {
            of: SPACE,
            to,
            at_most: 1.0,
        });
        bench.compare('j', name, 10, contenders, &goals)?;
    }
    Ok(())
}

/// Compressed memory, in pieces.
struct Image(Vec<Vec<u8>>);

impl Image {
    /// One that is worth compressing: half of each page is random.
    fn new() -> Image {
        let mut random = Random::new();
        let mut chunk = || {
            let mut bytes = vec![0; CHUNK];
            for (at, byte) in bytes.iter_mut().enumerate() {
                if at % PAGE < PAGE / 2 {
                    *byte = random.below(256) as u8;
                }
            }
            compress(&bytes)
        };
        Image((0..LENGTH / CHUNK).map(|_| chunk()).collect())
    }

    /// Lets a guest go through a list, with a manager that provides what it touches.
    fn restore(&self, provider: &impl Provider, guest: &mut Vcpu, list: &[u32]) -> Result<()> {
        let mut wanted = vec![false; self.0.len()];
        for &page in list {
            wanted[page as usize * PAGE / CHUNK] = true;
        }
        let mut left = wanted.iter().filter(|wanted| **wanted).count();
        let mut bytes = vec![0; CHUNK];
        let provide = |at: usize| {
            let index = at / CHUNK;
            if std::mem::take(&mut wanted[index]) {
                decompress_into(&self.0[index], &mut bytes)?;
                provider.fill(index * CHUNK, &bytes)?;
                left -= 1;
            }
            Ok(left > 0)
        };
        with_manager(provider, provide, || touch(guest, list))
    }

    /// Writes all of it to a mapping's memory.
    fn restore_all(&self, mapping: &Mapping) -> Result<()> {
        for (index, chunk) in self.0.iter().enumerate() {
            let mut bytes = vec![0; CHUNK];
            decompress_into(chunk, &mut bytes)?;
            mapping.write(index * CHUNK, &bytes)?;
        }
        Ok(())
    }
}

fn touch(guest: &mut Vcpu, list: &[u32]) -> Result<()> {
    run_list(guest, Clock::Time, list, Touch::Write).map(drop)
}
