// SPDX-License-Identifier: GPL-2.0

//! What the guest's driver has logged of faults, next to what it was told of; and a device
//! that does nothing but fault.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use address_space::{Prot, View, page_size};
use anyhow::{Context as _, Result, anyhow, ensure};
use rig::daemon::TIMEOUT;
use rig::tap::line;

use crate::fault_queue::{BURST, FaultQueue, PACE, Told};

/// What the guest's driver has logged.
#[derive(Default)]
pub struct Heard(BTreeSet<Told>);

impl Heard {
    /// The guest's program has found a fault in the log.
    pub fn add(&mut self, [iova, second]: [u64; 2]) {
        let fault = Told {
            endpoint: second as u32,
            iova,
            access: (second >> 32) as u32,
        };
        line(&format!("#   the guest logs {fault:x?}"));
        self.0.insert(fault);
    }

    /// Checks that the driver has logged all that it was told of, and nothing else, and that
    /// these are among it: pages, and how they were accessed.
    pub fn check(&self, queue: &FaultQueue, endpoint: u32, must: &[(u64, Prot)]) -> Result<()> {
        let told: BTreeSet<_> = queue.told().into_iter().collect();
        ensure!(
            self.0 == told,
            "the driver was told of {told:x?} and has logged {:x?}",
            self.0
        );
        for &(iova, access) in must {
            let fault = Told {
                endpoint,
                iova,
                access: access.bits(),
            };
            ensure!(told.contains(&fault), "it was not told of {fault:x?}");
        }
        Ok(())
    }
}

/// Waits until the driver was told of more than so many faults.
pub fn wait_for_more(queue: &FaultQueue, before: usize) -> Result<()> {
    let start = Instant::now();
    while queue.told().len() <= before {
        ensure!(start.elapsed() < TIMEOUT, "the driver is told of nothing");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A device that reads where nothing is mapped, without end.
pub struct Flood {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
    start: Instant,
    told_before: usize,
}

impl Flood {
    /// Begins, with a view of the device's that the guest's driver hears of.
    pub fn new(view: View, queue: &FaultQueue) -> Flood {
        /// Far below what the driver maps.
        const PAGES: u64 = 4096;
        let end = Arc::<AtomicBool>::default();
        let ended = end.clone();
        let flood = move || {
            let mut count = 0;
            while !ended.load(Relaxed) {
                // A new attachment has nothing absorbed.
                let window = view.attach(0..PAGES * page_size(), Prot::READ)?;
                for page in 0..PAGES {
                    let word: u64 = window.read((page * page_size()) as usize)?;
                    ensure!(word == 0, "page {page} is not zeroes");
                    count += 1;
                }
            }
            Ok(count)
        };
        Flood {
            end,
            thread: spawn(flood),
            start: Instant::now(),
            told_before: queue.told().len(),
        }
    }

    /// Ends it; checks that the driver was told of some of it, and no more than it could take.
    pub fn end(self, queue: &FaultQueue) -> Result<()> {
        self.end.store(true, Relaxed);
        let count = self.thread.join().map_err(|_| anyhow!("a panic"))?;
        let count = count.context("the device")?;
        let told = queue.told().len() - self.told_before;
        let turns = self.start.elapsed().as_millis() / PACE.as_millis() + 2;
        ensure!(told > 0, "the driver was told of none of {count} faults");
        ensure!(
            told as u128 <= turns * u128::from(BURST),
            "the driver was told of {told} faults in {turns} turns"
        );
        ensure!(queue.lost() > 0, "none was lost");
        line(&format!(
            "#   {count} faults in {:.1?}: the driver was told of {told}, and so far of {} it is \
             known that the kernel has not kept them",
            self.start.elapsed(),
            queue.lost()
        ));
        Ok(())
    }
}
