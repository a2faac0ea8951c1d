// SPDX-License-Identifier: GPL-2.0

//! A tiny KVM guest: a few instructions in flat 32-bit protected mode without paging, so
//! that only the memory slots are between an address of the guest and memory.
//!
//! A test program declares its code with [`flat_code!`](crate::flat_code), puts it into
//! guest memory at [`CODE`], and runs a vCPU with [`run()`].

use std::ops::ControlFlow;

use anyhow::{Context as _, Result, bail, ensure};
use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVMIO, kvm_enable_cap, kvm_pre_fault_memory, kvm_regs,
    kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use crate::plain::Plain;

/// The guest physical address of the program.
pub const CODE: u64 = 0x1000;

/// Declares a guest's program in 32-bit AT&T assembly.
///
/// It defines a function of the given name that returns the program as [`Code`], the
/// labels around it, and, as extern statics, the labels within it that are named.
///
/// ```
/// rig::flat_code! {
///     program: example_start..example_end, labels: [example_store],
///     r#"
///     mov (%esi), %eax
///     hlt
/// example_store:
///     mov %eax, ({place})
///     hlt
///     "#,
///     place = const 0x2000,
/// }
/// # fn main() {
/// let code = program();
/// assert_eq!(code.address(&raw const example_start), rig::flat::CODE);
/// assert_eq!(code.address(&raw const example_store), rig::flat::CODE + 3);
/// assert_eq!(code.bytes()[2], 0xf4); // hlt
/// # }
/// ```
#[macro_export]
macro_rules! flat_code {
    (
        $vis:vis $program:ident: $start:ident..$end:ident, labels: [$($label:ident),* $(,)?],
        $text:literal $(, $name:ident = const $value:expr)* $(,)?
    ) => {
        ::std::arch::global_asm!(
            ".pushsection .rodata.flat_guest, \"a\", @progbits",
            ".code32",
            ::std::concat!(".global ", ::std::stringify!($start)),
            ::std::concat!(".global ", ::std::stringify!($end)),
            $(::std::concat!(".global ", ::std::stringify!($label)),)*
            ::std::concat!(::std::stringify!($start), ":"),
            $text,
            ::std::concat!(::std::stringify!($end), ":"),
            ".code64",
            ".popsection",
            $($name = const $value,)*
            options(att_syntax),
        );

        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
            $(static $label: u8;)*
        }

        /// The guest's program.
        $vis fn $program() -> $crate::flat::Code {
            // SAFETY: The labels are those before and after the code above, which is
            // constant data.
            unsafe { $crate::flat::Code::between(&raw const $start, &raw const $end) }
        }
    };
}

/// A guest's program: machine code in the constant data of the test program.
#[derive(Clone, Copy)]
pub struct Code(&'static [u8]);

impl Code {
    /// The code between two labels; for [`flat_code!`](crate::flat_code).
    ///
    /// # Safety
    ///
    /// Both labels must be in one piece of constant data, `end` not before `start`.
    pub unsafe fn between(start: *const u8, end: *const u8) -> Code {
        let length = end as usize - start as usize;
        // SAFETY: The caller guarantees that this is constant data, which is never freed.
        Code(unsafe { std::slice::from_raw_parts(start, length) })
    }

    /// The machine code, to be put at [`CODE`].
    pub fn bytes(self) -> &'static [u8] {
        self.0
    }

    /// The guest physical address of a label.
    pub fn address(self, label: *const u8) -> u64 {
        CODE + (label as usize - self.0.as_ptr() as usize) as u64
    }
}

/// A virtual machine without devices, with the program in its first memory slot.
pub struct Machine {
    vm: VmFd,
    // After the VM, which uses it.
    ram: Plain,
}

impl Machine {
    /// A machine with `ram` at guest address 0, in slot 0.
    pub fn new(ram: Plain, code: Code) -> Result<Machine> {
        let bytes = code.bytes();
        ensure!(
            CODE as usize + bytes.len() <= ram.length(),
            "the program does not fit into the RAM"
        );
        // SAFETY: The place lies within the mapping, as was checked, and no vCPU exists
        // that could access it.
        unsafe {
            let place = ram.as_ptr().add(CODE as usize);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        let machine = Machine { vm: new_vm()?, ram };
        machine.add_slot(0, 0, &machine.ram)?;
        Ok(machine)
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// The RAM at guest address 0.
    pub fn ram(&self) -> &Plain {
        &self.ram
    }

    /// Gives the guest a plain mapping as a memory slot, as [`add_slot()`] does.
    pub fn add_slot(&self, slot: u32, guest_phys_addr: u64, memory: &Plain) -> Result<()> {
        add_slot(&self.vm, slot, guest_phys_addr, memory)
    }
}

/// Gives a guest a plain mapping as a memory slot. Where the mapping is gone, the guest meets a
/// hole.
pub fn add_slot(vm: &VmFd, slot: u32, guest_phys_addr: u64, memory: &Plain) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr,
        memory_size: memory.length() as u64,
        userspace_addr: memory.as_ptr() as u64,
    };
    // SAFETY: The guest writes to a mapping into which no references exist, as `Plain` gives
    // out only raw pointers.
    unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
}

/// A virtual machine without memory.
pub fn new_vm() -> Result<VmFd> {
    let kvm = Kvm::new().context("cannot open /dev/kvm: is there KVM on this machine?")?;
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    // Intel processors that cannot run real mode need it to start.
    vm.set_tss_address(0xfffb_d000)
        .context("KVM_SET_TSS_ADDR")?;
    Ok(vm)
}

