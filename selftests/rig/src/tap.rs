// SPDX-License-Identifier: GPL-2.0

//! What test programs print: TAP, and lines that are read while the program runs.

use std::io::{self, Write as _};

use anyhow::Result;

/// Prints lines at once.
pub fn line(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone is no failure of the test.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints the version line, which is the first.
pub fn version() {
    line("TAP version 13");
}

/// Prints how many tests there are.
pub fn plan(tests: usize) {
    line(&format!("1..{tests}"));
}

/// Prints each line of a text as a diagnostic.
pub fn comment(text: &str) {
    for text in text.lines() {
        line(&format!("# {text}"));
    }
}

/// Prints whether a test passed. Tests are numbered from 1.
pub fn result(number: usize, name: &str, passed: bool) {
    let not = if passed { "" } else { "not " };
    line(&format!("{not}ok {number} {name}"));
}

/// Prints the result of a test, after the error if it failed.
pub fn report(number: usize, name: &str, outcome: &Result<()>) {
    if let Err(error) = outcome {
        comment(&format!("{error:#}"));
    }
    result(number, name, outcome.is_ok());
}

/// Prints how many tests passed and failed, which is the last line.
pub fn totals(passed: usize, failed: usize) {
    comment(&format!("{passed} passed, {failed} failed"));
}
