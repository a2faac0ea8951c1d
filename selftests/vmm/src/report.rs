// SPDX-License-Identifier: GPL-2.0

//! What a trial promises, in the order in which it is checked: as TAP, or as a transcript for
//! a reader who wants to know what happens.

use std::time::Instant;

use anyhow::{Result, anyhow};
use rig::tap::{self, line};

/// The last promise of each trial, which its end keeps.
pub const LAST: &str = "guest_ends_by_itself";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Tap,
    Transcript,
}

pub struct Report {
    form: Form,
    promises: &'static [&'static str],
    reported: usize,
    failed: usize,
    /// How many titles a transcript has.
    titles: u32,
    start: Instant,
    at: String,
}

impl Report {
    /// The last of the promises is [`LAST`].
    pub fn new(form: Form, promises: &'static [&'static str]) -> Report {
        if form == Form::Tap {
            tap::version();
            tap::plan(promises.len());
        }
        Report {
            form,
            promises,
            reported: 0,
            failed: 0,
            titles: 0,
            start: Instant::now(),
            at: "its kernel's boot".to_owned(),
        }
    }

    /// Says how far the guest is.
    pub fn reached(&mut self, at: String) {
        if self.form == Form::Tap {
            let time = self.start.elapsed();
            line(&format!("# {time:.1?}: the guest is at {at}"));
        }
        self.at = at;
    }

    /// A sentence of a transcript alone.
    pub fn tells(&self, text: &str) {
        if self.form == Form::Transcript {
            line(text);
        }
    }

    /// What follows is about this: for a transcript.
    pub fn title(&mut self, title: &str) {
        self.titles += 1;
        let number = self.titles;
        self.tells(&format!("\n{number}. {title}"));
    }

    /// Says what one of the machine's parts does or sees.
    pub fn says(&self, who: &str, what: &str) {
        match self.form {
            Form::Tap => line(&format!("#   {who}: {what}")),
            Form::Transcript => line(&format!("   {who:<12} {what}")),
        }
    }

    /// Where the guest is.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// How many promises are broken.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Reports whether the next promise is kept. A transcript tells only of one that is not.
    pub fn report(&mut self, name: &str, result: Result<()>) {
        let next = self.promises.get(self.reported).copied();
        self.reported += 1;
        let result = match next {
            Some(next) if next == name => result,
            _ => Err(anyhow!("the guest has skipped a call")),
        };
        self.failed += usize::from(result.is_err());
        if self.form == Form::Tap || result.is_err() {
            tap::report(self.reported, name, &result);
        }
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
        let kept = self.promises.len() - self.failed;
        match self.form {
            Form::Tap => tap::totals(kept, self.failed),
            Form::Transcript => line(&format!(
                "\n{kept} of {} promises kept, in {:.0?}.",
                self.promises.len(),
                self.start.elapsed()
            )),
        }
        self.failed == 0
    }
}
