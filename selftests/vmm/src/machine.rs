// SPDX-License-Identifier: GPL-2.0

//! The machine: one CPU, memory, a serial port for output, and a PCI bus with an IOMMU and
//! two disks, one of them behind the IOMMU.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rig::ram::Ram;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_guest::{CALL, Call, END, NUMBERS};

use crate::acpi;
use crate::boot;
use crate::disk::{Disk, Reach};
use crate::iommu::Iommu;
use crate::msix::Router;
use crate::pci::{Address, Config, Slot};
use crate::virtio::Function;

/// How much RAM the guest has, in bytes.
const RAM_LENGTH: u64 = 256 << 20;

const SERIAL: u16 = 0x3f8;
/// The keyboard controller, which also resets the machine.
const RESET: u16 = 0x64;
const RESET_NOW: u8 = 0xfe;

const BRIDGE: Slot = Slot(0);
const IOMMU: Slot = Slot(1);
const BEHIND: Slot = Slot(2);
const BESIDE: Slot = Slot(3);

/// What the guest has printed to its console.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

impl io::Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port has no interrupt.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

pub struct Machine {
    pub ram: Rc<Ram>,
    pub iommu: Function<Iommu>,
    /// The disk behind the IOMMU,
    pub behind: Function<Disk>,
    /// and the one that is not.
    pub beside: Function<Disk>,
    bridge: Config,
    address: Address,
    serial: Serial<NoInterrupt, NoEvents, Console>,
    numbers: [u8; 16],
    result: u8,
    _vm: Rc<VmFd>,
}

/// Why the guest stopped running.
pub enum Stop {
    /// The guest's program makes a call.
    Call(Call, [u64; 2]),
    /// A signal interrupted it.
    Interrupted,
    /// The guest has reset the machine.
    Reset,
}

