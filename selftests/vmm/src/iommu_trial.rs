// SPDX-License-Identifier: GPL-2.0

//! A guest whose own virtio-iommu driver determines what the process of its disk can reach:
//! what is promised is checked at each call of the guest's program. The guest does not run
//! meanwhile.

mod attack;
mod heard;
mod secret;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use address_space::{Holes, Prot, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::check::expect;
use rig::fdinfo;
use rig::process::no_core_files;
use rig::process::signals::SIGKILL;
use rig::tap::line;
use vmm_guest::iommu::{ABSORB_PASS, BLOCK, Call, FLOOD_PASS, KILL_PASS, block};

use self::heard::{Flood, Heard};
use self::secret::ABSORB;
use crate::boot::Guest;
use crate::cpus::{self, Trial};
use crate::delayed_kill::DelayedKill;
use crate::disk::{Disk, Reach};
use crate::iommu::{Counts, Iommu};
use crate::machine::{Base, Console, Devices, Machine};
use crate::pci::{self, Slot};
use crate::probe::Probe;
use crate::report::{Form, LAST, Report};
use crate::virtio::Function;

/// What is promised, in the order in which it is checked.
const PROMISES: &[&str] = &[
    "guests_own_driver_maps_through_the_space",
    "device_holds_a_view_and_no_ram",
    "guest_reads_back_what_it_wrote",
    "between_requests_only_the_ring_is_mapped",
    "device_reaches_only_what_the_guest_mapped",
    "secret_leaks_without_the_space",
    "secret_is_out_of_reach_of_a_data_descriptor",
    "device_dies_of_a_header_it_was_not_given",
    "guest_logs_where_its_device_was_refused",
    "guests_io_goes_on_with_a_new_device",
    "device_that_absorbs_lives_whatever_it_is_told_to_access",
    "guest_logs_what_its_device_went_without",
    "guests_io_goes_on_with_the_device_that_absorbed",
    "requests_in_flight_when_the_device_dies_are_done",
    "nothing_is_shared_after_the_driver_released_the_disk",
    "driver_that_comes_back_maps_its_ring_anew",
    "deferred_unmaps_are_fewer_steps_and_all_made",
    "flood_of_faults_is_bounded_and_io_goes_on",
    LAST,
];

/// Requests a second, with strict and deferred unmaps and without an IOMMU.
#[derive(Clone, Copy, Default)]
struct Rates {
    strict: f64,
    deferred: f64,
    none: f64,
}

/// The disk behind the IOMMU, and one that is not.
pub struct Hardware {
    iommu: Function<Iommu>,
    behind: Function<Disk>,
    beside: Function<Disk>,
}

const IOMMU: Slot = Slot(1);
const BEHIND: Slot = Slot(2);
const BESIDE: Slot = Slot(3);

impl Devices for Hardware {
    const LAST: Slot = BESIDE;

    fn function(&mut self, slot: Slot) -> Option<&mut dyn pci::Function> {
        match slot {
            IOMMU => Some(&mut self.iommu),
            BEHIND => Some(&mut self.behind),
            BESIDE => Some(&mut self.beside),
            _ => None,
        }
    }

    fn iommu(&self) -> Option<(Slot, Slot)> {
        Some((IOMMU, BEHIND))
    }
}

impl Hardware {
    fn new(base: &Base) -> Result<Hardware> {
        let iommu = Iommu::new(&base.ram, BEHIND.bdf())?;
        let behind = Disk::new("behind", Reach::Iommu(iommu.view(Holes::SIGNAL)?))?;
        let beside = Disk::new("beside", Reach::Ram(base.ram.clone()))?;
        let (vm, router) = (&base.vm, &base.router);
        Ok(Hardware {
            iommu: Function::new(iommu, IOMMU, vm, router)?,
            behind: Function::new(behind, BEHIND, vm, router)?,
            beside: Function::new(beside, BESIDE, vm, router)?,
        })
    }
}

struct IommuTrial {
    report: Report,
    timing: [u64; 2],
    before: Counts,
    rates: Rates,
    kill: Option<DelayedKill>,
    signal: Option<i32>,
    heard: Heard,
    /// What the driver must hear of.
    must: Vec<(u64, Prot)>,
    flood: Option<Flood>,
    done: bool,
}

/// Runs the guest in `folder`; returns whether all promises are kept.
pub fn run(folder: &Path, verbose: bool, console: &Console) -> bool {
    let trial = IommuTrial {
        report: Report::new(Form::Tap, PROMISES),
        timing: [0; 2],
        before: Counts::default(),
        rates: Rates::default(),
        kill: None,
        signal: None,
        heard: Heard::default(),
        must: Vec::new(),
        flood: None,
        done: false,
    };
    let guest = Guest {
        folder: folder.to_owned(),
        program: "init",
        modules: &["virtio-iommu.ko.xz", "virtio_blk.ko.xz"],
        environment: String::new(),
        verbose,
    };
    // The device will die of a signal.
    let made = no_core_files().and_then(|()| Machine::new(&guest, 1, console, Hardware::new));
    cpus::run_and_report(made, trial, |trial| trial.report)
}

impl Trial for IommuTrial {
    type Devices = Hardware;

