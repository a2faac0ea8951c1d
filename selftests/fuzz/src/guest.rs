// SPDX-License-Identifier: GPL-2.0

//! A guest of a few instructions in flat 32-bit mode, which reads or writes one word and
//! halts.

use std::arch::global_asm;
use std::os::fd::BorrowedFd;

use address_space::{Errno, KvmFlags, KvmWindow, sys};
use anyhow::{Context as _, Result, bail};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::op::*;
use crate::probe;

/// Where the first window is in the guest, and how far from each other they are.
const WINDOW: u64 = 0x1000_0000;
const DISTANCE: u64 = 0x100_0000;
/// Where the program is, in a slot of its own.
const CODE: u64 = 0x1000;
const RAM: usize = 0x4000;
const FIRST_SLOT: u32 = 1;

global_asm!(
    r#"
    .pushsection .rodata.fuzz_guest, "a", @progbits
    .code32
    .global fuzz_guest_load
    .global fuzz_guest_store
    .global fuzz_guest_end
fuzz_guest_load:
    mov (%esi), %eax
    mov 4(%esi), %edx
    hlt
fuzz_guest_store:
    mov %eax, (%esi)
    mov %edx, 4(%esi)
    hlt
fuzz_guest_end:
    .code64
    .popsection
    "#,
    options(att_syntax),
);

unsafe extern "C" {
    static fuzz_guest_load: u8;
    static fuzz_guest_store: u8;
    static fuzz_guest_end: u8;
}

/// What maps a window in a slot: an asfd or a view.
pub trait Plug {
    fn plug(
        &self,
        vm: BorrowedFd<'_>,
        slot: u32,
        gpa: u64,
        range: std::ops::Range<u64>,
        flags: KvmFlags,
    ) -> address_space::Result<KvmWindow>;
}

impl Plug for address_space::AddressSpace {
    fn plug(
        &self,
        vm: BorrowedFd<'_>,
        slot: u32,
        gpa: u64,
        range: std::ops::Range<u64>,
        flags: KvmFlags,
    ) -> address_space::Result<KvmWindow> {
        self.attach_kvm(vm, slot, gpa, range, flags)
    }
}

impl Plug for address_space::View {
    fn plug(
        &self,
        vm: BorrowedFd<'_>,
        slot: u32,
        gpa: u64,
        range: std::ops::Range<u64>,
        flags: KvmFlags,
    ) -> address_space::Result<KvmWindow> {
        self.attach_kvm(vm, slot, gpa, range, flags)
    }
}

/// A virtual machine of one vCPU.
pub struct Guest {
    // Before the machine: a window that is left holds it.
    windows: [Option<KvmWindow>; SLOTS],
    vcpu: VcpuFd,
    vm: VmFd,
    ram: *mut libc::c_void,
}

