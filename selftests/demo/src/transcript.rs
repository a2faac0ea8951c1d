// SPDX-License-Identifier: GPL-2.0

//! The output.

use rig::tap::line;

/// Numbered steps, and under each what the processes do and see.
#[derive(Default)]
pub struct Transcript {
    steps: u32,
}

impl Transcript {
    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        line(&format!("\n{}. {title}", self.steps));
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Prints what a process does or sees.
    pub fn says(&self, process: &str, what: &str) {
        line(&format!("   {process:<12} {what}"));
    }
}
