// SPDX-License-Identifier: GPL-2.0

//! What a trial promises, in the order in which it is checked, as TAP.

use std::time::Instant;

use anyhow::{Result, anyhow};
use rig::tap::{self, line};

/// The last promise of each trial, which its end keeps.
pub const LAST: &str = "guest_ends_by_itself";

pub struct Report {
    promises: &'static [&'static str],
    reported: usize,
    failed: usize,
    start: Instant,
    at: String,
}

impl Report {
    /// The last of the promises is [`LAST`].
    pub fn new(promises: &'static [&'static str]) -> Report {
        tap::version();
        tap::plan(promises.len());
        Report {
            promises,
            reported: 0,
            failed: 0,
            start: Instant::now(),
            at: "its kernel's boot".to_owned(),
        }
    }

    /// Says how far the guest is.
    pub fn reached(&mut self, at: String) {
        let time = self.start.elapsed();
        line(&format!("# {time:.1?}: the guest is at {at}"));
        self.at = at;
    }

    /// Where the guest is.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// How many promises are broken.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Reports whether the next promise is kept.
    pub fn report(&mut self, name: &str, result: Result<()>) {
        let next = self.promises.get(self.reported).copied();
        self.reported += 1;
        let result = match next {
            Some(next) if next == name => result,
            _ => Err(anyhow!("the guest has skipped a call")),
        };
        self.failed += usize::from(result.is_err());
        tap::report(self.reported, name, &result);
    }

    /// Reports all promises that were not checked before the guest ended. Returns whether
    /// all are kept.
    pub fn end(mut self, result: &Result<()>) -> bool {
        let last = self.promises.len() - 1;
        for name in &self.promises[self.reported.min(last)..] {
            let result = match result {
                Ok(()) if self.reported == last => Ok(()),
                Ok(()) => Err(anyhow!("the guest ended before it")),
                Err(error) => Err(anyhow!("{error:#}")),
            };
            self.report(name, result);
        }
        tap::totals(self.promises.len() - self.failed, self.failed);
        self.failed == 0
    }
}