impl Guest {
    pub fn boot() -> Result<Guest> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        // Intel processors that cannot run real mode need it to start.
        vm.set_tss_address(0xfffb_d000)
            .context("KVM_SET_TSS_ADDR")?;
        // SAFETY: A new mapping, into which the program fits.
        let ram = unsafe {
            let ram = mmap_anonymous(
                std::ptr::null_mut(),
                RAM,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
            .context("mmap")?;
            let start = &raw const fuzz_guest_load;
            let length = &raw const fuzz_guest_end as usize - start as usize;
            ram.cast::<u8>()
                .add(CODE as usize)
                .copy_from_nonoverlapping(start, length);
            ram
        };
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: RAM as u64,
            userspace_addr: ram as u64,
        };
        // SAFETY: Nobody uses that memory but the guest, and it outlives the machine.
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        enter_protected_mode(&vcpu).context("cannot set the registers")?;
        Ok(Guest {
            windows: Default::default(),
            vcpu,
            vm,
            ram,
        })
    }

    /// Maps a window of an asfd or view.
    pub fn plug(
        &mut self,
        of: &dyn Plug,
        slot: usize,
        at: Span,
        readonly: bool,
        log: bool,
    ) -> Seen {
        let mut flags = KvmFlags::empty();
        flags.set(KvmFlags::READONLY, readonly);
        flags.set(KvmFlags::LOG_DIRTY_PAGES, log);
        let gpa = WINDOW + slot as u64 * DISTANCE;
        let number = FIRST_SLOT + slot as u32;
        let vm = address_space::vm_fd(&self.vm);
        match of.plug(vm, number, gpa, at.bytes(), flags) {
            Ok(window) => {
                self.windows[slot] = Some(window);
                Seen::Done
            }
            Err(error) => Seen::Errno(error.errno().map_or(0, Errno::raw_os_error)),
        }
    }

    /// Removes a slot through any fd, which may be that of another space.
    pub fn unplug(&mut self, fd: BorrowedFd<'_>, slot: usize) -> Result<Seen> {
        use rustix::fd::AsRawFd as _;
        let mut argument = sys::kvm_unmap_address_space {
            size: size_of::<sys::kvm_unmap_address_space>() as u32,
            flags: 0,
            vmfd: self.vm.as_raw_fd(),
            slot: FIRST_SLOT + slot as u32,
        };
        // SAFETY: The argument is what the call takes; the window that it removes is
        // used by nobody, and forgotten here.
        let ret = unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                sys::KVM_UNMAP_ADDRESS_SPACE.into(),
                &raw mut argument,
            )
        };
        if ret == 0 {
            self.windows[slot] = None;
            return Ok(Seen::Done);
        }
        let error = std::io::Error::last_os_error();
        Ok(Seen::Errno(error.raw_os_error().context("no errno")?))
    }

    pub fn touch(&mut self, touches: &[GuestTouch]) -> Result<Vec<Touched>> {
        touches.iter().map(|touch| self.touch_one(touch)).collect()
    }

    fn touch_one(&mut self, touch: &GuestTouch) -> Result<Touched> {
        let address = WINDOW + touch.slot as u64 * DISTANCE + touch.page * PAGE + touch.cell * CELL;
        let start = &raw const fuzz_guest_load as u64;
        let program = match touch.store {
            None => start,
            Some(_) => &raw const fuzz_guest_store as u64,
        };
        let value = touch.store.unwrap_or(0);
        let registers = kvm_regs {
            rip: CODE + (program - start),
            rsi: address,
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            rflags: 2,
            ..Default::default()
        };
        self.vcpu.set_regs(&registers).context("KVM_SET_REGS")?;
        loop {
            let mmio = match self.vcpu.run() {
                Ok(VcpuExit::Hlt) => break,
                Ok(VcpuExit::MmioWrite(..) | VcpuExit::MmioRead(..)) => true,
                Ok(VcpuExit::MemoryFault { .. }) => return Ok(Touched::Fault),
                Err(error) if error.errno() == libc::EFAULT => return Ok(Touched::Fault),
                Err(error) if error.errno() == libc::EINTR => false,
                Ok(exit) => bail!("the guest was left for an unexpected reason: {exit:?}"),
                Err(error) => return Err(error).context("KVM_RUN"),
            };
            if mmio {
                // An exit for a device is only over with the next KVM_RUN: let that do
                // nothing else.
                self.vcpu.set_kvm_immediate_exit(1);
                let _ = self.vcpu.run();
                self.vcpu.set_kvm_immediate_exit(0);
                return Ok(Touched::Mmio);
            }
        }
        if touch.store.is_some() {
            return Ok(Touched::Stored);
        }
        let registers = self.vcpu.get_regs().context("KVM_GET_REGS")?;
        Ok(Touched::Value(
            (registers.rdx << 32) | (registers.rax & 0xffff_ffff),
        ))
    }

    /// Touches what the guest has through the windows in this process.
    pub fn touch_here(&self, touches: &[GuestTouch]) -> Result<Vec<Touched>> {
        touches
            .iter()
            .map(|touch| {
                let window = self.windows[touch.slot].as_ref().context("no window")?;
                let addr = window.as_ptr() as u64 + touch.page * PAGE + touch.cell * CELL;
                Ok(match touch.store {
                    None => probe::load(addr),
                    // SAFETY: Nobody uses the window otherwise.
                    Some(value) => unsafe { probe::store(addr, value) },
                })
            })
            .collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        for window in &mut self.windows {
            // Where it fails the window stays, and with it the machine, which is seen
            // when the module does not unload.
            let _ = window.take().map(KvmWindow::unmap);
        }
        // SAFETY: The vCPU does not run any more.
        let _ = unsafe { munmap(self.ram, RAM) };
    }
}

/// Flat segments of 4 GiB, and no paging.
fn enter_protected_mode(vcpu: &VcpuFd) -> Result<()> {
    const CODE_SEGMENT: u8 = 0xb;
    const DATA_SEGMENT: u8 = 0x3;
    const CR0_PE: u64 = 1;
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = segment(0x08, CODE_SEGMENT);
    let data = segment(0x10, DATA_SEGMENT);
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    sregs.cr0 |= CR0_PE;
    vcpu.set_sregs(&sregs)?;
    Ok(())
}
