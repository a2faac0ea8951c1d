// SPDX-License-Identifier: GPL-2.0

//! A tool that looks into a running process, which has lent it all of its memory: it walks a
//! linked list in that process's heap by plain loads, while the process goes on changing it.
//! There is no debugger's stop, no copy and no system call; and the process can end it at any
//! time.
//!
//! Prints TAP, or a transcript with `--transcript`. Needs the module.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod cases;
mod list;
mod roles;
mod target;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rig::process::no_core_files;
use rig::show::Show;
use rig::tap;

use crate::cases::CASES;

/// Look into a running process that lent its memory.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,

    #[command(subcommand)]
    role: Option<Role>,
}

/// Which of the processes this one is.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Be the process that is looked into (started by `introspect` itself).
    #[command(hide = true)]
    Target,
    /// Be the tool (started by `introspect` itself).
    #[command(hide = true)]
    Tool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Role::Target) => roles::serve(target::Target::default()).map(|()| true),
        Some(Role::Tool) => roles::serve(tool::Tool::default()).map(|()| true),
        None => no_core_files().map(|()| run(&cli)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("introspect: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases; returns whether all went as they should.
fn run(cli: &Cli) -> bool {
    let show = Show::new(cli.transcript);
    show.plan(CASES.len());
    let mut failed = 0;
    for (number, case) in (1..).zip(CASES) {
        show.begin(number, case.title);
        let result = (case.run)(show);
        show.end(number, case.name, &result);
        failed += usize::from(result.is_err());
    }
    let passed = CASES.len() - failed;
    if cli.transcript {
        tap::line(&format!("\n{passed} of {} as promised.", CASES.len()));
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
