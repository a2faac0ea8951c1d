// SPDX-License-Identifier: GPL-2.0

//! A VMM whose guest is Debian's Linux, in one of two trials:
//!
//! - `iommu`: the guest's own virtio-iommu driver determines, mapping by mapping, what the
//!   process of its disk can reach.
//! - `dax`: the guest mounts a directory of its host, and a file server changes what is in
//!   the window, without the VMM.
//!
//! Besides, `reading` is for the bench, and makes a guest read a file.
//!
//! Prints TAP. Needs the module, KVM, qemu-storage-daemon and selftests/virtiofs.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod acpi;
mod asked_window;
mod boot;
mod cpus;
mod dax_trial;
mod delayed_kill;
mod disk;
mod fault_queue;
mod file_system;
mod guest_memory;
mod iommu;
mod iommu_trial;
mod machine;
mod miss;
mod msix;
mod pci;
mod probe;
mod reading;
mod report;
mod virtio;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};
use rig::tap::line;

use crate::machine::Console;
use crate::report::Form;

/// The exit status of a skipped kselftest.
const SKIP: u8 = 4;

/// Run a Linux guest whose memory, or whose devices', is an address space.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// What to run it for.
    #[arg(default_value = "iommu")]
    trial: Kind,
    /// A directory with the guest: vmlinux (uncompressed, with CONFIG_PVH), its
    /// modules virtio-iommu.ko.xz and virtio_blk.ko.xz, and the programs init and
    /// dax-init.
    #[arg(long, default_value = "build/guest")]
    guest: PathBuf,
    /// The file server.
    #[arg(long, default_value = "build/virtiofs")]
    server: PathBuf,
    /// How often the file server is killed.
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Run the second guest of dax, on this directory.
    #[arg(long, hide = true)]
    second: Option<PathBuf>,
    /// The directory with the file that the guest of reading reads.
    #[arg(long, hide = true, required_if_eq("trial", "reading"))]
    directory: Option<PathBuf>,
    /// After how many seconds the guest counts as hung.
    #[arg(long, default_value_t = 240)]
    limit: u64,
    /// Print a transcript instead of TAP, of dax.
    #[arg(long)]
    transcript: bool,
    /// Print the guest's console, with more messages of its kernel.
    #[arg(long)]
    console: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Its own virtio-iommu driver determines what the process of its disk can reach.
    Iommu,
    /// It mounts a directory of its host with a DAX window that the file server changes.
    Dax,
    /// It reads a file as it is told on the standard input.
    #[value(hide = true)]
    Reading,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !Path::new("/dev/kvm").exists() {
        line("TAP version 13\n1..1\nok 1 guest # SKIP there is no /dev/kvm");
        return ExitCode::from(SKIP);
    }
    let console = Console::default();
    let watched = console.clone();
    let (show, limit) = (cli.console, Duration::from_secs(cli.limit));
    spawn(move || watch(&watched, show, limit));
    if cli.second.is_some() {
        let watched = console.clone();
        spawn(move || end_with_input(&watched));
    }

    let form = match (cli.transcript, cli.trial) {
        (false, _) => Form::Tap,
        (true, Kind::Dax) => Form::Transcript,
        (true, Kind::Iommu | Kind::Reading) => {
            let error = "there is a transcript of dax only";
            Cli::command()
                .error(ErrorKind::ArgumentConflict, error)
                .exit()
        }
    };
    let kept = match cli.trial {
        Kind::Iommu => iommu_trial::run(&cli.guest, cli.console, &console),
        Kind::Reading => {
            let directory = cli.directory.unwrap_or_default();
            reading::run(&cli.guest, cli.server, directory, cli.console, &console)
        }
        Kind::Dax => {
            let programs = dax_trial::Programs {
                guest: &cli.guest,
                server: cli.server,
                kills: cli.kills,
                verbose: cli.console,
            };
            match cli.second {
                None => dax_trial::run(&programs, form, &console),
                Some(directory) => dax_trial::run_second(&programs, &console, &directory),
            }
        }
    };
    if !kept {
        print_console(&console);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints the guest's console if `show` is set, and ends the program after `limit`.
fn watch(console: &Console, show: bool, limit: Duration) {
    let start = Instant::now();
    let mut shown = 0;
    while start.elapsed() < limit {
        sleep(Duration::from_millis(200));
        if show {
            let text = console.text();
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            for text in text.get(shown..whole).unwrap_or_default().lines() {
                line(&format!("# guest: {text}"));
            }
            shown = whole;
        }
    }
    line(&format!("# the guest hangs: not done after {limit:?}"));
    if !show {
        line("# --console shows where its kernel is");
    }
    end_unfinished(console)
}

/// Ends the program when its standard input does: the first VMM wants to know where it is.
fn end_with_input(console: &Console) {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    line("# the guest is not done, and nobody waits for it");
    end_unfinished(console)
}

fn end_unfinished(console: &Console) -> ! {
    print_console(console);
    print_threads();
    exit(1)
}

/// Prints where in the kernel the VMM and its devices are.
fn print_threads() {
    let me = std::process::id();
    let mut processes = vec![me.to_string()];
    let children = fs::read_to_string(format!("/proc/self/task/{me}/children"));
    processes.extend(children.unwrap_or_default().split(' ').map(str::to_owned));
    for process in processes {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let name = read("comm");
            line(&format!("# {} {}", task.path().display(), name.trim()));
            for frame in read("stack").lines() {
                line(&format!("#   {frame}"));
            }
        }
    }
}

fn print_console(console: &Console) {
    for text in console.text().lines() {
        line(&format!("# guest: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_make_sense() {
        Cli::command().debug_assert();
    }
}
