// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A KVM guest that makes one access at a time, to memory under test.

use std::fs::File;

use address_space::{AddressSpace, KvmFlags, KvmWindow, page_size, vm_fd};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{READ_WRITE, file, pages, space};

/// Guest physical addresses of the code, and of the memory under test.
const CODE: u64 = 0;
pub const TESTED: u64 = 0x8_0000;

const CODE_SLOT: u32 = 0;
pub const SLOT: u32 = 1;

/// Real-mode code. DS:BX is the address to access, AL the byte.
const READ: (u64, &[u8]) = (
    0x00,
    &[
        0x8a, 0x07, // mov al, [bx]
        0xe6, 0x10, // out 0x10, al
        0xf4, // hlt
    ],
);
const WRITE: (u64, &[u8]) = (
    0x10,
    &[
        0x88, 0x07, // mov [bx], al
        0xe6, 0x10, // out 0x10, al
        0xf4, // hlt
    ],
);

/// The result of an access by the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Access {
    Done(char),
    /// KVM_RUN failed with EFAULT.
    Fault,
    /// KVM passed the access to the VMM, as one to a device.
    Mmio,
}

/// A guest that makes one access at a time. Its code is in an address space too.
pub struct Guest {
    // The vCPU is dropped before the VM.
    pub vcpu: VcpuFd,
    pub vm: VmFd,
    _code: KvmWindow,
    _tested: Option<KvmWindow>,
}

impl Guest {
    pub fn new() -> Guest {
        let vm = new_vm();
        let code = space(1);
        code.map(&file("\0"))
            .at(0)
            .prot(READ_WRITE)
            .commit()
            .unwrap();
        let window = code
            .attach_kvm(vm_fd(&vm), CODE_SLOT, CODE, pages(0, 1), KvmFlags::empty())
            .unwrap();
        for (at, bytes) in [READ, WRITE] {
            window.write_slice(at as usize, bytes).unwrap();
        }

        let vcpu = vm.create_vcpu(0).unwrap();
        let mut sregs = vcpu.get_sregs().unwrap();
        (sregs.cs.selector, sregs.cs.base) = ((CODE >> 4) as u16, CODE);
        (sregs.ds.selector, sregs.ds.base) = ((TESTED >> 4) as u16, TESTED);
        vcpu.set_sregs(&sregs).unwrap();
        Guest {
            vcpu,
            vm,
            _code: window,
            _tested: None,
        }
    }

    /// A guest with an address space of this many pages at `TESTED`.
    pub fn with(space: &AddressSpace) -> Guest {
        let mut guest = Guest::new();
        guest._tested = Some(guest.attach(space, KvmFlags::empty()));
        guest
    }

    /// Attaches all of an address space at `TESTED`.
    pub fn attach(&self, space: &AddressSpace, flags: KvmFlags) -> KvmWindow {
        space
            .attach_kvm(vm_fd(&self.vm), SLOT, TESTED, .., flags)
            .unwrap()
    }

    pub fn letter(&mut self, page: u64) -> Access {
        self.access(READ, page, '?')
    }

    pub fn set_letter(&mut self, page: u64, letter: char) -> Access {
        self.access(WRITE, page, letter)
    }

    fn access(&mut self, (code, _): (u64, &[u8]), page: u64, letter: char) -> Access {
        let mut regs = self.vcpu.get_regs().unwrap();
        regs.rip = code;
        regs.rax = letter as u64;
        regs.rbx = page * page_size();
        regs.rflags = 2;
        self.vcpu.set_regs(&regs).unwrap();
        self.go_on()
    }

    /// Continues the guest where it stopped.
    pub fn go_on(&mut self) -> Access {
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(0x10, data)) => Access::Done(char::from(data[0])),
            Ok(VcpuExit::MemoryFault { .. }) => Access::Fault,
            Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Access::Mmio,
            Ok(exit) => panic!("unexpected exit: {exit:?}"),
            Err(error) if error.errno() == libc::EFAULT => Access::Fault,
            Err(error) => panic!("KVM_RUN: {error}"),
        }
    }
}

fn new_vm() -> VmFd {
    Kvm::new()
        .expect("cannot open /dev/kvm")
        .create_vm()
        .unwrap()
}

/// An address space with a page for each letter, and the file it shows.
pub fn mapped(letters: &str) -> (AddressSpace, File) {
    let space = space(letters.len() as u64);
    let file = file(letters);
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    (space, file)
}
