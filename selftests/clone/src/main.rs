// SPDX-License-Identifier: GPL-2.0

//! A guest is stopped, and clones of it go on where it was, as many as one likes. Each has the
//! guest's memory as its own; but what no clone writes is in memory once, for all of them.
//!
//! Prints TAP, a transcript with `--transcript`, or with `--figures` what clones take in time
//! and memory, beside other ways to have them. Needs the module, and KVM.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod blocks;
mod cases;
mod cgroup;
mod cpu;
mod figures;
mod fleet;
mod guest;
mod machine;
mod roles;
mod snapshot;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rig::cases::{exit, run};
use rig::process::no_core_files;
use rig::role::serve;
use rig::show::Show;

use crate::cases::CASES;

/// Show clones of one guest, which share what they do not write.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,
    /// Print tables of what 1, 8 and 32 clones take.
    #[arg(long, conflicts_with = "transcript")]
    figures: bool,
    /// How often each of the figures is measured; the median counts.
    #[arg(long, default_value_t = 3, requires = "figures")]
    rounds: usize,
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,

    #[command(subcommand)]
    role: Option<Role>,
}

/// Which of the processes this one is.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Be the VMM of a clone (started by `clone` itself).
    #[command(hide = true)]
    Vmm,
    /// Be a device (started by `clone` itself).
    #[command(hide = true)]
    Device,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Role::Vmm) => serve(roles::Vmm::default()).map(|()| true),
        Some(Role::Device) => serve(roles::Device::default()).map(|()| true),
        None if cli.figures => figures::print(cli.rounds).map(|()| true),
        None => no_core_files().map(|()| {
            let show = Show::new(cli.transcript);
            run(CASES, &cli.words, show, |case| case(show))
        }),
    };
    exit("clone", result)
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
