// SPDX-License-Identifier: GPL-2.0

//! KVM_MAP_ADDRESS_SPACE: a window as a memory slot of a virtual machine.
//!
//! A module cannot add a call to the VM's own fd, so these are calls on the asfd or
//! view: the window is mapped into the caller, and set as a slot through the VM
//! file's own ioctl, which also checks that the VM is the caller's. From then on KVM
//! follows the window by its mmu notifier, and the window follows the space.
//!
//! `Slots` has a lock of its own, taken by a closing window under its process's mmap
//! lock; so it is never held while anything is mapped.

use core::mem::offset_of;

use kernel::{
    bindings::mm_struct,
    fs::{
        file::LocalFile,
        File, //
    },
    mm::{
        virt::VmaRef,
        MmWithUser,
        MmapReadGuard, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        new_mutex,
        Mutex, //
    },
    transmute::AsBytes,
    uaccess::UserSlice, //
};

use crate::{
    attachment::vma::{
        is_attachment_of,
        make_slot_window, //
    },
    call::{
        file::SpaceFile,
        uapi, //
    },
    layout::Prot,
    space::Space,
    sys::bindings, //
};

// From include/uapi/linux/kvm.h, which is stable.
const KVM_CHECK_EXTENSION: u32 = kernel::ioctl::_IO(0xAE, 0x03);
const KVM_SET_USER_MEMORY_REGION: u32 = kernel::ioctl::_IOW::<Region>(0xAE, 0x46);
const KVM_CAP_USER_MEMORY: usize = 3;
const KVM_MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
const KVM_MEM_READONLY: u32 = 1 << 1;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Region {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

// SAFETY: Integers without padding.
unsafe impl AsBytes for Region {}

/// A virtual machine of the calling process.
///
/// # Invariants
///
/// The file is one that KVM made for a VM.
struct Machine(ARef<File>);

impl Machine {
    /// `EBADF`; `EINVAL` where the fd is no VM; `EIO` where it is another process's.
    fn get(fd: i32) -> Result<Machine> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: An ioctl does not hold a file position.
        let file = unsafe { LocalFile::assume_no_fdget_pos(LocalFile::fget(fd)?) };
        // SAFETY: The file is open.
        if !unsafe { bindings::address_space_helper_is_kvm_vm(file.as_ptr()) } {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        let machine = Machine(file);
        // KVM answers EIO to any call by a process that did not make the VM.
        machine.call(KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY)?;
        Ok(machine)
    }

    /// Whether it is the same VM.
    fn is(&self, other: &Machine) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }

    fn call(&self, cmd: u32, arg: usize) -> Result<isize> {
        // SAFETY: The operations of an open file do not change.
        let call = unsafe { (*(*self.0.as_ptr()).f_op).unlocked_ioctl }.ok_or(EINVAL)?;
        // SAFETY: This is what the ioctl system call does. By the invariant it is
        // KVM that is asked, which reads `arg` as user memory where it is a pointer.
        let ret = unsafe { call(self.0.as_ptr(), cmd, arg) };
        if ret < 0 {
            return Err(Error::from_errno(ret as c_int));
        }
        Ok(ret)
    }

    /// Sets a memory slot.
    fn set_region(&self, region: &Region) -> Result {
        // KVM reads the region from user memory.
        let note = Mapped::anonymous(PAGE_SIZE)?;
        UserSlice::new(UserPtr::from_addr(note.addr), PAGE_SIZE)
            .writer()
            .write(region)?;
        self.call(KVM_SET_USER_MEMORY_REGION, note.addr).map(|_| ())
    }

    fn remove_region(&self, slot: u32) -> Result {
        self.set_region(&Region {
            slot,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: 0,
            userspace_addr: 0,
        })
    }
}

/// Something mapped in the calling process, unmapped on drop.
struct Mapped {
    addr: usize,
    length: usize,
}

impl Mapped {
    fn new(
        file: *mut bindings::file,
        offset: usize,
        length: usize,
        prot: u32,
        flags: u32,
    ) -> Result<Mapped> {
        // SAFETY: Acts on the current mm, which an ioctl has; the file is open or
        // null.
        let addr =
            unsafe { bindings::vm_mmap(file, 0, length, prot as usize, flags as usize, offset) };
        if (addr as isize) < 0 {
            return Err(Error::from_errno(addr as isize as c_int));
        }
        Ok(Mapped { addr, length })
    }

    fn anonymous(length: usize) -> Result<Mapped> {
        let prot = bindings::PROT_READ | bindings::PROT_WRITE;
        let flags = bindings::MAP_PRIVATE | bindings::MAP_ANONYMOUS;
        Self::new(core::ptr::null_mut(), 0, length, prot, flags)
    }

    fn window(file: &File, offset: usize, length: usize, prot: Prot) -> Result<Mapped> {
        Self::new(
            file.as_ptr(),
            offset,
            length,
            prot.bits(),
            bindings::MAP_SHARED,
        )
    }

    fn keep(self) -> usize {
        let addr = self.addr;
        core::mem::forget(self);
        addr
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: Acts on the current mm; what `new` mapped is unmapped.
        unsafe { bindings::vm_munmap(self.addr, self.length) };
    }
}

