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
use rig::cases::{exit, run};
use rig::process::no_core_files;
use rig::role::serve;
use rig::show::Show;

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
        Some(Role::Serve) => serve(roles::Role::default()).map(|()| true),
        None => no_core_files().map(|()| {
            let show = Show::new(cli.transcript);
            run(CASES, &cli.words, show, |case| case(show))
        }),
    };
    exit("lazy", result)
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
