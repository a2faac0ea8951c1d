// SPDX-License-Identifier: GPL-2.0

//! The guest's boot: kernel, initramfs and command line in its memory, and its first CPU in
//! the state of the PVH boot protocol.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use kvm_bindings::{CpuId, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator as _, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{Cmdline, KernelLoader as _, load_cmdline};
use loader_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use rig::flat;
use rig::initramfs::initramfs;
use rig::ram::Ram;

use crate::acpi;

/// What is booted.
pub struct Guest {
    /// The directory with all its files.
    pub folder: PathBuf,
    /// The file with its program,
    pub program: &'static str,
    /// and those with the modules that it loads.
    pub modules: &'static [&'static str],
    /// What the program finds in its environment.
    pub environment: String,
    /// Whether the kernel prints all its messages, which takes time for each letter.
    pub verbose: bool,
}

const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6800;
const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x20000;

/// The kernel waits for no hardware that is missing. The IOMMU's driver is a module, for
/// which its endpoint has to wait.
const ARGUMENTS: &str = "console=ttyS0 reboot=k panic=-1 iommu.strict=1 \
     deferred_probe_timeout=300 mitigations=off audit=0 apparmor=0 nokaslr \
     cryptomgr.notests i8042.nokbd i8042.noaux no_timer_check tsc=reliable";

/// Loads it all into memory; returns the CPU's first instruction.
pub fn load(ram: &Ram, guest: &Guest) -> Result<u64> {
    let file = FileOffset::new(ram.as_fd().try_clone_to_owned()?.into(), 0);
    let all = (GuestAddress(0), ram.length() as usize, Some(file));
    let memory = &GuestMemoryMmap::<()>::from_ranges_with_files([all])?;
    let path = guest.folder.join("vmlinux");
    let name = path.display();
    let mut kernel = File::open(&path).with_context(|| format!("cannot open {name}"))?;
    let loaded = Elf::load(memory, None, &mut kernel, None)
        .with_context(|| format!("{name} is no uncompressed kernel"))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        bail!("{name} has no PVH entry: CONFIG_PVH is off");
    };

    let mut line = Cmdline::new(0x1000)?;
    line.insert_str(ARGUMENTS)?;
    line.insert_str(if guest.verbose {
        "earlyprintk=serial"
    } else {
        "quiet"
    })?;
    // What the kernel does not know becomes the program's environment.
    line.insert_str(&guest.environment)?;
    load_cmdline(memory, GuestAddress(COMMAND_LINE), &line)?;

    let initramfs = initramfs(&guest.folder, guest.program, guest.modules)?;
    let at = (ram.length() - initramfs.len() as u64) & !0xfff;
    ensure!(at > loaded.kernel_end, "the guest's memory is too small");
    ram.write(at, &initramfs)?;

    let mut params = BootParams::new(
        &hvm_start_info {
            magic: 0x336e_c578,
            version: 1,
            nr_modules: 1,
            modlist_paddr: MODULES,
            cmdline_paddr: COMMAND_LINE,
            rsdp_paddr: acpi::RSDP,
            memmap_paddr: MEMORY_MAP,
            memmap_entries: 3,
            ..Default::default()
        },
        GuestAddress(START_INFO),
    );
    let range = |addr, end, type_| hvm_memmap_table_entry {
        addr,
        size: end - addr,
        type_,
        reserved: 0,
    };
    params.set_sections(
        &[
            range(0, 0xa0000, 1),
            range(0xe0000, 0x100000, 2),
            range(0x100000, ram.length(), 1),
        ],
        GuestAddress(MEMORY_MAP),
    );
    params.set_modules(
        &[hvm_modlist_entry {
            paddr: at,
            size: initramfs.len() as u64,
            ..Default::default()
        }],
        GuestAddress(MODULES),
    );
    PvhBootConfigurator::write_bootparams(&params, memory)?;
    Ok(entry.0)
}

/// Sets the registers of the first CPU as the protocol says: protected mode, flat segments,
/// no paging. The others wait until the first one starts them.
pub fn set_cpu(cpu: &VcpuFd, id: u8, mut cpuid: CpuId, entry: u64) -> Result<()> {
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => {
                // The TSC deadline timer, since there is no clock to calibrate another timer.
                leaf.ecx |= (1 << 24) | (1 << 31);
                leaf.ebx = leaf.ebx & 0x00ff_ffff | (u32::from(id) << 24);
            }
            0xb | 0x1f => leaf.edx = id.into(),
            0x8000_001e => leaf.eax = id.into(),
            // No nested guests.
            0x8000_0001 => leaf.ecx &= !(1 << 2),
            _ => {}
        }
    }
    cpu.set_cpuid2(&cpuid)?;
    if id != 0 {
        return Ok(());
    }

    flat::enter_protected_mode(cpu)?;
    let mut sregs = cpu.get_sregs()?;
    sregs.tr = kvm_segment {
        limit: 0x67,
        selector: 0x18,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.cr0 = 0x11;
    sregs.cr4 = 0;
    sregs.efer = 0;
    cpu.set_sregs(&sregs)?;
    cpu.set_regs(&kvm_regs {
        rip: entry,
        rbx: START_INFO,
        rflags: 2,
        ..Default::default()
    })?;
    Ok(())
}
