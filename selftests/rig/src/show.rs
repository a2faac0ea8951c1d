// SPDX-License-Identifier: GPL-2.0

//! The output of a program of cases: TAP, or a transcript.

use crate::tap::{self, line};
use anyhow::Result;

/// The form of the output.
#[derive(Clone, Copy)]
pub struct Show {
    transcript: bool,
}

impl Show {
    /// A transcript if that is wanted, else TAP.
    pub fn new(transcript: bool) -> Show {
        Show { transcript }
    }

    /// Prints how many cases there are.
    pub fn plan(self, count: usize) {
        if !self.transcript {
            tap::version();
            tap::plan(count);
        }
    }

    /// Prints that a case begins.
    pub fn begin(self, number: usize, title: &str) {
        if self.transcript {
            line(&format!("\n{number}. {title}"));
        } else {
            tap::comment(title);
        }
    }

    /// Prints what happens; `who` is where, or who does it.
    pub fn says(self, who: &str, what: &str) {
        let mark = if self.transcript { "  " } else { "#  " };
        line(&format!("{mark} {who:<10} {what}"));
    }

    /// Prints the result of a case.
    pub fn end(self, number: usize, name: &str, result: &Result<()>) {
        if result.is_err() || !self.transcript {
            tap::report(number, name, result);
        }
    }

    /// Prints how many cases passed and failed, which is the last line.
    pub fn totals(self, passed: usize, failed: usize) {
        if self.transcript {
            line(&format!("\n{passed} of {} as promised.", passed + failed));
        } else {
            tap::totals(passed, failed);
        }
    }
}
