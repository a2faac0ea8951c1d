// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory slots of a KVM guest that show address spaces: how they are made and
//! refused. Needs the module and /dev/kvm.

#![cfg(target_arch = "x86_64")]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

use address_space::{Errno, KvmFlags, Prot, page_size, vm_fd};
use rustix::io::fcntl_dupfd_cloexec;

mod common;

use common::guest::{Access, Guest, SLOT, TESTED, mapped};
use common::{letters, pages};

#[test]
fn slot_shows_its_range_of_the_address_space() {
    let (space, _) = mapped("abcd");
    let mut guest = Guest::new();
    let _window = space
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
fn read_only_view_needs_a_read_only_slot() {
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
fn slot_in_use_is_eexist() {
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
fn slot_of_another_address_space_is_not_changed() {
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
fn vm_of_another_process_is_refused() {
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
fn file_that_is_not_a_vm_is_refused() {
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
    // None of them has left the slot in use.
    drop(guest.attach(&space, KvmFlags::empty()));
}
