// SPDX-License-Identifier: GPL-2.0

//! The output: TAP.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rig::tap;

use crate::sequence::{Failure, show};

/// How often a long run prints its progress.
const INTERVAL: Duration = Duration::from_secs(30);

pub struct Report {
    count: usize,
    failed: usize,
    printed: Instant,
}

impl Report {
    pub fn new() -> Report {
        tap::version();
        Report {
            count: 0,
            failed: 0,
            printed: Instant::now(),
        }
    }

    pub fn plan(&self, tests: usize) {
        tap::plan(tests);
    }

    pub fn result(&mut self, good: bool, name: &str) {
        self.count += 1;
        if !good {
            self.failed += 1;
        }
        tap::result(self.count, name, good);
    }

    pub fn comment(&self, text: &str) {
        tap::comment(text);
    }

    /// Prints a comment if there was none for a while.
    pub fn progress(&mut self, text: impl Fn() -> String) {
        if self.printed.elapsed() >= INTERVAL {
            self.printed = Instant::now();
            self.comment(&text());
        }
    }

    pub fn sequence(&self, failure: &Failure) {
        self.comment(&failure.why);
        self.comment("the sequence fails in its last step; fuzz --replay FILE runs it again:");
        // Not as a comment, so that it can be copied into a file.
        tap::line(&show(&failure.sequence));
    }

    pub fn end(&self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
