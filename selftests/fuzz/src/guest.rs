// SPDX-License-Identifier: GPL-2.0

//! A guest of a few instructions, which reads or writes one word and halts.

use std::ops::ControlFlow::Break;
use std::os::fd::BorrowedFd;
use std::os::unix::thread::JoinHandleExt as _;
use std::thread::JoinHandle;
use std::time::Instant;

use address_space::{AddressSpace, Errno, KvmFlags, KvmWindow, sys};
use anyhow::{Context as _, Result, bail, ensure};
use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuExit, VcpuFd};
use rig::flat;
use rig::plain::Plain;

use crate::op::*;
use crate::probe;

/// The guest address of the first slot for a space, and the distance between slots.
const FIRST: u64 = 0x1000_0000;
const DISTANCE: u64 = 0x100_0000;
/// How much memory the guest has for its program, which is in slot 0.
const RAM: usize = 0x4000;
const FIRST_SLOT: u32 = 1;

rig::flat_code! {
    program: fuzz_guest_load..fuzz_guest_end, labels: [fuzz_guest_store],
    r#"
    mov (%esi), %eax
    mov 4(%esi), %edx
    hlt
fuzz_guest_store:
    mov %eax, (%esi)
    mov %edx, 4(%esi)
    hlt
    "#,
}

/// A virtual machine of one vCPU.
pub struct Guest {
    // If one cannot be removed the slot stays, and with it the VM; then the module cannot be
    // unloaded, which a test notices.
    windows: [Option<KvmWindow>; SLOTS],
    vcpu: Option<Vcpu>,
    /// The access that waits, in a thread of its own.
    waiting: Option<JoinHandle<(Vcpu, Result<Touched>)>>,
    machine: flat::Machine,
}

/// Its vCPU.
struct Vcpu(VcpuFd);

impl Guest {
    pub fn boot() -> Result<Guest> {
        let machine = flat::Machine::new(Plain::anonymous(RAM)?, program())?;
        Ok(Guest {
            windows: Default::default(),
            vcpu: Some(Vcpu(flat::new_vcpu(machine.vm(), 0)?)),
            waiting: None,
            machine,
        })
    }

    /// Maps a part of an asfd or view in a slot.
    pub fn plug(
        &mut self,
        of: &AddressSpace,
        slot: usize,
        at: Span,
        readonly: bool,
        log: bool,
        holes: u32,
    ) -> Seen {
        let mut flags = KvmFlags::from_bits_retain(holes);
        flags.set(KvmFlags::READONLY, readonly);
        flags.set(KvmFlags::LOG_DIRTY_PAGES, log);
        let gpa = FIRST + slot as u64 * DISTANCE;
        let number = FIRST_SLOT + slot as u32;
        let vm = address_space::vm_fd(self.machine.vm());
        match of.attach_kvm(vm, number, gpa, at.bytes(), flags) {
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
            vmfd: self.machine.vm().as_raw_fd(),
            slot: FIRST_SLOT + slot as u32,
        };
        // SAFETY: The argument is what the call takes. Nothing has a reference into the
        // mapping of the slot that it removes, and `windows` forgets it.
        let ret = unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                sys::KVM_UNMAP_ADDRESS_SPACE.into(),
                &raw mut argument,
            )
        };
        if ret == 0 {
            // That it is gone is what its drop finds.
            self.windows[slot] = None;
            return Ok(Seen::Done);
        }
        let error = std::io::Error::last_os_error();
        Ok(Seen::Errno(error.raw_os_error().context("no errno")?))
    }

    pub fn touch(&mut self, touches: &[GuestTouch]) -> Result<Vec<Touched>> {
        let vcpu = self.vcpu.as_mut().context("the guest waits")?;
        touches.iter().map(|touch| vcpu.touch(touch)).collect()
    }

    /// Begins an access that waits.
    pub fn start(&mut self, touch: GuestTouch) -> Result<()> {
        let mut vcpu = self.vcpu.take().context("the guest waits already")?;
        self.waiting = Some(std::thread::spawn(move || {
            let touched = vcpu.touch(&touch);
            (vcpu, touched)
        }));
        Ok(())
    }

    /// Sends it a signal that does not kill.
    pub fn interrupt(&self) -> Result<()> {
        let thread = self.waiting.as_ref().context("the guest does not wait")?;
        // SAFETY: The thread has not been joined.
        let ret = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        ensure!(ret == 0, "pthread_kill: {ret}");
        Ok(())
    }

    /// The result of the access that waited.
    pub fn result(&mut self, end: Instant) -> Result<Touched> {
        let thread = self.waiting.take().context("the guest does not wait")?;
        while !thread.is_finished() {
            if Instant::now() > end {
                self.waiting = Some(thread);
                bail!("it still waits");
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        match thread.join() {
            Ok((vcpu, touched)) => {
                self.vcpu = Some(vcpu);
                touched
            }
            Err(_) => bail!("its thread has panicked"),
        }
    }

    /// Touches the memory of the slots through their mappings in this process.
    pub fn touch_here(&self, touches: &[GuestTouch]) -> Result<Vec<Touched>> {
        touches
            .iter()
            .map(|touch| {
                let window = self.windows[touch.slot]
                    .as_ref()
                    .context("nothing is in the slot")?;
                let addr = window.as_ptr() as u64 + touch.page * PAGE + touch.cell * CELL;
                Ok(match touch.store {
                    None => probe::load(addr),
                    // SAFETY: Only probes access the mapping.
                    Some(value) => unsafe { probe::store(addr, value) },
                })
            })
            .collect()
    }
}

impl Vcpu {
    fn touch(&mut self, touch: &GuestTouch) -> Result<Touched> {
        let address = FIRST + touch.slot as u64 * DISTANCE + touch.page * PAGE + touch.cell * CELL;
        let entry = match touch.store {
            None => &raw const fuzz_guest_load,
            Some(_) => &raw const fuzz_guest_store,
        };
        let value = touch.store.unwrap_or(0);
        let registers = kvm_regs {
            rip: program().address(entry),
            rsi: address,
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            rflags: 2,
            ..Default::default()
        };
        self.0.set_regs(&registers).context("KVM_SET_REGS")?;
        let mmio = flat::run(&mut self.0, |exit| match exit {
            VcpuExit::Hlt => Ok(Break(false)),
            VcpuExit::MmioWrite(..) | VcpuExit::MmioRead(..) => Ok(Break(true)),
            exit => flat::unexpected(&exit),
        })?;
        match mmio {
            None => return Ok(Touched::Fault),
            Some(false) => {}
            Some(true) => {
                // An exit for a device is only over with the next KVM_RUN: let that do
                // nothing else.
                self.0.set_kvm_immediate_exit(1);
                let _ = self.0.run();
                self.0.set_kvm_immediate_exit(0);
                return Ok(Touched::Mmio);
            }
        }
        if touch.store.is_some() {
            return Ok(Touched::Stored);
        }
        let registers = self.0.get_regs().context("KVM_GET_REGS")?;
        Ok(Touched::Value(
            (registers.rdx << 32) | (registers.rax & 0xffff_ffff),
        ))
    }
}
