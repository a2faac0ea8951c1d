// SPDX-License-Identifier: GPL-2.0

//! The machine but for its CPUs: memory, a serial port for output, and a PCI bus with the
//! devices of a trial.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rig::ram::Ram;
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_guest::ports::{CALL, END, NUMBERS};

use crate::acpi;
use crate::boot::{self, Guest};
use crate::msix::Router;
use crate::pci::{Address, Config, Function, Slot};

/// How much RAM the guest has, in bytes.
const RAM_LENGTH: u64 = 256 << 20;
/// The number of its memory slot.
const RAM_SLOT: u32 = 0;

const SERIAL: u16 = 0x3f8;
/// The keyboard controller, which also resets the machine.
const RESET: u16 = 0x64;
const RESET_NOW: u8 = 0xfe;

const BRIDGE: Slot = Slot(0);

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

/// The devices on the PCI bus.
pub trait Devices {
    /// The last slot with a device.
    const LAST: Slot;

    fn function(&mut self, slot: Slot) -> Option<&mut dyn Function>;
    /// The slot of an IOMMU, and that of the device behind it.
    fn iommu(&self) -> Option<(Slot, Slot)> {
        None
    }
}

/// What devices are made of, and for.
pub struct Base {
    pub vm: Arc<VmFd>,
    pub router: Arc<Router>,
    pub ram: Arc<Ram>,
}

pub struct Machine<D> {
    pub ram: Arc<Ram>,
    pub devices: D,
    pub vm: Arc<VmFd>,
    bridge: Config,
    address: Address,
    serial: Serial<NoInterrupt, NoEvents, Console>,
    numbers: [u8; 16],
    result: u8,
}

/// Why a CPU of the guest's stopped running.
pub enum Stop {
    /// The guest's program makes a call.
    Call(u8, [u64; 2]),
    /// A signal interrupted it.
    Interrupted,
    /// It accessed memory that is not there.
    Hole,
    /// The guest has reset the machine.
    Reset,
}

impl<D: Devices> Machine<D> {
    /// Makes the machine, and so many CPUs, ready to boot.
    pub fn new(
        guest: &Guest,
        cpus: u8,
        console: &Console,
        devices: impl FnOnce(&Base) -> Result<D>,
    ) -> Result<(Machine<D>, Vec<VcpuFd>)> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let vm = Arc::new(kvm.create_vm()?);
        vm.set_tss_address(0xfffb_d000)?;
        // KVM has the local APICs. All interrupts are messages, so that there is no other
        // controller.
        vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        })?;
        let ram = Arc::new(Ram::new(RAM_LENGTH)?);
        let host = ram.memory().get_host_address(GuestAddress(0))?;
        // SAFETY: The memory stays mapped while the machine exists, and CPUs run only in
        // `cpus::run()`, which has the machine meanwhile.
        unsafe {
            vm.set_user_memory_region(kvm_userspace_memory_region {
                slot: RAM_SLOT,
                flags: 0,
                guest_phys_addr: 0,
                memory_size: ram.length(),
                userspace_addr: host as u64,
            })?;
        }
        let base = Base {
            router: Router::new(vm.clone()),
            vm: vm.clone(),
            ram: ram.clone(),
        };
        let devices = devices(&base)?;
        let entry = boot::load(&ram, guest)?;
        acpi::write(&ram, cpus, devices.iommu())?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let cpus = (0..cpus).map(|id| {
            let cpu = vm.create_vcpu(id.into())?;
            // That of the host, as it is now. Without this it is the one that KVM was loaded with:
            // if the host has refined that since, and the processor cannot scale, KVM gives the CPU
            // none, and its timer never fires.
            cpu.set_tsc_khz(0).context("KVM_SET_TSC_KHZ")?;
            boot::set_cpu(&cpu, id, cpuid.clone(), entry)?;
            Ok(cpu)
        });
        let cpus = cpus.collect::<Result<_>>()?;
        let machine = Machine {
            ram,
            devices,
            vm,
            bridge: Config::bridge(),
            address: Address::default(),
            serial: Serial::new(NoInterrupt, console.clone()),
            numbers: [0; 16],
            result: 0,
        };
        Ok((machine, cpus))
    }

    /// Sets what the guest reads after its call.
    pub fn answer(&mut self, good: bool) {
        self.result = u8::from(!good);
    }

    /// Sets the numbers that it reads, if it reads any.
    pub fn answer_numbers(&mut self, numbers: [u64; 2]) {
        for (bytes, number) in self.numbers.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }

    /// Does what a CPU left the guest for; `None` if it may go on.
    pub fn exit(&mut self, exit: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Result<Option<Stop>> {
        match exit {
            Ok(VcpuExit::IoOut(port, bytes)) => return self.write_port(port, bytes),
            Ok(VcpuExit::IoIn(port, bytes)) => self.read_port(port, bytes),
            Ok(VcpuExit::MmioRead(addr, bytes)) => self.read_memory(addr, bytes),
            Ok(VcpuExit::MmioWrite(addr, bytes)) => self.write_memory(addr, bytes)?,
            Ok(VcpuExit::Hlt) => {}
            Ok(VcpuExit::Intr) => return Ok(Some(Stop::Interrupted)),
            Ok(VcpuExit::Shutdown) => bail!("the guest crashed"),
            Ok(exit) => bail!("the guest stopped: {exit:?}"),
            Err(error) => match Errno::from_raw_os_error(error.errno()) {
                Errno::INTR => return Ok(Some(Stop::Interrupted)),
                Errno::FAULT => return Ok(Some(Stop::Hole)),
                // A CPU that another one has to start has been woken up for that.
                Errno::AGAIN => {}
                _ => return Err(error).context("KVM_RUN"),
            },
        }
        Ok(None)
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
                    if let Some(function) = self.devices.function(slot) {
                        function.write_config(at, bytes)?;
                    }
                }
            }
            (RESET, [RESET_NOW]) => return Ok(Some(Stop::Reset)),
            (NUMBERS..END, [byte]) => self.numbers[usize::from(port - NUMBERS)] = *byte,
            (CALL, [number]) => {
                let mut numbers = [0; 2];
                for (number, bytes) in numbers.iter_mut().zip(self.numbers.chunks_exact(8)) {
                    *number = u64::from_le_bytes(bytes.try_into()?);
                }
                return Ok(Some(Stop::Call(*number, numbers)));
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
                    if slot == BRIDGE {
                        self.bridge.read(at, bytes);
                    } else if let Some(function) = self.devices.function(slot) {
                        function.config().read(at, bytes);
                    }
                }
            }
            // Its buffers are always empty.
            RESET => bytes[0] = 0,
            CALL => bytes[0] = self.result,
            NUMBERS..END => bytes[0] = self.numbers[usize::from(port - NUMBERS)],
            _ => {}
        }
    }

    fn read_memory(&mut self, addr: u64, bytes: &mut [u8]) {
        match self.registers(addr) {
            Some((slot, offset)) => {
                if let Some(function) = self.devices.function(slot) {
                    function.read(offset, bytes);
                }
            }
            None => bytes.fill(0xff),
        }
    }

    fn write_memory(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        match self.registers(addr) {
            Some((slot, offset)) => match self.devices.function(slot) {
                Some(function) => function.write(offset, bytes),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The function whose registers are at an address, and the offset in them.
    fn registers(&mut self, addr: u64) -> Option<(Slot, u64)> {
        (1..=D::LAST.0).map(Slot).find_map(|slot| {
            let offset = self.devices.function(slot)?.offset(addr)?;
            Some((slot, offset))
        })
    }
}
