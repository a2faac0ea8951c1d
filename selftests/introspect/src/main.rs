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
use rig::cases::{exit, run};
use rig::process::no_core_files;
use rig::role::serve;
use rig::show::Show;

use crate::cases::CASES;

/// Look into a running process that lent its memory.
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
        Some(Role::Target) => serve(target::Target::default()).map(|()| true),
        Some(Role::Tool) => serve(tool::Tool::default()).map(|()| true),
        None => no_core_files().map(|()| {
            let show = Show::new(cli.transcript);
            run(CASES, &cli.words, show, |case| case(show))
        }),
    };
    exit("introspect", result)
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
