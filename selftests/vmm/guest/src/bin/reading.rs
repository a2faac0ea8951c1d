// SPDX-License-Identifier: GPL-2.0

//! The guest's program for the bench: it mounts one directory by three file systems, and
//! reads a file in it as it is told, until the machine ends.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};
use rustix::mount::{MountFlags, mount};
use vmm_guest::ports::{Vmm, init};
use vmm_guest::reading::{Call, FILE, Job, LENGTH, Mount, PAGE, job};

fn main() {
    init(run, Call::Failed);
}

fn run(vmm: &Vmm) -> Result<()> {
    let files = [
        open(Mount::Server)?,
        open(Mount::Vmm)?,
        open(Mount::NoWindow)?,
    ];
    loop {
        let (mount, job) = job(vmm.fetch(Call::Next, [0, 0])?)?;
        let file = &files[mount as usize];
        let pages = LENGTH / PAGE;
        match job {
            Job::InOrder { first, count } => {
                let first = u64::from(first);
                (first..first + u64::from(count)).try_for_each(|page| read(file, page % pages))
            }
            Job::AtRandom { seed, count } => {
                let mut random = Random::new(seed);
                (0..count).try_for_each(|_| read(file, random.below(pages)))
            }
            Job::Forget => Ok(fadvise(file, 0, None, Advice::DontNeed)?),
        }
        .with_context(|| format!("{mount:?}, {job:?}"))?;
    }
}

/// Mounts the directory, and opens the file.
fn open(from: Mount) -> Result<File> {
    let at = PathBuf::from("/mnt").join(from.tag());
    fs::create_dir(&at)?;
    let options = match from {
        Mount::Server | Mount::Vmm => c"dax=always",
        Mount::NoWindow => c"dax=never",
    };
    mount(from.tag(), &at, "virtiofs", MountFlags::empty(), options).context(from.tag())?;
    let file = File::open(at.join(FILE)).context(from.tag())?;
    let length = file.metadata()?.len();
    ensure!(length == LENGTH, "the file has {length} bytes");
    Ok(file)
}

fn read(file: &File, page: u64) -> Result<()> {
    let mut bytes = [0; PAGE as usize];
    file.read_exact_at(&mut bytes, page * PAGE)?;
    let first = u64::from_le_bytes(bytes[..8].try_into()?);
    ensure!(first == page, "page {page} is {first}");
    Ok(())
}

/// Numbers that the kernel cannot predict.
struct Random(u64);

impl Random {
    fn new(seed: u32) -> Random {
        Random(0x9e37_79b9_7f4a_7c15 ^ (u64::from(seed) << 16))
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64, which is good enough for that.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
