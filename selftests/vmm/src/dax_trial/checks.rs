// SPDX-License-Identifier: GPL-2.0

//! What is checked of the machine, the window and the directory, and what is said of it.

use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use rig::check::expect;
use rig::fdinfo;
use rig::tap::line;
use vmm_guest::dax::{GUEST, HUGE, MOST_TURNS, REPLY, REPLY_AT, TURNS, turn};
use vmm_guest::pattern::pattern;

use super::QUEUES;
use super::hardware::Hardware;
use super::share::{Share, same};
use super::story;
use crate::guest_memory::GuestMemory;
use crate::machine::Machine;
use crate::report::Report;

/// What the VMM, the guest and the server have done by now.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Messages that the VMM has sent to the server.
    pub talks: u64,
    /// The guest's accesses to registers of the device, which the VMM handles.
    pub accesses: u64,
    pub revocations: u64,
    pub faults: u64,
}

impl Counts {
    pub fn of(machine: &Machine<Hardware>) -> Result<Counts> {
        let files = &machine.devices.files;
        let info = fdinfo::read(machine.devices.memory.space())?;
        Ok(Counts {
            talks: files.device.talks()?,
            accesses: files.accesses,
            revocations: fdinfo::number(&info, "revocations")?,
            faults: fdinfo::number(&info, "faults")?,
        })
    }
}

pub fn mounted(machine: &mut Machine<Hardware>, report: &Report) -> Result<()> {
    let files = &mut machine.devices.files.device;
    ensure!(files.daemon.is_alive()?, "the server is dead");
    expect("starts of the server's queues", files.talks()?, 1)?;
    report.says(
        story::VMM,
        "has told the server where memory and queues are",
    );
    for holding in files.daemon.holdings()? {
        report.says(story::SERVER, &format!("holds {holding}"));
    }
    Ok(())
}

/// Checks that the window shows a file.
pub fn shown(memory: &GuestMemory, report: &Report, name: &str) -> Result<()> {
    let mappings = memory.in_window()?;
    let mut of_file = mappings
        .iter()
        .filter(|mapping| mapping.path.ends_with(name));
    let Some(first) = of_file.next() else {
        bail!("the window does not show {name}, but {mappings:#x?}");
    };
    ensure!(first.prot.starts_with('r'), "it cannot be read: {first:x?}");
    let (all, of_file) = (mappings.len(), 1 + of_file.count());
    let what = format!("has {all} mappings in the window, {of_file} of them of {name}");
    report.says(story::SERVER, &what);
    Ok(())
}

/// Checks the first bytes of what the guest stored, and the host's reply in it; returns
/// what follows.
pub fn expect_stored(share: &Share, length: usize) -> Result<Vec<u8>> {
    let mut should = pattern(GUEST.file, 0, GUEST.length);
    let reply = pattern(REPLY.file, 0, REPLY.length);
    should[REPLY_AT..REPLY_AT + REPLY.length].copy_from_slice(&reply);
    let mut is = fs::read(share.path(GUEST.name))?;
    let rest = is.split_off(length.min(is.len()));
    same(GUEST.name, &is, &should[..length])?;
    Ok(rest)
}

/// Checks that all queues for requests have been used.
pub fn queues(machine: &Machine<Hardware>, report: &Report) -> Result<()> {
    let queues = machine.devices.files.device.running()?;
    expect("queues", queues.len(), 1 + usize::from(QUEUES))?;
    for (index, queue) in queues.iter().enumerate().skip(1) {
        let used = queue.used_index(&machine.ram)?;
        let what = format!("has answered {used} requests in queue {index}");
        report.says(story::SERVER, &what);
        ensure!(used > 0, "queue {index} is not used");
    }
    Ok(())
}

/// Checks that KVM has entries of 2 MiB.
pub fn huge(machine: &Machine<Hardware>, report: &Report) -> Result<()> {
    let (process, vm) = (std::process::id(), machine.vm.as_raw_fd());
    let path = format!("/sys/kernel/debug/kvm/{process}-{vm}/pages_2m");
    let entries = fs::read_to_string(&path).context(path)?;
    let entries: u64 = entries.trim().parse()?;
    let what = format!("KVM has {entries} entries of 2 MiB in its page tables for the guest");
    report.says(story::KERNEL, &what);
    let should = HUGE.length as u64 >> 21;
    ensure!(entries >= should, "{entries} entries for {should} pages");
    Ok(())
}

/// Tells what the host sees of the two guests' doing: for a reader who wants to know why one
/// of them has failed.
pub fn tell_state(machine: &Machine<Hardware>, share: &Share) -> Result<()> {
    let turns = turns_in(&fs::read(share.path(TURNS.name))?)?;
    line(&format!("# turns in the file: {turns}"));
    for text in fdinfo::read(machine.devices.memory.space())?.lines() {
        line(&format!("# fdinfo: {text}"));
    }
    Ok(())
}

fn turns_in(page: &[u8]) -> Result<u64> {
    Ok(page[..8].try_into().map(u64::from_le_bytes)?)
}

pub fn turns(share: &Share, report: &Report) -> Result<()> {
    let page = fs::read(share.path(TURNS.name))?;
    let turns = turns_in(&page)?;
    expect("turns", turns, MOST_TURNS)?;
    let text = turn(MOST_TURNS - 1);
    same(TURNS.name, &page[8..8 + text.len()], text.as_bytes())?;
    report.says(story::HOST, &format!("finds {turns} turns in the file"));
    Ok(())
}
