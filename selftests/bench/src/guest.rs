// SPDX-License-Identifier: GPL-2.0

//! A guest in flat 32-bit protected mode that runs one small program at a time on memory
//! that it is given: an address space, or a plain memory slot. So what is measured is what
//! stands between a guest's address and memory, and nothing of a guest's own paging.

use std::arch::global_asm;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use address_space::{AddressSpace, KvmFlags, KvmWindow, vm_fd};
use anyhow::{Context as _, Result, bail, ensure};
use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::memory::{Plain, resident};

/// Where the guest finds what it is given.
pub const WINDOW: u64 = 1 << 30;

/// How much memory of its own it has,
const OWN: usize = 1 << 20;
/// where in it the programs are,
const CODE: usize = 0x1000;
/// where it counts its rounds on what is hot,
const COUNT: usize = 0x8000;
/// and where the list of offsets is that it goes through.
const LIST: usize = 0x1_0000;

global_asm!(
    r#"
    .pushsection .rodata.bench_guest, "a", @progbits
    .code32
    .global bench_guest_start, bench_guest_end
    .global bench_guest_read_list, bench_guest_write_list, bench_guest_chase
    .global bench_guest_read_all, bench_guest_write_all, bench_guest_hot
bench_guest_start:

    // EBX: the window; ECX: how many; ESI: the list.
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

    // Each word tells where the next is.
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

    // For ever, ECX pages.
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
bench_guest_end:
    .code64
    .popsection
    "#,
    count = const COUNT,
    options(att_syntax),
);

unsafe extern "C" {
    static bench_guest_start: u8;
    static bench_guest_end: u8;
    static bench_guest_read_list: u8;
    static bench_guest_write_list: u8;
    static bench_guest_chase: u8;
    static bench_guest_read_all: u8;
    static bench_guest_write_all: u8;
    static bench_guest_hot: u8;
}

/// What the guest does.
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
    vm: VmFd,
    own: Plain,
    list_length: usize,
    window: Option<KvmWindow>,
}

impl Machine {
    /// Whose window shows an address space.
    pub fn with_space(space: &AddressSpace) -> Result<Arc<Machine>> {
        let mut machine = Machine::new()?;
        let range = 0..space.length()?;
        let vm = vm_fd(&machine.vm);
        machine.window = Some(space.attach_kvm(vm, 1, WINDOW, range, KvmFlags::empty())?);
        Ok(Arc::new(machine))
    }

    /// Whose window is a plain memory slot, which must stay mapped or be mapped over.
    pub fn with_plain(memory: &Plain) -> Result<Arc<Machine>> {
        let machine = Machine::new()?;
        machine.add_slot(1, WINDOW, memory)?;
        Ok(Arc::new(machine))
    }

    fn new() -> Result<Machine> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        let own = Plain::of(resident(OWN)?, 0, OWN)?;
        let code = programs();
        // SAFETY: There is room between CODE and COUNT, which a test checks.
        unsafe { own.as_ptr().add(CODE).copy_from(code.as_ptr(), code.len()) };
        let machine = Machine {
            vm,
            own,
            list_length: 0,
            window: None,
        };
        machine.add_slot(0, 0, &machine.own)?;
        Ok(machine)
    }

    fn add_slot(&self, slot: u32, guest_phys_addr: u64, memory: &Plain) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr,
            memory_size: memory.length() as u64,
            userspace_addr: memory.as_ptr() as u64,
        };
        // SAFETY: What is mapped there is no memory of Rust's, whoever accesses it.
        unsafe { self.vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
    }

    /// Gives it the list that the list programs go through.
    pub fn set_list(self: &mut Arc<Machine>, offsets: &[u32]) -> Result<()> {
        ensure!(LIST + size_of_val(offsets) <= OWN, "the list is too long");
        let machine = Arc::get_mut(self).context("the machine is in use")?;
        // SAFETY: It fits, and no vCPU runs.
        unsafe {
            let list = machine.own.as_ptr().add(LIST).cast::<u32>();
            list.copy_from(offsets.as_ptr(), offsets.len());
        }
        machine.list_length = offsets.len();
        Ok(())
    }

    /// What KVM tells of it in debugfs.
    fn statistic(&self, name: &str) -> Result<f64> {
        let (pid, fd) = (std::process::id(), self.vm.as_raw_fd());
        let path = format!("/sys/kernel/debug/kvm/{pid}-{fd}/{name}");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim().parse()?)
    }

    /// How many rounds vCPUs have made on what is hot.
    pub fn rounds(&self) -> u32 {
        // SAFETY: A word that the guest counts in.
        unsafe { self.own.as_ptr().add(COUNT).cast::<u32>().read_volatile() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A window outlives what it was made by, and keeps the machine, whose notifier
        // would have a part in what is measured next.
        if let Some(window) = self.window.take() {
            let _ = window.unmap();
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
        let fd = machine.vm.create_vcpu(id).context("KVM_CREATE_VCPU")?;
        enter_protected_mode(&fd).context("cannot set the registers")?;
        let machine = machine.clone();
        Ok(Vcpu { fd, machine })
    }

    /// Makes ready to run a program.
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
        regs.rip = (CODE + entry as usize - programs().as_ptr() as usize) as u64;
        regs.rax = 0;
        regs.rbx = WINDOW;
        regs.rcx = count as u64;
        regs.rsi = LIST as u64;
        regs.rflags = 2;
        self.fd.set_regs(&regs)?;
        Ok(())
    }

    /// Runs it until it ends, or goes on where it met a hole.
    pub fn run(&mut self) -> Result<End> {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::Hlt) => return Ok(End::Done),
                // A kernel may or may not say where.
                Ok(VcpuExit::MemoryFault { .. }) => return Ok(End::Hole),
                Err(error) if error.errno() == libc::EFAULT => return Ok(End::Hole),
                Err(error) if error.errno() == libc::EINTR => {}
                Ok(exit) => bail!("the guest was left for an unexpected reason: {exit:?}"),
                Err(error) => return Err(error).context("KVM_RUN"),
            }
        }
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

fn programs() -> &'static [u8] {
    let (start, end) = (&raw const bench_guest_start, &raw const bench_guest_end);
    // SAFETY: Both are labels around one piece of constant data.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Flat segments of 4 GiB, and no paging.
fn enter_protected_mode(vcpu: &VcpuFd) -> Result<()> {
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
    // Execute, read, accessed; read, write, accessed.
    sregs.cs = segment(0x08, 0xb);
    let data = segment(0x10, 0x3);
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    sregs.cr0 |= 1;
    vcpu.set_sregs(&sregs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_fit_before_the_count() {
        assert!(!programs().is_empty());
        assert!(CODE + programs().len() <= COUNT);
    }
}
