// SPDX-License-Identifier: GPL-2.0

//! A VMM whose guest is Debian's Linux. The guest's own virtio-iommu driver determines,
//! mapping by mapping, what the process of its disk can reach.
//!
//! Prints TAP. Needs the module, KVM and qemu-storage-daemon.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod acpi;
mod attack;
mod boot;
mod delayed_kill;
mod disk;
mod iommu;
mod machine;
mod msix;
mod pci;
mod trial;
mod virtio;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use rig::process::no_core_files;
use rig::tap::line;

use crate::machine::{Console, Machine, Stop};
use crate::trial::Trial;

/// The exit status of a skipped kselftest.
const SKIP: u8 = 4;

/// Run a Linux guest whose own driver determines what the process of its disk can reach.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// A directory with the guest: vmlinux (uncompressed, with CONFIG_PVH), its
    /// modules virtio-iommu.ko.xz and virtio_blk.ko.xz, and init.
    #[arg(long, default_value = "build/guest")]
    guest: PathBuf,
    /// After how many seconds the guest counts as hung.
    #[arg(long, default_value_t = 160)]
    limit: u64,
    /// Print the guest's console, with more messages of its kernel.
    #[arg(long)]
    console: bool,
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

    let mut trial = Trial::new();
    let result = run(&cli, &console, &mut trial);
    let failed = result.is_err();
    if !trial.end(&result) || failed {
        print_console(&console);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(cli: &Cli, console: &Console, trial: &mut Trial) -> Result<()> {
    // The device will die of a signal.
    no_core_files()?;
    let start = Instant::now();
    let (mut machine, mut cpu) = Machine::new(&cli.guest, cli.console, console)?;
    let mut at = "its kernel's boot".to_owned();
    loop {
        match machine.run(&mut cpu)? {
            Stop::Reset => {
                ensure!(at == "Done", "the guest has ended after {at}");
                return Ok(());
            }
            Stop::Interrupted => trial.interrupted(&mut machine)?,
            Stop::Call(call, numbers) => {
                at = format!("{call:?}");
                line(&format!("# {:.1?}: the guest is at {at}", start.elapsed()));
                let good = trial.reached(&mut machine, call, numbers);
                machine.answer(good);
            }
        }
    }
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
    print_console(console);
    print_threads();
    exit(1);
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
    use clap::CommandFactory as _;

    #[test]
    fn arguments_make_sense() {
        Cli::command().debug_assert();
    }
}
