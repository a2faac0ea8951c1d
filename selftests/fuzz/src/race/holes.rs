// SPDX-License-Identifier: GPL-2.0

//! The part of the race that is about holes: readers that wait at them until the owner maps
//! something there, or is asked to, and children that are killed meanwhile.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use address_space::EventKind;
use anyhow::{Result, bail, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rig::fdinfo;

use super::{Attachment, Owner};
use crate::op::*;
use crate::reader::{Control, READERS, Reader, TAKEN, WAITING};

/// In how much time whoever waits must have met what is mapped there: an emulated debug kernel
/// is slow, and readers get the CPU when nobody else wants it.
const LONG: Duration = Duration::from_secs(60);

/// After how much time of one access the owner looks after a reader.
const LOOK_AFTER: Duration = Duration::from_millis(300);

/// A reader whose accesses may wait: it says at which page.
pub(super) struct Patient<'a, R> {
    pub(super) reader: R,
    pub(super) control: &'a Control,
    pub(super) index: usize,
    pub(super) accesses: u64,
}

impl<R> Patient<'_, R> {
    fn at<T>(&mut self, page: u64, access: impl FnOnce(&mut R) -> T) -> T {
        self.accesses += 1;
        let at = &self.control.at[self.index];
        at.store((self.accesses << 16) | (page + 1), SeqCst);
        let result = access(&mut self.reader);
        at.store(self.accesses << 16, SeqCst);
        result
    }
}

impl<R: Reader> Reader for Patient<'_, R> {
    fn load(&mut self, page: u64) -> Option<u64> {
        self.at(page, |reader| reader.load(page))
    }

    fn store(&mut self, page: u64, value: u64) {
        self.at(page, |reader| reader.store(page, value));
    }
}

/// Forks children that wait at holes, and kills them, until it is stopped. No other thread may
/// exist.
pub(super) fn fork_and_kill(control: &Control, index: usize, place: u64, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed + index as u64);
    while !control.stop.load(SeqCst) {
        // SAFETY: There is no other thread, so that no lock is held in the child.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: The call only asks for a signal when the parent ends.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let mut reader = Attachment { place };
            loop {
                let page = random.random_range(TAKEN);
                match random.random() {
                    true => drop(reader.load(page)),
                    false => reader.store(page, 1),
                }
            }
        }
        let sleep = random.random_range(0..20_000);
        std::thread::sleep(Duration::from_micros(sleep));
        // SAFETY: Signals change no memory of this process.
        unsafe {
            if sleep % 3 == 0 {
                libc::kill(child, libc::SIGUSR1);
                std::thread::sleep(Duration::from_micros(sleep / 4));
            }
            libc::kill(child, libc::SIGKILL);
        }
        let end = Instant::now() + LONG;
        // SAFETY: The call writes no status.
        while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) } == 0 {
            if Instant::now() > end {
                return control.fail(5, index, 0, [child as u64, 0]);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        control.rounds[index].fetch_add(1, SeqCst);
    }
}

/// What the owner saw of a reader.
#[derive(Clone, Copy)]
pub(super) struct Look {
    at: u64,
    since: Instant,
}

impl Owner {
    /// Watches the part of which pages are taken, with or without a limit for waits.
    pub(super) fn watch_again(&mut self) -> Result<()> {
        // All waits end.
        self.events = None;
        let timeout = self
            .random
            .random_bool(0.4)
            .then(|| Duration::from_millis(self.random.random_range(1..30)));
        let pages = match self.random.random_bool(0.8) {
            true => TAKEN,
            false => TAKEN.start..self.random.random_range(TAKEN) + 1,
        };
        let events = self
            .space
            .watch(pages.start * PAGE..pages.end * PAGE, timeout)?;
        events.set_nonblocking(true)?;
        self.events = Some(events);
        Ok(())
    }

    /// Maps what some of those who wait are said to wait for.
    pub(super) fn answer(&mut self) -> Result<()> {
        for _ in 0..16 {
            let Some(events) = &self.events else {
                break;
            };
            let Some(event) = events.try_next()? else {
                break;
            };
            let page = event.offset / PAGE;
            if event.kind == EventKind::Wait {
                ensure!(
                    TAKEN.contains(&page),
                    "a task is said to wait at page {page}, where there is no hole"
                );
                self.control.told.fetch_add(1, SeqCst);
                if self.random.random_bool(0.7) {
                    self.show(page)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn poison(&mut self) -> Result<()> {
        if self.events.is_none() {
            return Ok(());
        }
        let first = self.random.random_range(TAKEN);
        let end = self.random.random_range(first..TAKEN.end) + 1;
        match self.random.random() {
            true => self.space.poison(first * PAGE..end * PAGE)?,
            false => self.space.unpoison(TAKEN.start * PAGE..TAKEN.end * PAGE)?,
        }
        Ok(())
    }

    /// Whoever makes one access for a while gets the page mapped, and then must go on.
    pub(super) fn look_after(&mut self) -> Result<()> {
        for index in WAITING {
            let at = self.control.at[index].load(SeqCst);
            let look = &mut self.looks[index];
            let now = Look {
                at,
                since: Instant::now(),
            };
            let Some(before) = look.filter(|look| look.at == at) else {
                *look = Some(now);
                continue;
            };
            let page = match (at & 0xffff).checked_sub(1) {
                Some(page) if before.since.elapsed() > LOOK_AFTER => page,
                _ => continue,
            };
            if TAKEN.contains(&page) {
                self.show(page)?;
            }
            let end = Instant::now() + LONG;
            while self.control.at[index].load(SeqCst) == at {
                if self.control.stop.load(SeqCst) {
                    return Ok(());
                }
                ensure!(
                    Instant::now() < end,
                    "{} waits at page {page}, where something is mapped",
                    READERS[index]
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            self.looks[index] = None;
        }
        Ok(())
    }

    /// Nobody is left that waits.
    pub(super) fn nobody_waits(&self) -> Result<()> {
        let waiting = fdinfo::number(&fdinfo::read(&self.space)?, "waiting")?;
        match waiting {
            0 => Ok(()),
            _ => bail!("{waiting} are said to wait, when all have ended"),
        }
    }
}
