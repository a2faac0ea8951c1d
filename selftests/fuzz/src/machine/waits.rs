// SPDX-License-Identifier: GPL-2.0

//! Waits: for those that wait at holes, and for the end of what is absorbed briefly.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rig::fdinfo;

use super::Machine;
use crate::op::*;

/// How long it may take until those that wait have looked again, or what is absorbed briefly is
/// gone: an emulated debug kernel is slow.
const LONG: Duration = Duration::from_secs(30);

impl Machine {
    /// What came of the access of one that waits no longer.
    pub fn ended(&mut self, waiter: usize) -> Result<Touched> {
        if waiter == GUEST {
            return self.guest()?.result(Instant::now() + LONG);
        }
        let agent = self.waiters[waiter].take().context("nobody waits")?;
        match agent.result()? {
            Seen::Touched(touched) if touched.len() == 1 => {
                agent.end()?;
                Ok(touched[0])
            }
            other => bail!("one access comes to {other:?}"),
        }
    }

    /// Waits until so many wait in a space that has an asfd.
    pub fn await_waiting(&self, space: usize, count: u64) -> Result<()> {
        let end = Instant::now() + LONG;
        loop {
            let waiting = fdinfo::number(&fdinfo::read(self.space(space)?)?, "waiting")?;
            if waiting == count {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "in space {space} {count} should wait, and {waiting} do"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until a process sees what it must in the end, and returns what it sees.
    pub(super) fn expire(
        &mut self,
        process: usize,
        expiring: Vec<(Touch, Touched)>,
    ) -> Result<Seen> {
        let (touches, wanted): (Vec<_>, Vec<_>) = expiring.into_iter().unzip();
        let wanted = Seen::Touched(wanted);
        let start = Instant::now();
        let mut waited = None;
        loop {
            let seen = self.touch(process, touches.clone())?;
            if seen == wanted {
                self.expiries.extend(waited);
                return Ok(seen);
            }
            if start.elapsed() > LONG {
                return Ok(seen);
            }
            std::thread::sleep(Duration::from_millis(2));
            waited = Some(start.elapsed());
        }
    }
}
