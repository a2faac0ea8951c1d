// SPDX-License-Identifier: GPL-2.0

//! A guest that runs one small program at a time on an address space or on a plain memory
//! slot. It has no paging of its own, so that only the memory slot is measured.

use std::ops::ControlFlow::Break;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use address_space::{AddressSpace, KvmFlags, KvmWindow, vm_fd};
use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rig::flat;
use rig::plain::Plain;

use crate::memory::resident;

/// The guest address of the memory that is measured.
pub const WINDOW: u64 = 1 << 30;

/// How much other memory the guest has, from guest address 0 on;
const OWN: usize = 1 << 20;
/// where in it the hot program counts its rounds,
const COUNT: usize = 0x8000;
/// and where the list of offsets is that it goes through.
const LIST: usize = 0x1_0000;

rig::flat_code! {
    programs: bench_guest_start..bench_guest_end,
    labels: [
        bench_guest_read_list, bench_guest_write_list, bench_guest_chase,
        bench_guest_read_all, bench_guest_write_all, bench_guest_hot,
    ],
    r#"
    // EBX: the memory; ECX: how many; ESI: the list.
bench_guest_read_list:
    mov (%esi), %eax
    mov (%ebx, %eax), %edx
    add $4, %esi
    dec %ecx
    jnz bench_guest_read_list
    hlt
bench_guest_write_list:
    mov (%esi), %eax
    mov %ecx, (%ebx, %eax)
    add $4, %esi
    dec %ecx
    jnz bench_guest_write_list
    hlt

    // Each word is the offset of the next.
bench_guest_chase:
    mov (%ebx, %eax), %eax
    dec %ecx
    jnz bench_guest_chase
    hlt

    // ECX: how many words.
bench_guest_read_all:
    mov (%ebx), %edx
    add $4, %ebx
    dec %ecx
    jnz bench_guest_read_all
    hlt
bench_guest_write_all:
    mov %ecx, (%ebx)
    add $4, %ebx
    dec %ecx
    jnz bench_guest_write_all
    hlt

    // ECX pages, endlessly.
bench_guest_hot:
    mov %ebx, %edi
    mov %ecx, %edx
bench_guest_hot_page:
    mov (%edi), %eax
    add $4096, %edi
    dec %edx
    jnz bench_guest_hot_page
    lock incl ({count})
    jmp bench_guest_hot
    "#,
    count = const COUNT,
}

/// A program of the guest.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// Read, or write, at each offset of its list.
    ReadList,
    WriteList,
    /// Go from word to word, so many times.
    Chase(usize),
    /// Read, or write, so many bytes in their order.
    ReadAll(usize),
    WriteAll(usize),
    /// Read a word of each of so many pages, again and again.
    Hot(usize),
}

/// A virtual machine.
pub struct Machine {
    flat: flat::Machine,
    list_length: usize,
    /// It goes with the machine: the VM's notifier would take part in what is measured next.
    _window: Option<KvmWindow>,
}

impl Machine {
    /// A machine with an address space.
    pub fn with_space(space: &AddressSpace) -> Result<Arc<Machine>> {
        let mut machine = Machine::new()?;
        let range = 0..space.length()?;
        let vm = vm_fd(machine.flat.vm());
        machine._window = Some(space.attach_kvm(vm, 1, WINDOW, range, KvmFlags::empty())?);
        Ok(Arc::new(machine))
    }

    /// A machine with a plain memory slot. `memory` must outlive it; parts may be mapped
    /// over.
    pub fn with_plain(memory: &Plain) -> Result<Arc<Machine>> {
        let machine = Machine::new()?;
        machine.flat.add_slot(1, WINDOW, memory)?;
        Ok(Arc::new(machine))
    }

    fn new() -> Result<Machine> {
        let own = Plain::of(resident(OWN)?, 0, OWN)?;
        Ok(Machine {
            flat: flat::Machine::new(own, programs())?,
            list_length: 0,
            _window: None,
        })
    }

