// SPDX-License-Identifier: GPL-2.0

//! The program: arguments, the order in which the server is set up, and its connections.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod arguments;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser as _;
use fuse_backend_rs::api::server::Server;
use log::LevelFilter;
use rustix::process::{Resource, getrlimit, setrlimit};
use virtiofs::confine;
use virtiofs::serve::serve;
use virtiofs::share::Share;
use virtiofs::state::State;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtiofs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    log::set_logger(&Log).map_err(|error| anyhow!("{error}"))?;
    log::set_max_level(if arguments.log {
        LevelFilter::Debug
    } else {
        LevelFilter::Warn
    });

    // Each inode that the guest knows is a file descriptor: a file handle could be opened
    // instead, but by a right to open any file of the file system.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("RLIMIT_NOFILE")?;

    let listener = arguments.listener()?;
    let window = arguments.window()?;
    let state = State::load(arguments.state_file()?).context("--state")?;
    let share = Share::new(window, state, arguments.options())?;
    confine::to(&arguments.shared_dir, arguments.readonly)?;
    share.take_over().context("the guest's inodes")?;

    let server = Arc::new(Server::new(share));
    loop {
        serve(&listener, &server, arguments.queues)?;
        if !arguments.stay {
            return Ok(());
        }
    }
}

/// Prints what is logged.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("virtiofs: {}", record.args());
    }

    fn flush(&self) {}
}
