// SPDX-License-Identifier: GPL-2.0

//! An unmodified QEMU, which only takes paths: its guest's RAM is an address space with a name,
//! and so is the memory of one of the guest's devices, which another process composes while the
//! guest uses it.
//!
//! Prints TAP, or a transcript with `--transcript`. Needs the module, KVM and root.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod cases;
mod composer;
mod machine;
mod spaces;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use rig::cases::{exit, run};
use rig::role::serve;
use rig::show::Show;

use crate::cases::{CASES, Trial};
use crate::composer::Composer;

/// Run QEMU on address spaces with a name.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,
    /// The directory with the guest's kernel and program.
    #[arg(long, default_value = "build/guest")]
    guest: PathBuf,
    /// The program to run.
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,

    #[command(subcommand)]
    role: Option<Role>,
}

/// Which of the processes this one is.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Be the process that composes the device's memory (started by `qemu` itself).
    #[command(hide = true)]
    Composer,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Role::Composer) => serve(Composer::default()).map(|()| true),
        None => trial(&cli),
    };
    exit("qemu", result)
}

fn trial(cli: &Cli) -> Result<bool> {
    let show = Show::new(cli.transcript);
    // One guest is enough: to boot it takes most of the time.
    let trial = RefCell::new(Trial::new(&cli.qemu, &cli.guest)?);
    let call = |case: &fn(&mut Trial, Show) -> Result<()>| case(&mut trial.borrow_mut(), show);
    Ok(run(CASES, &cli.words, show, call))
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
