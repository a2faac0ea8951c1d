// SPDX-License-Identifier: GPL-2.0

//! What whoever runs it gets to read: TAP, or a transcript.

use std::io::{self, Write as _};

/// Where it is told.
#[derive(Clone, Copy)]
pub struct Show {
    transcript: bool,
}

impl Show {
    pub fn new(transcript: bool) -> Show {
        Show { transcript }
    }

    /// What is to come.
    pub fn plan(self, count: usize) {
        if !self.transcript {
            line(&format!("TAP version 13\n1..{count}"));
        }
    }

    /// A case begins.
    pub fn begin(self, number: usize, title: &str) {
        if self.transcript {
            line(&format!("\n{number}. {title}"));
        } else {
            line(&format!("# {title}"));
        }
    }

    /// What someone does or sees.
    pub fn says(self, who: &str, what: &str) {
        let mark = if self.transcript { "  " } else { "#  " };
        line(&format!("{mark} {who:<10} {what}"));
    }

    /// A case has ended.
    pub fn end(self, number: usize, name: &str, result: &anyhow::Result<()>) {
        match result {
            Ok(()) if self.transcript => {}
            Ok(()) => line(&format!("ok {number} {name}")),
            Err(error) => {
                let text = format!("{error:#}");
                for text in text.lines() {
                    line(&format!("# {text}"));
                }
                line(&format!("not ok {number} {name}"));
            }
        }
    }
}

/// Prints lines at once: they are watched while it goes on.
pub fn line(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be listening any more, which is no failure of what is told.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
