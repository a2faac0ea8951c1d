// SPDX-License-Identifier: GPL-2.0

//! Guests whose memory comes as they touch it. A VMM restores a guest from a snapshot and runs
//! it at once; a VMM receives a guest from another process and runs it while its memory is
//! still there. Whatever touches what has not come waits: the guest's CPUs, and devices.
//!
//! Prints TAP, or a transcript with `--transcript`. Needs the module, and KVM.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod cases;
mod chunks;
mod device;
mod guest;
mod machine;
mod memory;
mod packed;
mod restore;
mod roles;
mod snapshot;
mod source;
mod target;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rig::process::no_core_files;
use rig::show::Show;
use rig::tap;

use crate::cases::CASES;

/// Show guests whose memory comes as they touch it.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,

    #[command(subcommand)]
    role: Option<Role>,
}

/// Which of the processes this one is.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Do what the first process says (started by `lazy` itself).
    #[command(hide = true)]
    Serve,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Role::Serve) => roles::serve().map(|()| true),
        None => no_core_files().map(|()| run(&cli)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lazy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases; returns whether all went as they should.
fn run(cli: &Cli) -> bool {
    let show = Show::new(cli.transcript);
    let is_wanted = |name: &str| {
        let mut words = cli.words.iter();
        cli.words.is_empty() || words.any(|word| name.contains(word.as_str()))
    };
    let wanted: Vec<_> = CASES.iter().filter(|case| is_wanted(case.name)).collect();
    show.plan(wanted.len());
    let mut failed = 0;
    for (number, case) in (1..).zip(&wanted) {
        show.begin(number, case.title);
        let result = (case.run)(show);
        show.end(number, case.name, &result);
        failed += usize::from(result.is_err());
    }
    let passed = wanted.len() - failed;
    if cli.transcript {
        tap::line(&format!("\n{passed} of {} as promised.", wanted.len()));
    } else {
        tap::totals(passed, failed);
    }
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_make_sense() {
        Cli::command().debug_assert();
    }
}
