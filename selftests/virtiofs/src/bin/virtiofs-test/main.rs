// SPDX-License-Identifier: GPL-2.0

//! Tests of the file server with the real module, by a driver that makes single requests. A
//! whole guest mounts the directory in the tests of the VMM.
//!
//! Prints TAP.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod confined;
mod guest;
mod jobs;
mod restart;
mod window;

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use rig::process::no_core_files;
use rig::tap;

/// Test the virtio-fs file server.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Run only the cases with one of these words in their names.
    words: Vec<String>,
}

/// A case, which fails if something is not as promised.
type Case = (&'static str, fn() -> Result<()>);

macro_rules! cases {
    ($($file:ident: $($name:ident),*;)*) => {
        const CASES: &[Case] = &[$($((stringify!($name), $file::$name)),*),*];
    };
}

cases! {
    window:
        mapped_file_is_seen_by_the_guest,
        mapping_again_for_writing_makes_a_place_writable,
        map_past_the_end_shows_what_is_appended,
        removing_many_is_one_request,
        map_outside_of_the_window_is_einval,
        map_of_a_file_that_was_not_looked_up_is_ebadf,
        map_for_writing_in_a_readonly_directory_is_erofs,
        map_without_a_window_is_enosys,
        map_of_a_registered_file_needs_no_worker,
        registered_files_do_not_leak,
        file_is_closed_when_the_guest_forgets_it,
        unmounting_leaves_nothing_in_the_window;
    restart:
        mapped_ranges_outlive_the_server,
        files_that_were_registered_are_closed_by_the_next_server,
        inodes_are_the_same_in_the_next_server,
        pending_request_is_answered_by_the_next_server,
        unlinked_file_is_lost_but_for_what_is_mapped,
        request_is_made_once_though_the_server_is_killed;
    confined:
        server_has_nothing_but_the_directory,
        server_needs_no_privilege,
        guest_does_not_leave_the_directory,
        file_belongs_to_the_user_who_makes_it,
        nothing_in_a_readonly_directory_is_changed,
        all_calls_of_a_space_work,
        another_call_ends_the_process;
}

fn main() -> ExitCode {
    // Some of the cases run this program again.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(confined::AGAIN)) {
        return confined::again(arguments);
    }
    let cli = Cli::parse();
    if let Err(error) = no_core_files() {
        eprintln!("virtiofs-test: {error:#}");
        return ExitCode::FAILURE;
    }
    let wanted = |name: &str| cli.words.iter().any(|word| name.contains(word.as_str()));
    let wanted: Vec<_> = (CASES.iter())
        .filter(|(name, _)| cli.words.is_empty() || wanted(name))
        .collect();
    tap::version();
    tap::plan(wanted.len());
    let mut failed = 0;
    for (number, (name, run)) in (1..).zip(&wanted) {
        let result = run();
        tap::report(number, name, &result);
        failed += usize::from(result.is_err());
    }
    tap::totals(wanted.len() - failed, failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
