// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_KVM_MAP: an attachment as a memory slot of a virtual machine.
//!
//! A module cannot add a call to the VM's own fd, so these are calls on the asfd or view: a range
//! of it is mapped into the caller, and set as a slot through the VM file's own ioctl, which also
//! checks that the VM is the caller's. From then on KVM follows the attachment by its mmu
//! notifier, and the attachment follows the space.
//!
//! Locks: the caller's mmap lock, and that of `Slots`, never one in the other.

use core::{
    mem::offset_of,
    ops::Range, //
};

use kernel::{
    fs::File,
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    prelude::*, //
};

use crate::{
    attachment::attach::attachment_of,
    call::{
        file::SpaceFile,
        request,
        uapi,
        view::View, //
    },
    layout::Prot,
    space::{
        slots::Slot,
        Space, //
    },
    sys::{
        bindings,
        kvm::{
            Machine,
            Region,
            KVM_MEM_LOG_DIRTY_PAGES,
            KVM_MEM_READONLY, //
        },
        mm::{
            self,
            CurrentMapping, //
        },
    },
};

/// [`uapi::KVM_MAP`] on `of`, whose open file is `file`.
pub(crate) fn map<T: SpaceFile>(of: &T, file: &File, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::KvmMap = uapi::read(ptr)?;
    let of_kvm = KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES;
    request::reject_unknown_flags(arg.flags, of_kvm | uapi::HOLE_FLAGS)?;
    let terms = of.terms();
    let policy = request::policy(arg.flags)?.unwrap_or(terms.policy);
    request::check_range(arg.guest_phys_addr, arg.memory_size)?;
    let part = request::Part::of(of, file);
    part.range(arg.offset, arg.memory_size)?;
    if policy != terms.policy && !T::IS_OWNER {
        return Err(EPERM);
    }
    let machine = Machine::from_fd(arg.vmfd)?;
    let space = of.space();
    let slots = &space.slots;
    let current = current!();
    let mm = current.mm().ok_or(EINVAL)?;
    if slots.window(mm.as_raw(), &machine, arg.slot).is_some() {
        return Err(EEXIST);
    }
    let prot = if arg.flags & KVM_MEM_READONLY != 0 {
        Prot::READ
    } else {
        Prot::READ | Prot::WRITE
    };
    let other = if policy == terms.policy {
        None
    } else {
        let view = View::open(
            c"address_space_slot",
            of.pages(),
            // The file is on no mount of the administrator's, who may have forbidden to execute.
            part.limit() & prot,
            false,
            |_| terms.with_policy(policy),
        )?;
        Some(view)
    };
    // A view that does not allow it answers EACCES.
    let mapping = CurrentMapping::new(
        Some(other.as_deref().unwrap_or(file)),
        0,
        arg.offset as usize,
        arg.memory_size as usize,
        prot.bits(),
        bindings::MAP_SHARED,
    )?;
    let slot = Slot {
        machine: machine.clone(),
        slot: arg.slot,
        length: mapping.length(),
        first: part.range(arg.offset, arg.memory_size)?.start,
        process: current.group_leader().into(),
    };
    slots.add(mm.as_raw(), mapping.addr(), slot)?;
    // Dropping the mapping from here on also removes the slot from the list; but another thread may
    // have unmapped it before it was there.
    let window = (mapping.addr(), mapping.addr() + mapping.length());
    if next_attachment(mm, space, window.0, window.1) != Some(window) {
        space.slots.remove(mm.as_raw(), mapping.keep());
        return unmap_attachments(mm, space, window.0..window.1).and(Err(EFAULT));
    }
    let addr = mapping.addr() as u64;
    machine.set_region(&Region {
        slot: arg.slot,
        flags: arg.flags & of_kvm,
        guest_phys_addr: arg.guest_phys_addr,
        memory_size: arg.memory_size,
        userspace_addr: addr,
    })?;
    if let Err(error) = uapi::write_back(ptr, offset_of!(uapi::KvmMap, window), addr) {
        // A call that fails has changed nothing.
        machine.remove_region(arg.slot)?;
        return Err(error);
    }
    mapping.keep();
    Ok(0)
}

/// [`uapi::KVM_UNMAP`] on `of`.
pub(crate) fn unmap(of: &impl SpaceFile, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::KvmUnmap = uapi::read(ptr)?;
    request::reject_unknown_flags(arg.flags, 0)?;
    let machine = Machine::from_fd(arg.vmfd)?;
    let space = of.space();
    let current = current!();
    let mm = current.mm().ok_or(EINVAL)?;
    let window = space
        .slots
        .window(mm.as_raw(), &machine, arg.slot)
        .ok_or(ENOENT)?;
    if is_sealed(mm, space, &window) {
        return Err(EPERM);
    }
    match machine.remove_region(arg.slot) {
        // KVM has no such slot: the VMM has removed it itself.
        Err(error) if error != EINVAL => return Err(error),
        _ => (),
    }
    // Not there any more if the window is unmapped by another thread.
    space.slots.remove(mm.as_raw(), window.start);
    unmap_attachments(mm, space, window)?;
    Ok(0)
}

/// Unmaps what there is of attachments of the space in bytes `window` of the caller. What the
/// caller has put in their place meanwhile stays.
fn unmap_attachments(mm: &MmWithUser, space: &Space, window: Range<usize>) -> Result {
    let mut at = window.start;
    while let Some((start, stop)) = next_attachment(mm, space, at, window.end) {
        CurrentMapping::adopt(start, stop - start).unmap()?;
        at = stop;
    }
    Ok(())
}

/// Whether any attachment of the space in bytes `window` of the caller is sealed, so that it
/// cannot be unmapped.
fn is_sealed(mm: &MmWithUser, space: &Space, window: &Range<usize>) -> bool {
    let guard = mm.mmap_read_lock();
    let mut at = window.start;
    while let Some(vma) = mm::find_vma(mm, &guard, at).filter(|vma| vma.start() < window.end) {
        if attachment_of(vma, space).is_some() && vma.flags() & bindings::ADDRESS_SPACE_SEALED != 0
        {
            return true;
        }
        at = vma.end();
    }
    false
}

/// The first part of an attachment of the space in bytes `start..end` of the caller.
fn next_attachment(
    mm: &MmWithUser,
    space: &Space,
    start: usize,
    end: usize,
) -> Option<(usize, usize)> {
    let guard = mm.mmap_read_lock();
    let mut at = start;
    while at < end {
        let vma: &VmaRef = mm::find_vma(mm, &guard, at)?;
        let from = vma.start().max(at);
        if from < end && attachment_of(vma, space).is_some() {
            return Some((from, vma.end().min(end)));
        }
        at = vma.end();
    }
    None
}
