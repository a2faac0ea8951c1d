// SPDX-License-Identifier: GPL-2.0

//! A KVM guest, a file server and a device share one address space, and the
//! file server changes it under the other two.
//!
//! `demo` starts the three as processes of their own (the same program, with a
//! subcommand each), makes them act step by step, prints what each of them sees,
//! and fails if that is not what an address space promises.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod device;
mod guest;
mod message;
mod process;
mod server;
mod steps;
mod transcript;
mod vmm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Show a KVM guest, a file server and a device on one address space.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    steps: steps::Args,

    #[command(subcommand)]
    role: Option<Role>,
}

/// Which of the processes this one is.
#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Run the guest (started by `demo` itself).
    #[command(hide = true)]
    Vmm,
    /// Map files (started by `demo` itself).
    #[command(hide = true)]
    FileServer,
    /// Read through a view (started by `demo` itself).
    #[command(hide = true)]
    Device,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        None => steps::run(&cli.steps),
        Some(Role::Vmm) => vmm::run(),
        Some(Role::FileServer) => server::run(),
        Some(Role::Device) => device::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
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
