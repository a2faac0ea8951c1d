// SPDX-License-Identifier: GPL-2.0

//! What the cases share.

use address_space::page_size;
use anyhow::{Context as _, Result};
use rig::bus::Bus;
use rig::check::expect;
use rig::machine::Machine;
use rig::order::{GOOD, IO_ERROR, Outcome};

use rig::show::Show;

/// What the guest keeps in a page that it never gave to the device.
pub(super) const SECRET: &str = "the guest's private key: 3141592653589793";

/// Runs a case with each bus; the flag says whether there is an IOMMU.
pub(super) fn both(mut case: impl FnMut(&mut Machine, bool) -> Result<()>) -> Result<()> {
    let mut memfd = Machine::new(Bus::memfd)?;
    case(&mut memfd, false).context("with the memfd")?;
    drop(memfd);
    let mut space = Machine::new(Bus::iommu)?;
    case(&mut space, true).context("with the address space")
}

/// Prints what happens with the bus of a machine.
pub(super) fn note(show: Show, machine: &Machine, what: &str) {
    show.says(machine.bus.name(), what);
}

/// Checks that a request fails with an I/O error if there is an IOMMU, and is done otherwise.
pub(super) fn expect_io_error(outcome: Outcome, enforced: bool) -> Result<()> {
    let should = if enforced { IO_ERROR } else { GOOD };
    expect("the request", outcome, should)
}

/// Checks that the device died of a signal.
pub(super) fn expect_death(outcome: Outcome, signal: i32) -> Result<()> {
    expect("the device", outcome, Outcome::Died(Some(signal)))
}

/// Starts a new device after the old one died of a signal, and does I/O with it.
pub(super) fn goes_on(show: Show, machine: &mut Machine) -> Result<()> {
    machine.restart()?;
    machine.check_io(1 << 20, "after the device's death")?;
    note(
        show,
        machine,
        "the VMM starts it again, on the same space; I/O goes on",
    );
    Ok(())
}

/// The size of a page.
pub(super) fn page() -> u32 {
    page_size() as u32
}
