// SPDX-License-Identifier: GPL-2.0

//! Unmodified vhost-user devices behind an IOMMU that is enforced: cases that show what
//! such a device can and cannot reach, next to what it can reach without an address space.
//!
//! Prints TAP, or a transcript with `--transcript`. Needs the module, qemu-storage-daemon
//! and virtiofsd.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod cases;
mod fuse;

use std::process::ExitCode;

use clap::Parser;
use rig::cases::{exit, run};
use rig::process::no_core_files;
use rig::show::Show;

use crate::cases::CASES;

/// Show unmodified vhost-user devices behind an IOMMU that is enforced.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print a transcript instead of TAP.
    #[arg(long)]
    transcript: bool,
    /// How many requests of each kind the cases with much I/O make.
    #[arg(long, default_value_t = 500)]
    requests: u32,
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Devices will die of signals.
    let result = no_core_files().map(|()| {
        let show = Show::new(cli.transcript);
        run(CASES, &cli.words, show, |case| case(show, cli.requests))
    });
    exit("viommu", result)
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
