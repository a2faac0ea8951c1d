// SPDX-License-Identifier: GPL-2.0

//! A VMM that is not ours, alioth, beside our file server: the DAX window of its guest is a
//! view of an address space, which the server changes, and the VMM knows nothing of.
//!
//! Prints TAP, or a transcript with `--transcript`. Needs the module, KVM and root.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod cases;
mod machine;
mod share;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use rig::cases::{exit, run};
use rig::show::Show;

use crate::cases::{CASES, Trial};

/// Run a virtual machine of alioth's on a window that a file server changes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,
    /// The directory with the guest's kernel and program.
    #[arg(long, default_value = "build/guest")]
    guest: PathBuf,
    /// The VMM.
    #[arg(long, default_value = "build/alioth-vmm")]
    vmm: PathBuf,
    /// The file server.
    #[arg(long, default_value = "build/virtiofs")]
    server: PathBuf,
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,
}

fn main() -> ExitCode {
    exit("alioth", trial(&Cli::parse()))
}

fn trial(cli: &Cli) -> Result<bool> {
    let show = Show::new(cli.transcript);
    // One guest is enough: to boot it takes most of the time.
    let trial = RefCell::new(Trial::new(&cli.vmm, &cli.server, &cli.guest)?);
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
