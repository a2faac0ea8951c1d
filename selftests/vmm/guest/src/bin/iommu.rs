// SPDX-License-Identifier: GPL-2.0

//! The first and only process of the guest: loads the drivers, does I/O with them,
//! and calls the VMM after each step.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vmm_guest::fault_log::FaultLog;
use vmm_guest::iommu::{ABSORB_PASS, BLOCK, Call, FLOOD_PASS, KILL_PASS, block};
use vmm_guest::ports::{Vmm, init, load};

/// The disk behind the IOMMU, and one that is not.
const DISKS: [&str; 2] = ["0000:00:02.0", "0000:00:03.0"];

/// How many blocks a pass writes and reads.
const BLOCKS: u64 = 16;
/// How many requests are timed.
const TIMED: u64 = 100;

/// Memory for direct I/O.
#[repr(align(4096))]
struct Buffer([u8; BLOCK]);

fn main() {
    init(run, Call::Failed);
}

fn run(vmm: &Vmm) -> Result<()> {
    for module in ["virtio-iommu.ko.xz", "virtio_blk.ko.xz"] {
        load(module)?;
    }
    let disks = [disk(DISKS[0])?, disk(DISKS[1])?];
    ensure!(group(DISKS[0]).exists(), "no IOMMU for the first disk");
    ensure!(!group(DISKS[1]).exists(), "an IOMMU for the second disk");
    vmm.call(Call::Booted, [0, 0])?;

    pass(vmm, &disks[0], 0)?;
    vmm.call(Call::Quiet, [0, 0])?;
    let secret = Secret::new("the guest's private key: 2718281828459045")?;
    let mut log = FaultLog::open()?;
    vmm.call(Call::Secret, [secret.gpa, secret.length])?;
    tell(vmm, &mut log, 0)?;
    pass(vmm, &disks[0], 1)?;
    vmm.call(Call::Absorb, [secret.gpa, secret.length])?;
    tell(vmm, &mut log, 1)?;
    pass(vmm, &disks[0], ABSORB_PASS)?;
    vmm.call(Call::Kill, [0, 0])?;
    pass(vmm, &disks[0], KILL_PASS)?;

    let driver = Path::new("/sys/bus/pci/drivers/virtio-pci");
    fs::write(driver.join("unbind"), DISKS[0])?;
    vmm.call(Call::Unbound, [0, 0])?;
    fs::write(driver.join("bind"), DISKS[0])?;
    let again = disk(DISKS[0])?;
    vmm.call(Call::Bound, [0, 0])?;
    pass(vmm, &again, 3)?;

    time(vmm, &again, [0, 0])?;
    time(vmm, &disks[1], [1, 0])?;
    fs::write(group(DISKS[0]).join("type"), "DMA-FQ").context("deferred unmaps")?;
    time(vmm, &again, [0, 1])?;
    // The kernel flushes every 10 ms.
    sleep(Duration::from_millis(200));
    vmm.call(Call::Deferred, [0, 0])?;
    pass(vmm, &again, 4)?;
    vmm.call(Call::Flood, [0, 0])?;
    pass(vmm, &again, FLOOD_PASS)?;
    vmm.call(Call::Done, [0, 0])
}

/// Tells what the driver has logged, until the VMM has heard of all that it expects.
fn tell(vmm: &Vmm, log: &mut FaultLog, time: u64) -> Result<()> {
    const TRIES: u64 = 100;
    for index in 1..=TRIES {
        while let Some(fault) = log.next_fault()? {
            let second = u64::from(fault.endpoint) | (u64::from(fault.access) << 32);
            vmm.call(Call::Fault, [fault.address, second])?;
        }
        if vmm.ask(Call::Heard, [time, u64::from(index == TRIES)])? {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("the driver has not logged all faults")
}

/// The IOMMU group of a device, which exists if it is behind an IOMMU.
fn group(address: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices")
        .join(address)
        .join("iommu_group")
}

/// The disk of the PCI device with this address.
fn disk(address: &str) -> Result<PathBuf> {
    let device = Path::new("/sys/bus/pci/devices").join(address);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        for entry in fs::read_dir(&device)?.flatten() {
            let Ok(mut names) = fs::read_dir(entry.path().join("block")) else {
                continue;
            };
            if let Some(name) = names.next() {
                let disk = Path::new("/dev").join(name?.file_name());
                if disk.exists() {
                    return Ok(disk);
                }
            }
        }
        sleep(Duration::from_millis(10));
    }
    bail!("{address} does not become a disk")
}

fn open(disk: &Path, flags: OFlags) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(disk)
        .with_context(|| format!("cannot open {}", disk.display()))
}

/// Writes blocks and reads them back, without the page cache and through it; in the
/// pass in which the device is killed, only without it, one at a time.
fn pass(vmm: &Vmm, disk: &Path, pass: u64) -> Result<()> {
    let first = pass * 2 * BLOCKS;
    let at = |index: u64| index * BLOCK as u64;
    let mut buffer = Buffer([0; BLOCK]);
    let direct = open(disk, OFlags::DIRECT)?;
    for index in first..first + BLOCKS {
        buffer.0 = block(index, pass);
        direct.write_all_at(&buffer.0, at(index))?;
    }
    let flags = if pass == KILL_PASS {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let buffered = open(disk, flags)?;
    for index in first + BLOCKS..first + 2 * BLOCKS {
        buffer.0 = block(index, pass);
        buffered.write_all_at(&buffer.0, at(index))?;
    }
    buffered.sync_all()?;
    for index in first..first + 2 * BLOCKS {
        direct.read_exact_at(&mut buffer.0, at(index))?;
        ensure!(
            buffer.0 == block(index, pass),
            "block {index} has other content"
        );
    }
    drop((direct, buffered));
    vmm.call(Call::Wrote, [pass, 2 * BLOCKS])
}

/// Times requests, reads and writes in turn.
fn time(vmm: &Vmm, disk: &Path, way: [u64; 2]) -> Result<()> {
    let file = open(disk, OFlags::DIRECT)?;
    let mut buffer = Buffer([0; BLOCK]);
    let at = |index: u64| (index * 37 % 1024 + 8192) * BLOCK as u64;
    // To warm up.
    for index in 0..8 {
        file.write_all_at(&buffer.0, at(index))?;
    }
    vmm.call(Call::Timing, way)?;
    let start = Instant::now();
    for index in 0..TIMED / 2 {
        file.write_all_at(&buffer.0, at(index))?;
        file.read_exact_at(&mut buffer.0, at(index))?;
    }
    let time = start.elapsed().as_nanos() as u64;
    vmm.call(Call::Took, [TIMED, time])
}

/// A page that is never given to a device.
struct Secret {
    gpa: u64,
    length: u64,
}

impl Secret {
    /// Puts it into memory, where it stays until the end.
    fn new(text: &str) -> Result<Secret> {
        const PRESENT: u64 = 1 << 63;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping of a page where the kernel chooses replaces nothing, and
        // the text is shorter than a page.
        let page = unsafe {
            let page = mmap_anonymous(std::ptr::null_mut(), BLOCK, prot, MapFlags::PRIVATE)?;
            std::ptr::copy_nonoverlapping(text.as_ptr(), page.cast(), text.len());
            page
        };
        let mut entry = [0; 8];
        let at = page as u64 / BLOCK as u64 * 8;
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, at)?;
        let entry = u64::from_le_bytes(entry);
        ensure!(entry & PRESENT != 0, "the secret is not in memory");
        Ok(Secret {
            gpa: (entry & ((1 << 55) - 1)) * BLOCK as u64,
            length: text.len() as u64,
        })
    }
}