/// Has KVM leave the guest at an instruction that it cannot emulate, whatever its privilege
/// level, with nothing done. Without that the guest is given an invalid opcode exception, too.
pub fn exit_where_kvm_cannot_emulate(vm: &VmFd) -> Result<()> {
    let cap = kvm_enable_cap {
        cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        args: [1, 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&cap)
        .context("KVM_CAP_EXIT_ON_EMULATION_FAILURE")
}

/// A vCPU about to execute the first instruction at [`CODE`].
pub fn new_vcpu(vm: &VmFd, id: u64) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(id).context("KVM_CREATE_VCPU")?;
    enter_protected_mode(&vcpu).context("cannot set the segments")?;
    let mut regs = vcpu.get_regs().context("KVM_GET_REGS")?;
    regs.rip = CODE;
    regs.rflags = 2;
    vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
    Ok(vcpu)
}

/// Puts a vCPU into protected mode, with flat segments of 4 GiB and without paging.
pub fn enter_protected_mode(vcpu: &VcpuFd) -> Result<()> {
    const EXECUTE_READ_ACCESSED: u8 = 0xb;
    const READ_WRITE_ACCESSED: u8 = 0x3;
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
    sregs.cs = segment(0x08, EXECUTE_READ_ACCESSED);
    let data = segment(0x10, READ_WRITE_ACCESSED);
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    (sregs.fs, sregs.gs) = (data, data);
    sregs.cr0 |= CR0_PE;
    vcpu.set_sregs(&sregs)?;
    Ok(())
}

/// What is in a vCPU: a program in flat protected mode that uses no floating point registers
/// from one exit to another needs no more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
}

impl CpuState {
    /// What is in a vCPU that has left the guest.
    pub fn save(vcpu: &mut VcpuFd) -> Result<CpuState> {
        // An instruction that has left the guest ends when the guest is entered again.
        vcpu.set_kvm_immediate_exit(1);
        let ended = vcpu.run().map(drop);
        vcpu.set_kvm_immediate_exit(0);
        ensure!(
            ended.is_err_and(|error| error.errno() == libc::EINTR),
            "KVM_RUN does not return at once"
        );
        Ok(CpuState {
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
        })
    }

    /// A vCPU that goes on where another was.
    pub fn restore(&self, vm: &VmFd, id: u64) -> Result<VcpuFd> {
        let vcpu = vm.create_vcpu(id).context("KVM_CREATE_VCPU")?;
        vcpu.set_sregs(&self.sregs).context("KVM_SET_SREGS")?;
        vcpu.set_regs(&self.regs).context("KVM_SET_REGS")?;
        Ok(vcpu)
    }
}

/// Calls of KVM that kvm-ioctls has not.
mod calls {
    use super::{KVMIO, kvm_pre_fault_memory};

    vmm_sys_util::ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);
}

/// Has KVM enter what is mapped in `length` bytes from `guest_phys_addr` on, as a read of the
/// guest would.
pub fn pre_fault(vcpu: &VcpuFd, guest_phys_addr: u64, length: u64) -> Result<()> {
    let mut range = kvm_pre_fault_memory {
        gpa: guest_phys_addr,
        size: length,
        ..Default::default()
    };
    while range.size > 0 {
        // SAFETY: The call reads the struct, and writes how far it has come.
        let done = unsafe { ioctl_with_mut_ref(vcpu, calls::KVM_PRE_FAULT_MEMORY(), &mut range) };
        let error = std::io::Error::last_os_error();
        ensure!(
            done == 0 || error.kind() == std::io::ErrorKind::Interrupted,
            "KVM_PRE_FAULT_MEMORY: {error}"
        );
    }
    Ok(())
}

/// Runs a vCPU until `exit` breaks with a result. `None`: it met a hole, where `KVM_RUN`
/// fails with EFAULT; run again, it makes the same access again.
///
/// `exit` gets each exit that is no hole; those that a program does not expect go to
/// [`unexpected()`].
pub fn run<T>(
    vcpu: &mut VcpuFd,
    mut exit: impl FnMut(VcpuExit<'_>) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    loop {
        match vcpu.run() {
            // A kernel may or may not say where.
            Ok(VcpuExit::MemoryFault { .. }) => return Ok(None),
            Ok(reason) => match exit(reason) {
                Ok(ControlFlow::Break(result)) => return Ok(Some(result)),
                Ok(ControlFlow::Continue(())) => {}
                Err(error) => return Err(error).with_context(|| place(vcpu)),
            },
            Err(error) if error.errno() == libc::EFAULT => return Ok(None),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error).context("KVM_RUN"),
        }
    }
}

/// Where a vCPU is.
fn place(vcpu: &VcpuFd) -> String {
    match vcpu.get_regs() {
        Ok(regs) => format!(
            "at {:#x} with RAX {:#x}, RCX {:#x}, RSI {:#x} and RDI {:#x}",
            regs.rip, regs.rax, regs.rcx, regs.rsi, regs.rdi
        ),
        Err(error) => format!("its registers cannot be read: {error}"),
    }
}

/// The error for an exit that the program does not make.
pub fn unexpected<T>(exit: &VcpuExit<'_>) -> Result<T> {
    bail!("the guest was left for an unexpected reason: {exit:?}")
}