impl Machine {
    /// Makes the machine, and its CPU, ready to boot.
    pub fn new(guest: &Path, verbose: bool, console: &Console) -> Result<(Machine, VcpuFd)> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let vm = Rc::new(kvm.create_vm()?);
        vm.set_tss_address(0xfffb_d000)?;
        // KVM has the local APIC. All interrupts are messages, so that there is no other
        // controller.
        vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        })?;
        let ram = Rc::new(Ram::new(RAM_LENGTH)?);
        let host = ram.memory().get_host_address(GuestAddress(0))?;
        // SAFETY: The memory stays mapped while the machine exists, and the CPU runs only in
        // `Machine::run()`.
        unsafe {
            vm.set_user_memory_region(kvm_userspace_memory_region {
                slot: 0,
                flags: 0,
                guest_phys_addr: 0,
                memory_size: ram.length(),
                userspace_addr: host as u64,
            })?;
        }
        let cpu = vm.create_vcpu(0)?;
        let entry = boot::load(&ram, guest, verbose)?;
        acpi::write(&ram, IOMMU, BEHIND)?;
        boot::set_cpu(&cpu, kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?, entry)?;

        let router = Router::new(vm.clone());
        let iommu = Iommu::new(&ram, BEHIND.bdf())?;
        let behind = Disk::new("behind", Reach::Iommu(iommu.view()?))?;
        let beside = Disk::new("beside", Reach::Ram(ram.clone()))?;
        let machine = Machine {
            iommu: Function::new(iommu, IOMMU, &vm, &router, 0)?,
            behind: Function::new(behind, BEHIND, &vm, &router, 8)?,
            beside: Function::new(beside, BESIDE, &vm, &router, 16)?,
            bridge: Config::bridge(),
            address: Address::default(),
            serial: Serial::new(NoInterrupt, console.clone()),
            numbers: [0; 16],
            result: 0,
            ram,
            _vm: vm,
        };
        Ok((machine, cpu))
    }

    /// Sets what the guest reads after its call.
    pub fn answer(&mut self, good: bool) {
        self.result = u8::from(!good);
    }

    /// Runs the guest until it makes a call, is interrupted, or resets the machine.
    pub fn run(&mut self, cpu: &mut VcpuFd) -> Result<Stop> {
        loop {
            match cpu.run() {
                Ok(VcpuExit::IoOut(port, bytes)) => {
                    if let Some(stop) = self.write_port(port, bytes)? {
                        return Ok(stop);
                    }
                }
                Ok(VcpuExit::IoIn(port, bytes)) => self.read_port(port, bytes),
                Ok(VcpuExit::MmioRead(addr, bytes)) => self.read_memory(addr, bytes),
                Ok(VcpuExit::MmioWrite(addr, bytes)) => self.write_memory(addr, bytes)?,
                Ok(VcpuExit::Hlt) => {}
                Ok(VcpuExit::Intr) => return Ok(Stop::Interrupted),
                Ok(VcpuExit::Shutdown) => bail!("the guest crashed"),
                Ok(exit) => bail!("the guest stopped: {exit:?}"),
                Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {
                    return Ok(Stop::Interrupted);
                }
                Err(error) => return Err(error).context("KVM_RUN"),
            }
        }
    }

    fn write_port(&mut self, port: u16, bytes: &[u8]) -> Result<Option<Stop>> {
        match (port, bytes) {
            (SERIAL..0x400, [byte]) => {
                // It fails only with the interrupt, of which there is none.
                let _ = self.serial.write((port - SERIAL) as u8, *byte);
            }
            (0xcf8..0xcfc, _) => self.address.write(usize::from(port - 0xcf8), bytes),
            (0xcfc..0xd00, _) => {
                if let Some((slot, register)) = self.address.target() {
                    let at = register + usize::from(port - 0xcfc);
                    match slot {
                        IOMMU => self.iommu.write_config(at, bytes)?,
                        BEHIND => self.behind.write_config(at, bytes)?,
                        BESIDE => self.beside.write_config(at, bytes)?,
                        _ => {}
                    }
                }
            }
            (RESET, [RESET_NOW]) => return Ok(Some(Stop::Reset)),
            (NUMBERS..END, [byte]) => self.numbers[usize::from(port - NUMBERS)] = *byte,
            (CALL, [number]) => {
                let call = Call::of(*number).context("no such call")?;
                let mut numbers = [0; 2];
                for (number, bytes) in numbers.iter_mut().zip(self.numbers.chunks_exact(8)) {
                    *number = u64::from_le_bytes(bytes.try_into()?);
                }
                return Ok(Some(Stop::Call(call, numbers)));
            }
            _ => {}
        }
        Ok(None)
    }

    fn read_port(&mut self, port: u16, bytes: &mut [u8]) {
        // A port without a device reads as all ones.
        bytes.fill(0xff);
        match port {
            SERIAL..0x400 => bytes[0] = self.serial.read((port - SERIAL) as u8),
            0xcf8..0xcfc => self.address.read(usize::from(port - 0xcf8), bytes),
            0xcfc..0xd00 => {
                if let Some((slot, register)) = self.address.target() {
                    let at = register + usize::from(port - 0xcfc);
                    match slot {
                        BRIDGE => self.bridge.read(at, bytes),
                        IOMMU => self.iommu.config.read(at, bytes),
                        BEHIND => self.behind.config.read(at, bytes),
                        BESIDE => self.beside.config.read(at, bytes),
                        _ => {}
                    }
                }
            }
            // Its buffers are always empty.
            RESET => bytes[0] = 0,
            CALL => bytes[0] = self.result,
            _ => {}
        }
    }

    fn read_memory(&self, addr: u64, bytes: &mut [u8]) {
        if let Some(offset) = self.iommu.offset(addr) {
            self.iommu.read(offset, bytes);
        } else if let Some(offset) = self.behind.offset(addr) {
            self.behind.read(offset, bytes);
        } else if let Some(offset) = self.beside.offset(addr) {
            self.beside.read(offset, bytes);
        } else {
            bytes.fill(0xff);
        }
    }

    fn write_memory(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        if let Some(offset) = self.iommu.offset(addr) {
            self.iommu.write(offset, bytes)
        } else if let Some(offset) = self.behind.offset(addr) {
            self.behind.write(offset, bytes)
        } else if let Some(offset) = self.beside.offset(addr) {
            self.beside.write(offset, bytes)
        } else {
            Ok(())
        }
    }
}
