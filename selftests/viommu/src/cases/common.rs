// SPDX-License-Identifier: GPL-2.0

//! What the cases share.

use std::thread::sleep;
use std::time::{Duration, Instant};

use address_space::iommu::Reason;
use address_space::{Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::bus::Bus;
use rig::check::expect;
use rig::daemon::TIMEOUT;
use rig::machine::Machine;
use rig::order::{GOOD, IO_ERROR, Outcome};
use rig::ram::Ram;

use rig::show::Show;

/// What the guest keeps in a page that it never gave to the device.
pub(super) const SECRET: &str = "the guest's private key: 3141592653589793";

/// What is between a device and the RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Nothing: the device has the memfd.
    Memfd,
    /// An IOMMU that ends a device which accesses what it has not.
    Signal,
    /// An IOMMU that absorbs such accesses.
    Absorb,
}

impl Column {
    pub(super) const ALL: [Column; 3] = [Column::Memfd, Column::Signal, Column::Absorb];
    /// Those with an IOMMU.
    pub(super) const ENFORCED: [Column; 2] = [Column::Signal, Column::Absorb];

    /// How its bus is made.
    pub(super) fn bus(self) -> fn(&Ram) -> Result<Bus> {
        match self {
            Column::Memfd => Bus::memfd,
            Column::Signal => Bus::signalling,
            Column::Absorb => Bus::absorbing,
        }
    }

    pub(super) fn is_enforced(self) -> bool {
        self != Column::Memfd
    }

    /// For errors.
    pub(super) fn context(self) -> String {
        format!("with {self:?}")
    }
}

/// Runs a case in each column.
pub(super) fn each(case: impl FnMut(&mut Machine, Column) -> Result<()>) -> Result<()> {
    each_of(&Column::ALL, case)
}

/// Runs a case in these columns.
pub(super) fn each_of(
    columns: &[Column],
    mut case: impl FnMut(&mut Machine, Column) -> Result<()>,
) -> Result<()> {
    for &column in columns {
        let mut machine = Machine::new(column.bus())?;
        case(&mut machine, column).with_context(|| column.context())?;
    }
    Ok(())
}

/// Prints what happens with the bus of a machine.
pub(super) fn note(show: Show, machine: &Machine, what: &str) {
    show.says(machine.bus.name(), what);
}

/// Checks the outcome of a request with data where the device reaches nothing: an I/O error
/// if that is refused, and else it is done.
pub(super) fn expect_refused(outcome: Outcome, column: Column) -> Result<()> {
    let should = match column {
        Column::Signal => IO_ERROR,
        Column::Memfd | Column::Absorb => GOOD,
    };
    expect("the request", outcome, should)
}

/// Checks that the device died of a signal.
pub(super) fn expect_death(outcome: Outcome, signal: i32) -> Result<()> {
    expect("the device", outcome, Outcome::Died(Some(signal)))
}

/// Checks that the device is alive, and has completed the request, whatever with.
pub(super) fn expect_life(machine: &mut Machine, outcome: Outcome) -> Result<()> {
    ensure!(
        matches!(outcome, Outcome::Done(_)),
        "the device does not complete it: {outcome:?}"
    );
    ensure!(machine.daemon().is_alive()?, "the device is dead");
    Ok(())
}

/// Checks that the VMM hears, since it was last asked, of accesses by the device to the page
/// at this address, one of them such an `access`, and of nothing else.
pub(super) fn expect_fault(bus: &Bus, addr: u64, access: Prot, reason: Reason) -> Result<()> {
    let iommu = bus.as_iommu()?;
    let view = iommu.view.id()?;
    let iova = addr & !(page_size() - 1);
    let start = Instant::now();
    let mut heard = false;
    // What the device does after a request may take it some time.
    while !heard {
        for fault in iommu.faults()? {
            let is = (fault.view, fault.iova, fault.reason);
            expect("a fault", is, (view, iova, reason))?;
            heard |= fault.access == access;
        }
        ensure!(
            heard || start.elapsed() < TIMEOUT,
            "the VMM does not hear of {access:?} at {iova:#x}"
        );
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Checks that the device has accessed nothing that it has not.
pub(super) fn expect_no_fault(bus: &Bus) -> Result<()> {
    expect("faults", bus.as_iommu()?.faults()?, vec![])
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

/// Does I/O with the device that is still the same, and has accessed nothing else.
pub(super) fn lives_on(show: Show, machine: &mut Machine) -> Result<()> {
    ensure!(machine.daemon().is_alive()?, "the device is dead");
    machine.check_io(1 << 20, "after what was absorbed")?;
    expect_no_fault(&machine.bus)?;
    note(show, machine, "the device lives, the next request works");
    Ok(())
}

/// The size of a page.
pub(super) fn page() -> u32 {
    page_size() as u32
}