    fn called(
        &mut self,
        machine: &mut Machine<Hardware>,
        call: u8,
        numbers: [u64; 2],
    ) -> Result<bool> {
        let call = Call::of(call).context("no such call")?;
        self.report.reached(format!("{call:?}"));
        self.done = call == Call::Done;
        Ok(self.reached(machine, call, numbers))
    }

    /// The guest's CPU was interrupted, as it is when the device has died.
    fn interrupted(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let disk = &mut machine.devices.behind.device;
        if self.kill.is_none() || disk.daemon.is_alive()? {
            return Ok(());
        }
        self.kill = None;
        self.signal = disk.signal()?;
        // There is one request at a time, and it is done if it is in the used ring.
        let used = machine.devices.iommu.device.translate(disk.queue()?.used)?;
        let index = machine.ram.read(used + 2, 2)?;
        disk.restart(u16::from_le_bytes([index[0], index[1]]))
    }

    fn reset(&mut self) -> Result<()> {
        ensure!(self.done, "the guest has ended after {}", self.report.at());
        Ok(())
    }
}

impl IommuTrial {
    fn report(&mut self, name: &str, result: Result<()>) {
        self.report.report(name, result);
    }

    /// Checks what is promised at a call of the guest's. Returns whether it may go on.
    fn reached(&mut self, machine: &mut Machine<Hardware>, call: Call, numbers: [u64; 2]) -> bool {
        let failed = self.report.failed();
        match (call, numbers) {
            (Call::Booted, _) => {
                self.report(
                    "guests_own_driver_maps_through_the_space",
                    booted(&machine.devices.iommu.device),
                );
                self.report("device_holds_a_view_and_no_ram", holdings(machine));
            }
            (Call::Wrote, [pass, count]) => {
                let result = written(machine, pass, count);
                match pass {
                    0 => self.report("guest_reads_back_what_it_wrote", result),
                    1 => self.report("guests_io_goes_on_with_a_new_device", result),
                    KILL_PASS => {
                        let result = result.and_then(|()| self.died(machine));
                        self.report("requests_in_flight_when_the_device_dies_are_done", result);
                    }
                    3 => self.report(
                        "driver_that_comes_back_maps_its_ring_anew",
                        result.and_then(|()| only_the_ring(machine)),
                    ),
                    ABSORB_PASS => {
                        let name = "guests_io_goes_on_with_the_device_that_absorbed";
                        self.report(name, result);
                    }
                    FLOOD_PASS => {
                        let queue = machine.devices.iommu.device.faults();
                        let flood = self.flood.take().context("no flood");
                        let result = result.and(flood).and_then(|flood| flood.end(queue));
                        self.report("flood_of_faults_is_bounded_and_io_goes_on", result);
                    }
                    _ => {
                        if let Err(error) = result {
                            line(&format!("# {error:#}"));
                            return false;
                        }
                    }
                }
            }
            (Call::Quiet, _) => {
                self.report(
                    "between_requests_only_the_ring_is_mapped",
                    only_the_ring(machine),
                );
                self.report("device_reaches_only_what_the_guest_mapped", reach(machine));
            }
            (Call::Secret, [gpa, length]) => self.secret(machine, gpa, length as usize),
            (Call::Absorb, [gpa, length]) => {
                let result = self.absorb(machine, gpa, length as usize);
                let name = "device_that_absorbs_lives_whatever_it_is_told_to_access";
                self.report(name, result);
            }
            (Call::Fault, numbers) => self.heard.add(numbers),
            (Call::Heard, [time, last]) => {
                let queue = machine.devices.iommu.device.faults();
                let result = self.heard.check(queue, BEHIND.bdf(), &self.must);
                if result.is_err() && last == 0 {
                    return false;
                }
                self.report(
                    match time {
                        0 => "guest_logs_where_its_device_was_refused",
                        _ => "guest_logs_what_its_device_went_without",
                    },
                    result,
                );
            }
            (Call::Flood, _) => match machine.devices.iommu.device.view(ABSORB) {
                Ok(view) => {
                    let queue = machine.devices.iommu.device.faults();
                    self.flood = Some(Flood::new(view, queue));
                }
                Err(error) => {
                    line(&format!("# {error:#}"));
                    return false;
                }
            },
            (Call::Unbound, _) => self.report(
                "nothing_is_shared_after_the_driver_released_the_disk",
                nothing(machine),
            ),
            (Call::Bound | Call::Done, _) => {}
            (Call::Kill, _) => match DelayedKill::new(&machine.devices.behind.device.daemon) {
                Ok(kill) => self.kill = Some(kill),
                Err(error) => {
                    line(&format!("# {error:#}"));
                    return false;
                }
            },
            (Call::Timing, timing) => {
                self.timing = timing;
                self.before = machine.devices.iommu.device.counts;
            }
            (Call::Took, [requests, time]) => {
                self.took(machine, requests, Duration::from_nanos(time));
            }
            (Call::Deferred, _) => {
                let counts = machine.devices.iommu.device.counts.since(&self.before);
                let result = deferred(&counts).and_then(|()| only_the_ring(machine));
                self.report("deferred_unmaps_are_fewer_steps_and_all_made", result);
                self.compare();
            }
            (Call::Failed, _) => return false,
        }
        self.report.failed() == failed
    }

