// SPDX-License-Identifier: GPL-2.0

//! The guest's program under QEMU: it does what it finds asked in the memory of its first
//! ivshmem device, until the machine is to end.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::thread::sched_yield;
use vmm_guest::mailbox::{ANSWER, REQUEST, Request, WORDS};
use vmm_guest::mapping::{Mapping, Stores};
use vmm_guest::ports::say;

fn main() {
    for (what, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = mount(what, at, what, MountFlags::empty(), None);
    }
    if let Err(error) = run() {
        say(&format!("guest: {error:#}"));
    }
    let _ = reboot(RebootCommand::Restart);
}

fn run() -> Result<()> {
    let devices = devices()?;
    let mailbox = devices.first().context("no ivshmem device")?;
    let mut pages = Vec::new();
    let mut number = 0;
    loop {
        while mailbox.word(REQUEST)?.load(Acquire) == number {
            sched_yield();
        }
        number = mailbox.word(REQUEST)?.load(Acquire);
        let mut words = [0; WORDS];
        for (index, word) in (1..).zip(&mut words) {
            *word = mailbox.word(REQUEST + 8 * index)?.load(Relaxed);
        }
        let request = Request::of(words)?;
        let word = |device: u64, offset: u64| {
            let device = devices.get(device as usize).context("no such device")?;
            device.word(offset as usize)
        };
        let result = match request {
            Request::Load { device, offset } => word(device, offset)?.load(Acquire),
            Request::Store {
                device,
                offset,
                value,
            } => {
                word(device, offset)?.store(value, Release);
                0
            }
            Request::Fill { value } => {
                // With room for a whole page, wherever it begins.
                pages.push(vec![value; 2 * 4096 / 8]);
                pages.len() as u64
            }
            Request::End => 0,
        };
        mailbox.word(ANSWER + 8)?.store(result, Relaxed);
        mailbox.word(ANSWER)?.store(number, Release);
        if request == Request::End {
            return Ok(());
        }
    }
}

/// The memory of the ivshmem devices, in the order of their addresses on the bus.
fn devices() -> Result<Vec<Mapping>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let is =
            |file, id: &str| fs::read_to_string(path.join(file)).is_ok_and(|is| is.trim() == id);
        if is("vendor", "0x1af4") && is("device", "0x1110") {
            found.push(path);
        }
    }
    found.sort();
    found
        .iter()
        .map(|path| {
            fs::write(path.join("enable"), "1").context("enable")?;
            let bar = path.join("resource2");
            let file = OpenOptions::new().read(true).write(true).open(&bar)?;
            let length = file.metadata()?.len() as usize;
            ensure!(length > 0, "{} has no bytes", bar.display());
            Mapping::new(&file, length, Stores::Shared)
        })
        .collect()
}