/// A window that is a memory slot.
struct Slot {
    /// The process's mm: compared, never followed.
    mm: usize,
    /// Held, or the next VM might be taken for it. The window's end lets it go.
    machine: Machine,
    slot: u32,
    window: usize,
    length: usize,
}

/// The windows of a space that are memory slots. An entry goes when its window does.
#[pin_data]
pub(crate) struct Slots {
    #[pin]
    inner: Mutex<KVec<Slot>>,
}

impl Slots {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(KVec::new(), "Slots"),
        })
    }

    fn add(&self, slot: Slot) -> Result {
        Ok(self.inner.lock().push(slot, GFP_KERNEL_ACCOUNT)?)
    }

    fn has(&self, machine: &Machine, slot: u32) -> bool {
        self.inner
            .lock()
            .iter()
            .any(|known| known.machine.is(machine) && known.slot == slot)
    }

    fn take(&self, machine: &Machine, slot: u32) -> Option<Slot> {
        let mut inner = self.inner.lock();
        let at = inner
            .iter()
            .position(|known| known.machine.is(machine) && known.slot == slot)?;
        inner.remove(at).ok()
    }

    /// The window that begins at `start` of `mm` is gone. Called with the mmap lock
    /// of `mm` held.
    pub(crate) fn forget_window(&self, mm: *mut mm_struct, start: usize) {
        self.inner
            .lock()
            .retain(|known| known.mm != mm as usize || known.window != start);
    }
}

/// [`uapi::KVM_MAP`] on `of`, whose open file is `file`.
pub(crate) fn map(of: &impl SpaceFile, file: &File, ptr: UserPtr) -> Result<isize> {
    let mut arg: uapi::KvmMap = uapi::read(ptr)?;
    uapi::only(arg.flags, KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES)?;
    uapi::range(arg.guest_phys_addr, arg.memory_size)?;
    uapi::range_within(arg.offset, arg.memory_size, of.pages())?;
    let machine = Machine::get(arg.vmfd)?;
    let slots = &of.handle().space().slots;
    if slots.has(&machine, arg.slot) {
        return Err(EEXIST);
    }
    let prot = if arg.flags & KVM_MEM_READONLY != 0 {
        Prot::READ
    } else {
        Prot::READ | Prot::WRITE
    };
    // A view that does not allow it answers EACCES.
    let window = Mapped::window(file, arg.offset as usize, arg.memory_size as usize, prot)?;
    let current = current!();
    let mm = current.mm().ok_or(EINVAL)?;
    make_slot_window(mm, window.addr);
    slots.add(Slot {
        mm: mm.as_raw() as usize,
        machine: Machine(machine.0.clone()),
        slot: arg.slot,
        window: window.addr,
        length: window.length,
    })?;
    // Dropping the window from here on also forgets the slot.
    machine.set_region(&Region {
        slot: arg.slot,
        flags: arg.flags,
        guest_phys_addr: arg.guest_phys_addr,
        memory_size: arg.memory_size,
        userspace_addr: window.addr as u64,
    })?;
    arg.window = window.addr as u64;
    if let Err(error) = uapi::write_back(ptr, offset_of!(uapi::KvmMap, window), arg.window) {
        // A call that fails has changed nothing.
        machine.remove_region(arg.slot)?;
        return Err(error);
    }
    window.keep();
    Ok(0)
}

/// [`uapi::KVM_UNMAP`] on `of`.
pub(crate) fn unmap(of: &impl SpaceFile, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::KvmUnmap = uapi::read(ptr)?;
    uapi::only(arg.flags, 0)?;
    let machine = Machine::get(arg.vmfd)?;
    let space = of.handle().space();
    let slot = space.slots.take(&machine, arg.slot).ok_or(ENOENT)?;
    match machine.remove_region(arg.slot) {
        // KVM has no such slot: the VMM has removed it itself.
        Err(error) if error != EINVAL => {
            space.slots.add(slot)?;
            return Err(error);
        }
        _ => (),
    }
    let end = slot.window + slot.length;
    let mut at = slot.window;
    // What the caller has put in the window's place meanwhile stays.
    while let Some((start, stop)) = next_window(space, at, end) {
        drop(Mapped {
            addr: start,
            length: stop - start,
        });
        at = stop;
    }
    Ok(0)
}

/// The first part of a window of the space that the caller has in `start..end`.
fn next_window(space: &Space, start: usize, end: usize) -> Option<(usize, usize)> {
    let current = current!();
    let mm = current.mm()?;
    let guard = mm.mmap_read_lock();
    let mut at = start;
    while at < end {
        let vma = first_vma(&guard, mm, at)?;
        let from = vma.start().max(at);
        if from < end && is_attachment_of(vma, space) {
            return Some((from, vma.end().min(end)));
        }
        at = vma.end();
    }
    None
}

/// The first VMA that ends after `addr`.
fn first_vma<'a>(_held: &'a MmapReadGuard<'_>, mm: &MmWithUser, addr: usize) -> Option<&'a VmaRef> {
    // SAFETY: The mmap lock is held.
    let vma = unsafe { bindings::find_vma(mm.as_raw(), addr) };
    if vma.is_null() {
        return None;
    }
    // SAFETY: The VMA is valid while the lock is held.
    Some(unsafe { VmaRef::from_raw(vma) })
}
