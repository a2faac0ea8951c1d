// SPDX-License-Identifier: GPL-2.0

//! asctl: the address spaces of this machine, and what is in them.
//!
//! All it knows comes from /proc and from the tracepoints of the module; it opens no
//! device and changes nothing. Whatever process it may not look into is left out.

mod fdinfo;
mod list;
mod maps;
mod mounts;
mod proc;
mod show;
mod strip;
mod table;
mod top;
mod watch;
mod who;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Lists the address spaces of this machine, and shows what is in them.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the address spaces
    List(list::Options),
    /// Show the layout of an address space
    Show(show::Options),
    /// Show who holds, attaches or runs on an address space
    Who(who::Options),
    /// Print changes, faults and invalidations as they happen
    Watch(watch::Options),
    /// Show the busiest address spaces, again and again
    Top(top::Options),
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::List(options) => list::run(&options),
        Command::Show(options) => show::run(&options),
        Command::Who(options) => who::run(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Top(options) => top::run(&options),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("asctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
