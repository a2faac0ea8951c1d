// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Address spaces as the memory of a KVM guest. Needs the module and /dev/kvm.

#![cfg(target_arch = "x86_64")]

use std::fs::File;

use address_space::{AddressSpace, Errno, Error, KvmFlags, KvmWindow, Prot, page_size, vm_fd};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::io::fcntl_dupfd_cloexec;
use std::os::fd::{AsRawFd, BorrowedFd};

mod common;

use common::{READ_WRITE, file, letter_in_file, letters, pages, space};

/// Where the guest finds its code, and where the memory under test.
const CODE: u64 = 0;
const TESTED: u64 = 0x8_0000;

const CODE_SLOT: u32 = 0;
const SLOT: u32 = 1;

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

/// How an access of the guest went.
#[derive(Debug, PartialEq, Eq)]
enum Access {
    Done(char),
    /// KVM_RUN failed with EFAULT.
    Fault,
    /// The access was handed to the VMM, as that to a device.
    Mmio,
}

/// A guest that makes one access at a time. Its code is in an address space
/// too.
struct Guest {
    // Before the VM: its vCPU.
    vcpu: VcpuFd,
    vm: VmFd,
    _code: KvmWindow,
}

impl Guest {
    fn new() -> Guest {
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
        }
    }

    /// A guest with an address space of so many pages at `TESTED`.
    fn with(space: &AddressSpace) -> Guest {
        let guest = Guest::new();
        let range = 0..space.length().unwrap();
        space
            .attach_kvm(vm_fd(&guest.vm), SLOT, TESTED, range, KvmFlags::empty())
            .unwrap();
        guest
    }

    fn letter(&mut self, page: u64) -> Access {
        self.access(READ, page, '?')
    }

    fn set_letter(&mut self, page: u64, letter: char) -> Access {
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

    /// Enters the guest where it stands.
    fn go_on(&mut self) -> Access {
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

fn mapped(letters: &str) -> (AddressSpace, File) {
    let space = space(letters.len() as u64);
    let file = file(letters);
    space.map(&file).at(0).prot(READ_WRITE).commit().unwrap();
    (space, file)
}

#[test]
fn guest_reads_what_is_mapped() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.letter(1), Access::Done('b'));
}

#[test]
fn guest_writes_to_the_file() {
    let (space, file) = mapped("a");
    let mut guest = Guest::with(&space);
    assert_eq!(guest.set_letter(0, 'x'), Access::Done('x'));
    assert_eq!(letter_in_file(&file, 0), 'x');
}

#[test]
fn window_shows_what_the_guest_sees() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::new();
    let window = space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 2),
            KvmFlags::empty(),
        )
        .unwrap();
    assert_eq!(window.slot(), SLOT);
    assert_eq!(window.guest_phys_addr(), TESTED);
    assert_eq!(letters(&window), "ab");
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    assert_eq!(letters(&window), "ax");
    window.write(0, b'y').unwrap();
    assert_eq!(guest.letter(0), Access::Done('y'));
}

#[test]
fn slot_shows_a_part_of_the_address_space() {
    let (space, _) = mapped("abcd");
    let mut guest = Guest::new();
    space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(1, 3),
            KvmFlags::empty(),
        )
        .unwrap();
    assert_eq!(guest.letter(0), Access::Done('b'));
    assert_eq!(guest.letter(1), Access::Done('c'));
    assert_eq!(guest.letter(2), Access::Mmio);
}

#[test]
fn replace_is_seen_by_a_guest() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(1), Access::Done('b'));
    space
        .map(&file("x"))
        .at(page_size())
        .replace()
        .commit()
        .unwrap();
    assert_eq!(guest.letter(1), Access::Done('x'));
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn unmap_is_seen_by_a_guest() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    space.unmap(pages(0, 2)).unwrap();
    assert_eq!(guest.letter(0), Access::Fault);
    assert_eq!(guest.set_letter(1, 'y'), Access::Fault);
}

