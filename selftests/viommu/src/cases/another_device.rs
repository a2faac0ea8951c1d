// SPDX-License-Identifier: GPL-2.0

//! A device that is another program for another kind of device: virtiofsd.

use std::path::Path;

use address_space::{Errno, Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::bus::{Bus, Unmap};
use rig::machine::page_of;

use super::common::SECRET;
use crate::fuse::{Machine, PROGRAM};
use rig::show::Show;

/// How FUSE returns that memory is not there.
const EFAULT: i32 = -Errno::FAULT.raw_os_error();

pub(super) fn another_device(show: Show, requests: u32) -> Result<()> {
    ensure!(Path::new(PROGRAM).exists(), "there is no {PROGRAM}");
    serves(show, Machine::new(Bus::memfd)?, requests, false).context("with the memfd")?;
    serves(show, Machine::new(Bus::iommu)?, requests, true).context("with the address space")
}

fn serves(show: Show, mut machine: Machine, requests: u32, enforced: bool) -> Result<()> {
    let name = machine.bus.name();
    let open = machine.open()?;
    let page = machine.ram.pages(page_size())?;
    let back_and_forth = |machine: &mut Machine, index: u32| -> Result<()> {
        let text = page_of(&format!("file contents {index}"));
        let offset = u64::from(index) * page_size();
        machine.ram.write(page, &text)?;
        let mapped = machine.bus.map(page, page_size(), Prot::READ)?;
        let reply = machine.write(open, offset, mapped.addr)?;
        ensure!(reply.is_ok(), "a write: {reply:?}");
        machine.bus.unmap(mapped, Unmap::Strict)?;
        machine.ram.write(page, &vec![0; page_size() as usize])?;
        let mapped = machine.bus.map(page, page_size(), READ_WRITE)?;
        let reply = machine.read(open, offset, mapped.addr)?;
        ensure!(reply.is_ok(), "a read: {reply:?}");
        machine.bus.unmap(mapped, Unmap::Strict)?;
        ensure!(machine.ram.read(page, text.len())? == text, "what is read");
        let file = machine.file()?;
        ensure!(file[offset as usize..].starts_with(&text), "the file");
        Ok(())
    };
    let rounds = (requests / 10).max(1);
    for index in 0..rounds {
        back_and_forth(&mut machine, index)?;
    }
    show.says(
        name,
        &format!("{rounds} pages are written to a file and read back"),
    );

    // As for the disk: a page that the device does not have.
    let secret = machine.ram.pages(page_size())?;
    machine.ram.write(secret, SECRET.as_bytes())?;
    let mapped = machine.bus.map(secret, page_size(), READ_WRITE)?;
    machine.bus.unmap(mapped, Unmap::Strict)?;
    let written = machine.write(open, 0, mapped.addr)?;
    let leaked = machine.file()?.starts_with(SECRET.as_bytes());
    let read = machine.read(open, page_size(), mapped.addr)?;
    let intact = machine.ram.read(secret, SECRET.len())? == SECRET.as_bytes();
    if enforced {
        ensure!(written == Err(EFAULT), "a write from it: {written:?}");
        ensure!(read == Err(EFAULT), "a read into it: {read:?}");
        ensure!(!leaked && intact, "leaked {leaked}, intact {intact}");
        back_and_forth(&mut machine, 0).context("after that")?;
        show.says(
            name,
            "a page that the device does not have: both fail with EFAULT, the page is unchanged, the secret did not leak",
        );
        show.says(name, "virtiofsd stays alive, and goes on");
    } else {
        ensure!(leaked && !intact, "leaked {leaked}, intact {intact}");
        show.says(
            name,
            "a page that the device should not have: its secret is in the file, and it is overwritten",
        );
    }
    Ok(())
}
