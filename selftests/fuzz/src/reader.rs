// SPDX-License-Identifier: GPL-2.0

//! The readers that race with the owner: a thread, other processes, and a guest read the
//! pages of a space, write to some, and report what they should not have seen. What the
//! owner does is in `race.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use anyhow::{Context as _, Result};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Pages of the three parts of the space.
pub const TAKEN: std::ops::Range<u64> = 0..16;
pub const SWITCHED: std::ops::Range<u64> = 16..24;
pub const CHANGED: std::ops::Range<u64> = 24..32;
pub const PAGES: u64 = 32;

/// Set in the word of a page that is revoked.
pub const REVOKED: u64 = 1 << 63;

/// The readers.
pub const READERS: [&str; 9] = [
    "a thread",
    "a child",
    "a child with a view",
    "a guest",
    "a child that absorbs",
    "a child that waits",
    "a thread that waits",
    "a guest that waits",
    "children that are killed",
];
/// Those that wait at holes.
pub const WAITING: std::ops::Range<usize> = 5..8;

/// What owner and readers share, in all of their processes.
#[derive(Default)]
pub struct Control {
    pub stop: AtomicBool,
    /// For each page whose file is changed: older values are gone.
    pub floors: [AtomicU64; (CHANGED.end - CHANGED.start) as usize],
    pub rounds: [AtomicU64; READERS.len()],
    /// How often a guest met a hole that was none.
    pub spurious: AtomicU64,
    /// How many waits the owner was told of.
    pub told: AtomicU64,
    /// For those that may wait: the number of the access, and in the lower 16 bits the page, from
    /// 1 on, while it is made.
    pub at: [AtomicU64; READERS.len()],
    /// The first failure: what failed, the reader and the page, and two values.
    failed: AtomicU64,
    details: [AtomicU64; 4],
}

/// What can go wrong.
const WRONG: [&str; 6] = [
    "",
    "read a page after it was revoked",
    "met a hole where there never is one",
    "read what was before a batch after what came with it",
    "read what was in a file before it was punched or truncated",
    "are not ended by SIGKILL",
];

impl Control {
    /// A new one, in memory that children share.
    pub fn new() -> Result<&'static Control> {
        // SAFETY: The mapping is new, aligned to a page and zeroed, which is a valid
        // `Control`, as it consists of atomics; it is never unmapped.
        unsafe {
            let start = mmap_anonymous(
                std::ptr::null_mut(),
                size_of::<Control>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
            .context("mmap")?;
            Ok(&*start.cast::<Control>())
        }
    }

    pub fn fail(&self, what: usize, reader: usize, page: u64, values: [u64; 2]) {
        if self.details[3].swap(1, SeqCst) == 0 {
            let place = ((reader as u64) << 32) | page;
            for (detail, value) in self.details.iter().zip([place, values[0], values[1]]) {
                detail.store(value, SeqCst);
            }
            self.failed.store(what as u64, SeqCst);
        }
        self.stop.store(true, SeqCst);
    }

    /// What went wrong, if something did.
    pub fn failure(&self) -> Option<String> {
        let what = self.failed.load(SeqCst) as usize;
        if what == 0 {
            return None;
        }
        let detail = |at: usize| self.details[at].load(SeqCst);
        Some(format!(
            "{} {} (page {}: {:#x}, {:#x})",
            READERS[(detail(0) >> 32) as usize],
            WRONG[what],
            detail(0) & 0xffff_ffff,
            detail(1),
            detail(2)
        ))
    }
}

/// A way to the pages of the space. `None`: the page cannot be reached, for any reason.
pub trait Reader {
    fn load(&mut self, page: u64) -> Option<u64>;
    /// Writes to the second cell, which only the owner reads.
    fn store(&mut self, page: u64, value: u64);
}

/// Reads and writes until it is stopped or finds something wrong. `index` is the reader's in
/// [`READERS`].
pub fn read_and_check(control: &Control, index: usize, reader: &mut dyn Reader, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed + index as u64);
    let mut stored = 0;
    // The latest that any page of the switched part has shown.
    let mut version = 0;
    while !control.stop.load(SeqCst) {
        for _ in 0..8 {
            let page = random.random_range(TAKEN);
            if let Some(value) = reader.load(page).filter(|value| value & REVOKED != 0) {
                return control.fail(1, index, page, [value, 0]);
            }
            stored += 1;
            reader.store(
                random.random_range(TAKEN),
                ((index as u64 + 1) << 48) | stored,
            );
        }
        for _ in 0..8 {
            let page = random.random_range(SWITCHED);
            match reader.load(page) {
                None => return control.fail(2, index, page, [0, version]),
                Some(value) if value & REVOKED != 0 => {
                    return control.fail(1, index, page, [value, version]);
                }
                Some(value) if value < version => {
                    return control.fail(3, index, page, [value, version]);
                }
                Some(value) => version = value,
            }
        }
        for _ in 0..4 {
            let at = random.random_range(0..control.floors.len());
            let floor = control.floors[at].load(SeqCst);
            let page = CHANGED.start + at as u64;
            match reader.load(page) {
                // A hole of the file, or its end.
                None | Some(0) => (),
                Some(value) if value < floor => {
                    return control.fail(4, index, page, [value, floor]);
                }
                Some(_) => (),
            }
        }
        control.rounds[index].fetch_add(1, SeqCst);
    }
}