#[test]
fn unmap_is_seen_by_a_guest_through_a_view() {
    let (space, _) = mapped("ab");
    let view = space.view(pages(1, 2), READ_WRITE).unwrap();
    let mut guest = Guest::new();
    view.attach_kvm(
        vm_fd(&guest.vm),
        SLOT,
        TESTED,
        pages(0, 1),
        KvmFlags::empty(),
    )
    .unwrap();
    assert_eq!(guest.letter(0), Access::Done('b'));
    assert_eq!(guest.set_letter(0, 'x'), Access::Done('x'));
    space.unmap(pages(0, 2)).unwrap();
    assert_eq!(guest.letter(0), Access::Fault);
}

#[test]
fn unmap_is_seen_by_two_guests() {
    let (space, _) = mapped("a");
    let mut guests = [Guest::with(&space), Guest::with(&space)];
    for guest in &mut guests {
        assert_eq!(guest.letter(0), Access::Done('a'));
    }
    space.unmap(pages(0, 1)).unwrap();
    for guest in &mut guests {
        assert_eq!(guest.letter(0), Access::Fault);
    }
}

#[test]
fn guest_that_met_a_hole_goes_on_once_something_is_there() {
    let space = space(1);
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Fault);
    assert_eq!(guest.go_on(), Access::Fault);
    space.map(&file("a")).at(0).commit().unwrap();
    assert_eq!(guest.go_on(), Access::Done('a'));
}

#[test]
fn guest_cannot_write_to_a_mapping_for_reading() {
    let space = space(1);
    let file = file("a");
    space.map(&file).at(0).commit().unwrap();
    let mut guest = Guest::with(&space);
    assert_eq!(guest.set_letter(0, 'x'), Access::Fault);
    assert_eq!(letter_in_file(&file, 0), 'a');
}

#[test]
fn guest_cannot_write_to_a_mapping_for_reading_that_it_has_read() {
    let space = space(1);
    let file = file("a");
    space.map(&file).at(0).commit().unwrap();
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Done('a'));
    // KVM finds the page there for reading, and does as with a slot for
    // reading: it hands the write to the VMM and lets the guest go on.
    assert_eq!(guest.set_letter(0, 'x'), Access::Mmio);
    assert_eq!(guest.go_on(), Access::Done('x'));
    assert_eq!(letter_in_file(&file, 0), 'a');
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn guest_cannot_write_to_a_slot_for_reading() {
    let (space, file) = mapped("a");
    let mut guest = Guest::new();
    let window = space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 1),
            KvmFlags::READONLY,
        )
        .unwrap();
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.set_letter(0, 'x'), Access::Mmio);
    assert_eq!(letter_in_file(&file, 0), 'a');
    assert_eq!(window.write(0, b'x'), Err(Error::NotWritable));
}

#[test]
fn view_for_reading_needs_a_slot_for_reading() {
    let (space, _) = mapped("ab");
    let view = space.view(pages(1, 2), Prot::READ).unwrap();
    let mut guest = Guest::new();
    let attach = |flags| view.attach_kvm(vm_fd(&guest.vm), SLOT, TESTED, pages(0, 1), flags);
    let error = attach(KvmFlags::empty()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ACCESS), "{error}");
    assert!(error.to_string().contains("KvmFlags::READONLY"), "{error}");
    let window = attach(KvmFlags::READONLY).unwrap();
    assert_eq!(letters(&window), "b");
    assert_eq!(guest.letter(0), Access::Done('b'));
}

#[test]
fn unmapped_slot_and_its_window_are_gone() {
    // A length that no other test has, as tests that run at the same time may
    // map something at the same place.
    const PAGES: u64 = 37;
    let space = space(PAGES);
    let mut guest = Guest::new();
    let attach = || {
        space
            .attach_kvm(
                vm_fd(&guest.vm),
                SLOT,
                TESTED,
                pages(0, PAGES),
                KvmFlags::empty(),
            )
            .unwrap()
    };
    let window = attach();
    let start = window.as_ptr() as usize;
    let line = format!("{start:x}-{:x} ", start + window.length());
    let is_mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.contains(&line)
    };
    assert!(is_mapped());
    window.unmap().unwrap();
    assert!(!is_mapped());

    // The slot is free again.
    attach().unmap().unwrap();
    assert_eq!(guest.letter(0), Access::Mmio);
}

