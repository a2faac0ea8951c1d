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
use rig::process::no_core_files;
use rig::tap;

use crate::cases::CASES;
use rig::show::Show;

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
    if let Err(error) = no_core_files() {
        eprintln!("viommu: {error:#}");
        return ExitCode::FAILURE;
    }

    let show = Show::new(cli.transcript);
    let wanted: Vec<_> = CASES
        .iter()
        .filter(|case| {
            cli.words.is_empty()
                || cli
                    .words
                    .iter()
                    .any(|word| case.name.contains(word.as_str()))
        })
        .collect();
    show.plan(wanted.len());
    let mut failed = 0;
    for (number, case) in (1..).zip(&wanted) {
        show.begin(number, case.title);
        let result = (case.run)(show, cli.requests);
        show.end(number, case.name, &result);
        failed += usize::from(result.is_err());
    }
    let passed = wanted.len() - failed;
    if cli.transcript {
        tap::line(&format!("\n{passed} of {} as promised.", wanted.len()));
    } else {
        tap::totals(passed, failed);
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
