// SPDX-License-Identifier: GPL-2.0

//! What the play tells whoever watches it.

use rig::tap::line;

/// Numbered steps, and under each who does or sees what.
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

    /// Says what someone does or sees.
    pub fn says(&self, who: &str, what: &str) {
        line(&format!("   {who:<12} {what}"));
    }
}