#[test]
fn slot_outlives_the_fds_and_the_kvm_window() {
    let (space, file) = mapped("a");
    let mut guest = Guest::with(&space);
    drop((space, file));
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn taken_slot_is_eexist() {
    let (space, _) = mapped("ab");
    let guest = Guest::with(&space);
    let attach = |slot, guest_phys_addr| {
        let error = space
            .attach_kvm(
                vm_fd(&guest.vm),
                slot,
                guest_phys_addr,
                pages(0, 1),
                KvmFlags::empty(),
            )
            .unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EXIST), "{error}");
    };
    attach(SLOT, TESTED);
    attach(SLOT, 2 * TESTED);
    attach(SLOT + 1, TESTED + page_size());
}

#[test]
fn slot_of_another_address_space_is_left_alone() {
    let (first, _) = mapped("a");
    let (second, _) = mapped("x");
    let mut guest = Guest::with(&first);
    let error = second
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 1),
            KvmFlags::empty(),
        )
        .unwrap_err();
    let refused = [Some(Errno::EXIST), Some(Errno::INVAL)];
    assert!(refused.contains(&error.errno()), "{error}");
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn another_process_s_vm_is_refused() {
    let (space, _) = mapped("a");
    let guest = Guest::new();
    let code = common::in_another_process(|| {
        let result = space.attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 1),
            KvmFlags::empty(),
        );
        result
            .err()
            .and_then(|error| error.errno())
            .map_or(0, Errno::raw_os_error)
    });
    assert_eq!(code, Errno::IO.raw_os_error());
}

#[test]
fn slot_cannot_be_removed_by_another_process() {
    let (space, _) = mapped("a");
    let mut guest = Guest::new();
    let window = space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 1),
            KvmFlags::empty(),
        )
        .unwrap();
    let code = common::in_another_process(|| {
        let error = window.unmap().err().and_then(|error| error.errno());
        error.map_or(0, Errno::raw_os_error)
    });
    assert_eq!(code, Errno::IO.raw_os_error());
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn dirty_pages_are_logged_where_that_is_asked_for() {
    let (space, _) = mapped("abc");
    let mut guest = Guest::new();
    space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 3),
            KvmFlags::LOG_DIRTY_PAGES,
        )
        .unwrap();
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    let length = (3 * page_size()) as usize;
    assert_eq!(guest.vm.get_dirty_log(SLOT, length).unwrap(), [0b010]);
}

#[test]
fn what_is_no_vm_is_refused() {
    let (space, file) = mapped("a");
    let guest = Guest::new();
    // SAFETY: The vCPU stays open.
    let vcpu = unsafe { BorrowedFd::borrow_raw(guest.vcpu.as_raw_fd()) };
    let vcpu = fcntl_dupfd_cloexec(vcpu, 0).unwrap();
    for fd in [&vcpu, &file.into(), &File::open("/dev/kvm").unwrap().into()] {
        let error = space
            .attach_kvm(fd, SLOT, TESTED, pages(0, 1), KvmFlags::empty())
            .unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL), "{error}");
    }
}

#[test]
fn bad_slots_are_refused() {
    let (space, _) = mapped("ab");
    let guest = Guest::new();
    let page = page_size();
    let attach = |guest_phys_addr, range| {
        space
            .attach_kvm(
                vm_fd(&guest.vm),
                SLOT,
                guest_phys_addr,
                range,
                KvmFlags::empty(),
            )
            .unwrap_err()
            .errno()
            .unwrap()
    };
    assert_eq!(attach(TESTED, 0..0), Errno::INVAL);
    assert_eq!(attach(TESTED, 0..1), Errno::INVAL);
    assert_eq!(attach(TESTED, 1..page + 1), Errno::INVAL);
    assert_eq!(attach(TESTED + 1, 0..page), Errno::INVAL);
    assert_eq!(attach(TESTED, page..3 * page), Errno::INVAL);
    // None of them left the slot behind.
    space
        .attach_kvm(
            vm_fd(&guest.vm),
            SLOT,
            TESTED,
            pages(0, 2),
            KvmFlags::empty(),
        )
        .unwrap();
}
