// SPDX-License-Identifier: GPL-2.0

//! A device that is another program for another kind of device: virtiofsd.

use std::path::Path;

use address_space::iommu::Reason;
use address_space::{Errno, Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::bus::Unmap;
use rig::machine::page_of;

use super::common::{Column, SECRET, expect_fault};
use crate::fuse::{Machine, PROGRAM};
use rig::show::Show;

/// How FUSE returns that memory is not there.
const EFAULT: i32 = -Errno::FAULT.raw_os_error();

pub(super) fn another_device(show: Show, requests: u32) -> Result<()> {
    ensure!(Path::new(PROGRAM).exists(), "there is no {PROGRAM}");
    for column in Column::ALL {
        let machine = Machine::new(column.bus())?;
        serves(show, machine, requests, column).with_context(|| column.context())?;
    }
    Ok(())
}

fn serves(show: Show, mut machine: Machine, requests: u32, column: Column) -> Result<()> {
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
    let file = machine.file()?;
    let leaked = file.starts_with(SECRET.as_bytes());
    if column.is_enforced() {
        expect_fault(&machine.bus, mapped.addr, Prot::READ, Reason::NotMapped)?;
        // So that the next access is reported, too.
        machine.bus.as_iommu()?.domain.report_again(mapped.addr)?;
    }
    let read = machine.read(open, page_size(), mapped.addr)?;
    let intact = machine.ram.read(secret, SECRET.len())? == SECRET.as_bytes();
    if column == Column::Memfd {
        ensure!(leaked && !intact, "leaked {leaked}, intact {intact}");
        show.says(
            name,
            "a page that the device should not have: its secret is in the file, and it is overwritten",
        );
        return Ok(());
    }
    expect_fault(&machine.bus, mapped.addr, Prot::WRITE, Reason::NotMapped)?;
    ensure!(!leaked && intact, "leaked {leaked}, intact {intact}");
    let what = if column == Column::Absorb {
        ensure!(written.is_ok(), "a write from it: {written:?}");
        ensure!(read.is_ok(), "a read into it: {read:?}");
        let zeroes = vec![0; page_size() as usize];
        ensure!(file.starts_with(&zeroes), "it is not zeroes in the file");
        "zeroes are written to the file, what is read is dropped, the VMM hears of both"
    } else {
        ensure!(written == Err(EFAULT), "a write from it: {written:?}");
        ensure!(read == Err(EFAULT), "a read into it: {read:?}");
        "both fail with EFAULT, the page is unchanged, the secret did not leak"
    };
    back_and_forth(&mut machine, 0).context("after that")?;
    show.says(
        name,
        &format!("a page that the device does not have: {what}"),
    );
    show.says(name, "virtiofsd stays alive, and goes on");
    Ok(())
}
