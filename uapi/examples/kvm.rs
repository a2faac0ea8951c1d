// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A KVM guest on an address space: it reads a byte, and another file is under it when it
//! reads the byte again.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, KvmFlags, Prot, page_size, vm_fd};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// mov al, [0x1000]; out 0x10, al; jmp to the start
const CODE: &[u8] = &[0xa0, 0x00, 0x10, 0xe6, 0x10, 0xeb, 0xf9];

fn page(content: &[u8]) -> Result<File, Box<dyn Error>> {
    let file = memfd_create("page", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, page_size())?;
    let file = File::from(file);
    file.write_at(content, 0)?;
    Ok(file)
}

fn main() -> Result<(), Box<dyn Error>> {
    // Code in the first page of the guest's memory, data in the second.
    let memory = AddressSpace::new(2 * page_size())?;
    memory
        .map(&page(CODE)?)
        .at(0)
        .prot(Prot::READ_WRITE)
        .commit()?;
    memory
        .map(&page(b"a")?)
        .at(page_size())
        .prot(Prot::READ_WRITE)
        .commit()?;

    let vm = Kvm::new()?.create_vm()?;
    let window = memory.attach_kvm(vm_fd(&vm), 0, 0, .., KvmFlags::empty())?;
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rflags) = (0, 2);
    vcpu.set_regs(&regs)?;

    for content in [None, Some(b"b")] {
        if let Some(content) = content {
            // No memory slot is changed.
            memory
                .map(&page(content)?)
                .at(page_size())
                .prot(Prot::READ_WRITE)
                .replace()
                .commit()?;
        }
        match vcpu.run()? {
            VcpuExit::IoOut(0x10, data) => println!("the guest read {:?}", char::from(data[0])),
            exit => return Err(format!("unexpected exit: {exit:?}").into()),
        }
    }
    // A drop does the same, and does not say if it fails.
    window.unmap()?;
    Ok(())
}