    fn died(&self, machine: &mut Machine<Hardware>) -> Result<()> {
        expect("the device died of", self.signal, Some(SIGKILL))?;
        ensure!(
            machine.devices.behind.device.daemon.is_alive()?,
            "the new device is dead"
        );
        line("#   the device was killed during the pass, and a new one did the rest");
        Ok(())
    }

    fn took(&mut self, machine: &Machine<Hardware>, requests: u64, time: Duration) {
        let rate = requests as f64 / time.as_secs_f64();
        let counts = machine.devices.iommu.device.counts.since(&self.before);
        let name = match self.timing {
            [1, _] => {
                self.rates.none = rate;
                "no IOMMU"
            }
            [_, 0] => {
                self.rates.strict = rate;
                "strict"
            }
            _ => {
                self.rates.deferred = rate;
                "deferred"
            }
        };
        line(&format!(
            "#   {name}: {rate:.0} requests a second; {} maps and {} unmaps in {} kicks and {} \
             steps of the space, which took {:.1} % of the time",
            counts.maps,
            counts.unmaps,
            counts.kicks,
            counts.steps,
            100.0 * counts.time.as_secs_f64() / time.as_secs_f64(),
        ));
    }

    fn compare(&self) {
        let Rates {
            strict,
            deferred,
            none,
        } = self.rates;
        line(&format!(
            "#   of the rate with no IOMMU: strict {:.2}, deferred {:.2}",
            strict / none,
            deferred / none
        ));
    }
}

fn booted(iommu: &Iommu) -> Result<()> {
    let counts = iommu.counts;
    ensure!(counts.maps > 0 && counts.unmaps > 0, "no map: {counts:?}");
    expect("requests that were refused", counts.refused, 0)?;
    line(&format!(
        "#   at boot: {} maps, {} unmaps",
        counts.maps, counts.unmaps
    ));
    Ok(())
}

fn holdings(machine: &Machine<Hardware>) -> Result<()> {
    for (disk, should) in [
        (&machine.devices.behind.device, "address_space_view"),
        (&machine.devices.beside.device, "guest-ram"),
    ] {
        let holdings = disk.daemon.holdings()?;
        ensure!(!holdings.is_empty(), "the device holds nothing");
        for holding in holdings {
            ensure!(holding.contains(should), "the device holds {holding}");
            line(&format!("#   the device holds {holding}"));
        }
    }
    Ok(())
}

/// Checks that what the guest wrote in a pass is on the disk.
fn written(machine: &Machine<Hardware>, pass: u64, count: u64) -> Result<()> {
    for index in pass * count..(pass + 1) * count {
        let disk = &machine.devices.behind.device;
        let bytes = disk.read(index * BLOCK as u64, BLOCK)?;
        ensure!(bytes == block(index, pass), "block {index} is not there");
    }
    let counts = machine.devices.iommu.device.counts;
    line(&format!(
        "#   {count} blocks written and read; so far {} maps, {} unmaps",
        counts.maps, counts.unmaps
    ));
    expect("requests that were refused", counts.refused, 0)
}

/// What the space shows according to fdinfo, and where in the RAM that is.
fn layout(machine: &Machine<Hardware>) -> Result<Vec<(Range<u64>, u64)>> {
    let info = fdinfo::read(machine.devices.iommu.device.domain().space())?;
    let mappings = fdinfo::mappings(&info)?.into_iter();
    mappings
        .map(|mapping| {
            let path = &mapping.path;
            ensure!(path.contains("guest-ram"), "it shows {path}");
            Ok((mapping.range, mapping.offset))
        })
        .collect()
}

/// Checks that the space shows only what the guest's driver has mapped, its ring.
fn only_the_ring(machine: &Machine<Hardware>) -> Result<()> {
    let queue = machine.devices.behind.device.queue()?;
    let ring = queue.descriptors..queue.used + 6 + 8 * u64::from(queue.size);
    let page = page_size();
    let pages = ring.start & !(page - 1)..ring.end.next_multiple_of(page);
    let layout = layout(machine)?;
    let mut shown = pages.start;
    for (range, _) in &layout {
        expect("what is mapped begins", range.start, shown)?;
        shown = range.end;
    }
    expect("what is mapped ends", shown, pages.end)?;
    for (range, gpa) in layout {
        expect(
            "in RAM",
            machine.devices.iommu.device.translate(range.start)?,
            gpa,
        )?;
        line(&format!(
            "#   mapped: {:#x}..{:#x}, the ring",
            range.start, range.end
        ));
    }
    Ok(())
}

fn nothing(machine: &Machine<Hardware>) -> Result<()> {
    expect("what is mapped", layout(machine)?, vec![])?;
    let pages = readable(machine)?;
    ensure!(pages.is_empty(), "the device reaches {pages:#x?}");
    Ok(())
}

/// Checks that through the view all mapped pages can be read, and no others.
fn reach(machine: &Machine<Hardware>) -> Result<()> {
    let mut mapped = Vec::new();
    for (range, _) in layout(machine)? {
        mapped.extend(range.step_by(page_size() as usize));
    }
    expect("the pages that can be read", readable(machine)?, mapped)
}

/// The pages that can be read through the view, of all where the driver maps and of some
/// at the addresses of the RAM.
fn readable(machine: &Machine<Hardware>) -> Result<Vec<u64>> {
    const DRIVERS: u64 = 64 << 20;
    // The driver is not told of these accesses: the view is no endpoint's.
    let domain = machine.devices.iommu.device.domain();
    let view = domain.view_with(Prot::READ, Holes::SIGNAL)?;
    let end = view.length()?;
    let window = view.attach(0..end, Prot::READ)?;
    let probe = Probe::new()?;
    let mut pages = Vec::new();
    for (range, step) in [(0..machine.ram.length(), 7), (end - DRIVERS..end, 1)] {
        for page in range.step_by(step * page_size() as usize) {
            if probe.can_read(&window, page)? {
                pages.push(page);
            }
        }
    }
    Ok(pages)
}

fn deferred(counts: &Counts) -> Result<()> {
    ensure!(
        counts.steps < counts.maps + counts.unmaps,
        "each map and unmap is a step of its own: {counts:?}"
    );
    Ok(())
}
