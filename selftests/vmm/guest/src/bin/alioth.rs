// SPDX-License-Identifier: GPL-2.0

//! The guest's program under alioth: it mounts the host's directory, and does what it finds
//! asked in a file there, until the machine is to be turned off.

use std::fs::{self, OpenOptions};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::thread::sched_yield;
use vmm_guest::dax::{CHUNK, GUEST, HOST, LARGE, REPLY, REPLY_AT, chunks};
use vmm_guest::desk::{DESK, DONE, FAILED, JOB, Job, LONGEST_WHY, NUMBER, RESULT, WHY, WHY_LENGTH};
use vmm_guest::mapping::{Mapping, Stores};
use vmm_guest::pattern::pattern;
use vmm_guest::ports::say;
use vmm_guest::share::{expect, mapped, mount_share, path, same};

fn main() {
    for (what, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = mount(what, at, what, MountFlags::empty(), None);
    }
    if let Err(error) = run() {
        say(&format!("guest: {error:#}"));
    }
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> Result<()> {
    mount_share()?;
    let desk = mapped(DESK, Stores::Shared)?;
    let mut guest = Guest::default();
    let mut number = 0;
    loop {
        while desk.word(NUMBER)?.load(Acquire) == number {
            sched_yield();
        }
        number = desk.word(NUMBER)?.load(Acquire);
        let job = Job::of(desk.word(JOB)?.load(Relaxed)).context("no such job")?;
        let result = guest.does(job).or_else(|error| {
            let why = format!("{error:#}");
            let why = &why.as_bytes()[..why.len().min(LONGEST_WHY)];
            desk.put(WHY, why)?;
            desk.word(WHY_LENGTH)?.store(why.len() as u64, Relaxed);
            anyhow::Ok(FAILED)
        })?;
        desk.word(RESULT)?.store(result, Relaxed);
        desk.word(DONE)?.store(number, Release);
        if job == Job::End {
            return Ok(());
        }
    }
}

/// What is kept from job to job.
#[derive(Default)]
struct Guest {
    stored: Option<Mapping>,
}

impl Guest {
    fn does(&mut self, job: Job) -> Result<u64> {
        match job {
            Job::Answer | Job::End => Ok(0),
            Job::Read => read(),
            Job::Store => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true);
                let file = options.open(path(GUEST.name)).context("create")?;
                file.set_len(GUEST.length as u64)?;
                let mapping = mapped(GUEST, Stores::Shared)?;
                mapping.put(0, &pattern(GUEST.file, 0, GUEST.length))?;
                self.stored = Some(mapping);
                Ok(0)
            }
            Job::FindReply => {
                let mapping = self.stored.as_ref().context("nothing was stored")?;
                let is = mapping.bytes(REPLY_AT..REPLY_AT + REPLY.length)?;
                let should = pattern(REPLY.file, 0, REPLY.length);
                same("reply", REPLY_AT, &is, &should)?;
                expect(GUEST, mapping, 0..REPLY_AT)?;
                Ok(0)
            }
            Job::ReadLarge => read_large(),
        }
    }
}

fn read() -> Result<u64> {
    let bytes = fs::read(path(HOST.name))?;
    let should = pattern(HOST.file, 0, HOST.length);
    same("read of host", 0, &bytes, &should)?;
    for stores in [Stores::None, Stores::Private] {
        expect(HOST, &mapped(HOST, stores)?, 0..HOST.length)?;
    }
    Ok(0)
}

fn read_large() -> Result<u64> {
    let mapping = mapped(LARGE, Stores::None)?;
    let mut count = 0;
    for start in chunks() {
        expect(LARGE, &mapping, start..start + CHUNK)?;
        count += 1;
    }
    Ok(count)
}
