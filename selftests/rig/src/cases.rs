// SPDX-License-Identifier: GPL-2.0

//! Programs that consist of cases: run one after another, as TAP or as a transcript.

use std::process::ExitCode;

use anyhow::Result;

use crate::show::Show;

/// A case.
pub struct Case<F = fn(Show) -> Result<()>> {
    /// The name of the test.
    pub name: &'static str,
    /// What happens, for the transcript.
    pub title: &'static str,
    /// Does it, and shows what happens.
    pub run: F,
}

/// Runs the cases with one of `words` in their names, all without words; `call` calls what runs
/// one. Returns whether all went as they should.
pub fn run<F>(
    cases: &[Case<F>],
    words: &[String],
    show: Show,
    call: impl Fn(&F) -> Result<()>,
) -> bool {
    let is_wanted = |name: &str| {
        let mut words_in_it = words.iter().filter(|word| name.contains(word.as_str()));
        words.is_empty() || words_in_it.next().is_some()
    };
    let wanted: Vec<_> = cases.iter().filter(|case| is_wanted(case.name)).collect();
    show.plan(wanted.len());
    let mut failed = 0;
    for (number, case) in (1..).zip(&wanted) {
        show.begin(number, case.title);
        let result = call(&case.run);
        show.end(number, case.name, &result);
        failed += usize::from(result.is_err());
    }
    show.totals(wanted.len() - failed, failed);
    failed == 0
}

/// How a program ends, if all went as it should, or not; or could not be tried.
pub fn exit(program: &str, result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