    /// Writes the list for the list programs.
    pub fn set_list(self: &mut Arc<Machine>, offsets: &[u32]) -> Result<()> {
        ensure!(LIST + size_of_val(offsets) <= OWN, "the list is too long");
        let machine = Arc::get_mut(self).context("the machine is in use")?;
        // SAFETY: It fits, as was checked, and no vCPU runs: a vCPU has an `Arc` of the
        // machine, and this is the only one.
        unsafe {
            let list = machine.flat.ram().as_ptr().add(LIST).cast::<u32>();
            list.copy_from(offsets.as_ptr(), offsets.len());
        }
        machine.list_length = offsets.len();
        Ok(())
    }

    /// A statistic that KVM has in debugfs.
    fn statistic(&self, name: &str) -> Result<f64> {
        let (pid, fd) = (std::process::id(), self.flat.vm().as_raw_fd());
        let path = format!("/sys/kernel/debug/kvm/{pid}-{fd}/{name}");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim().parse()?)
    }

    /// How many rounds of the hot program the vCPUs have made.
    pub fn rounds(&self) -> u32 {
        // SAFETY: The word lies within the RAM, and the guest, which counts in it, is not
        // a thread of this program.
        unsafe {
            self.flat
                .ram()
                .as_ptr()
                .add(COUNT)
                .cast::<u32>()
                .read_volatile()
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// It met a hole.
    Hole,
}

/// One vCPU.
pub struct Vcpu {
    // Before the machine.
    fd: VcpuFd,
    machine: Arc<Machine>,
}

impl Vcpu {
    pub fn new(machine: &Arc<Machine>, id: u64) -> Result<Vcpu> {
        let fd = flat::new_vcpu(machine.flat.vm(), id)?;
        let machine = machine.clone();
        Ok(Vcpu { fd, machine })
    }

    /// Sets the registers for a program.
    pub fn load(&mut self, program: Program) -> Result<()> {
        let list = self.machine.list_length;
        let (entry, count) = match program {
            Program::ReadList => (&raw const bench_guest_read_list, list),
            Program::WriteList => (&raw const bench_guest_write_list, list),
            Program::Chase(times) => (&raw const bench_guest_chase, times),
            Program::ReadAll(bytes) => (&raw const bench_guest_read_all, bytes / 4),
            Program::WriteAll(bytes) => (&raw const bench_guest_write_all, bytes / 4),
            Program::Hot(pages) => (&raw const bench_guest_hot, pages),
        };
        let mut regs = self.fd.get_regs()?;
        regs.rip = programs().address(entry);
        regs.rax = 0;
        regs.rbx = WINDOW;
        regs.rcx = count as u64;
        regs.rsi = LIST as u64;
        regs.rflags = 2;
        self.fd.set_regs(&regs)?;
        Ok(())
    }

    /// Has KVM enter so many bytes of the memory before the program touches them.
    pub fn pre_fault(&self, length: usize) -> Result<()> {
        flat::pre_fault(&self.fd, WINDOW, length as u64)
    }

    /// Runs the program until it ends or meets a hole; run again, it goes on there.
    pub fn run(&mut self) -> Result<End> {
        let end = flat::run(&mut self.fd, |exit| match exit {
            VcpuExit::Hlt => Ok(Break(End::Done)),
            exit => flat::unexpected(&exit),
        })?;
        Ok(end.unwrap_or(End::Hole))
    }
}

impl Vcpu {
    /// How many 4 KiB entries the machine's nested page tables have,
    pub fn small_entries(&self) -> Result<f64> {
        self.machine.statistic("pages_4k")
    }

    /// and how many of 2 MiB.
    pub fn huge_entries(&self) -> Result<f64> {
        self.machine.statistic("pages_2m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_fit_before_the_count() {
        let length = programs().bytes().len();
        assert!(length > 0 && flat::CODE as usize + length <= COUNT);
    }
}
