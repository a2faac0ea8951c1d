// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! KVM's own call for memory slots, of which the crate uses one case: other flags for a slot
//! that there is.

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use crate::window::Memory;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

const KVM_SET_USER_MEMORY_REGION: Opcode = opcode::write::<Region>(0xAE, 0x46);

/// Sets the flags, as of KVM, of a slot that shows `memory`. A slot that has been removed is
/// there again; KVM refuses to change one that has other memory.
pub(super) fn set_flags(
    vm: impl AsFd,
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory: &Memory,
) -> Result<()> {
    let region = Region {
        slot,
        flags,
        guest_phys_addr,
        memory_size: memory.len() as u64,
        userspace_addr: memory.as_ptr().expose_provenance() as u64,
    };
    // SAFETY: What the guest can access is what `memory` has, where others may change the
    // bytes anyway; and it stays mapped until the slot is removed. On a file that is not a
    // virtual machine the call is ENOTTY.
    unsafe { ioctl(vm, Setter::<KVM_SET_USER_MEMORY_REGION, _>::new(region)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_the_one_of_linux_kvm_h() {
        assert_eq!(KVM_SET_USER_MEMORY_REGION, 0x4020_ae46);
        assert_eq!(
            size_of::<kvm_bindings::kvm_userspace_memory_region>(),
            size_of::<Region>()
        );
    }
}
