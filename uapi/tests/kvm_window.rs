// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A memory slot of a KVM guest as long as its window lives, and after. Needs the module,
//! /dev/kvm and debugfs.

#![cfg(target_arch = "x86_64")]

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use address_space::{Errno, Error, KvmFlags, KvmWindow, page_size};

mod common;

use common::guest::{Access, Guest, SLOT, mapped};
use common::{letters, space};

/// Whether the memory of a window is mapped in this process, once it is gone.
fn is_mapped(window: &KvmWindow) -> impl Fn() -> bool + use<> {
    let start = window.as_ptr() as usize;
    let line = format!("{start:x}-{:x} ", start + window.len());
    move || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.contains(&line)
    }
}

#[test]
fn unmap_removes_the_slot_and_its_window() {
    // A length that no other test uses: tests that run at the same time may map something at
    // the same address.
    let space = space(37);
    let mut guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    let is_mapped = is_mapped(&window);
    assert!(is_mapped());
    window.unmap().unwrap();
    assert!(!is_mapped());

    // The slot is free again.
    guest.attach(&space, KvmFlags::empty()).unmap().unwrap();
    assert_eq!(guest.letter(0), Access::Mmio);
}

#[test]
fn drop_removes_the_slot_and_its_window() {
    let space = space(41);
    let mut guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    let is_mapped = is_mapped(&window);
    assert!(is_mapped());
    drop(window);
    assert!(!is_mapped());
    assert_eq!(guest.letter(0), Access::Mmio);
    drop(guest.attach(&space, KvmFlags::empty()));
}

#[test]
fn slot_outlives_the_fds_and_a_leaked_window() {
    let (space, file) = mapped("a");
    let mut guest = Guest::new();
    let memory = guest.attach(&space, KvmFlags::empty()).leak();
    drop((space, file));
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(letters(memory), "a");
    assert_eq!(guest.set_letter(0, 'x'), Access::Done('x'));
    assert_eq!(letters(memory), "x");
}

/// Whether the virtual machine of a guest ends within a while after the guest is dropped.
fn machine_ends(guest: Guest) -> bool {
    // KVM names it after the thread that created it, which is this one.
    // SAFETY: The call has no arguments and always succeeds.
    let (tid, fd) = (unsafe { libc::gettid() }, guest.vm.as_raw_fd());
    let path = format!("/sys/kernel/debug/kvm/{tid}-{fd}");
    assert!(Path::new(&path).exists(), "{path}");
    drop(guest);
    let end = Instant::now() + Duration::from_secs(3);
    while Path::new(&path).exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    !Path::new(&path).exists()
}

#[test]
fn machine_ends_unless_a_window_keeps_it() {
    let (space, _) = mapped("a");
    assert!(machine_ends(Guest::with(&space)));

    // The window has a file descriptor of the machine, too.
    let guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    assert!(!machine_ends(guest));
    assert_eq!(letters(&window), "a");
    drop(window);

    // In a child, which ends with what it has leaked.
    let code = common::in_another_process(|| {
        let guest = Guest::new();
        guest.attach(&space, KvmFlags::empty()).leak();
        i32::from(machine_ends(guest))
    });
    assert_eq!(code, 0);
}

#[test]
fn unmap_that_fails_gives_the_window_back() {
    let (space, _) = mapped("a");
    let mut guest = Guest::new();
    let mut window = Some(guest.attach(&space, KvmFlags::empty()));
    // In a child the slot cannot be removed, however often that is tried.
    let code = common::in_another_process(|| {
        let mut window = window.take().unwrap();
        for _ in 0..2 {
            let error = window.unmap().unwrap_err();
            assert_eq!(error.error().errno(), Some(Errno::IO), "{error}");
            assert!(error.to_string().contains("another process"), "{error}");
            window = error.into_window();
            assert_eq!(letters(&window), "a");
        }
        let error = Error::from(window.unmap().unwrap_err());
        assert!(matches!(error, Error::KvmUnmap { slot: SLOT, .. }));
        0
    });
    assert_eq!(code, 0);
    assert_eq!(guest.letter(0), Access::Done('a'));
    window.unwrap().unmap().unwrap();
    assert_eq!(guest.letter(0), Access::Mmio);
}

#[test]
fn drop_in_another_process_leaves_the_slot() {
    let (space, _) = mapped("a");
    let mut guest = Guest::new();
    let mut window = Some(guest.attach(&space, KvmFlags::empty()));
    let code = common::in_another_process(|| {
        drop(window.take());
        0
    });
    assert_eq!(code, 0);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(letters(&window.unwrap()), "a");
}

#[test]
fn dirty_log_begins_and_ends_while_the_guest_runs() {
    let (space, _) = mapped("abc");
    let mut guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    let length = (3 * page_size()) as usize;
    let log = |guest: &Guest| guest.vm.get_dirty_log(SLOT, length);
    assert_eq!(guest.set_letter(0, 'x'), Access::Done('x'));
    assert!(log(&guest).is_err());

    window.set_flags(KvmFlags::LOG_DIRTY_PAGES).unwrap();
    assert_eq!(window.flags(), KvmFlags::LOG_DIRTY_PAGES);
    log(&guest).unwrap();
    assert_eq!(guest.set_letter(1, 'y'), Access::Done('y'));
    assert_eq!(log(&guest).unwrap(), [0b010]);
    assert_eq!(log(&guest).unwrap(), [0]);
    // Once more is no change.
    window.set_flags(KvmFlags::LOG_DIRTY_PAGES).unwrap();
    assert_eq!(guest.set_letter(2, 'z'), Access::Done('z'));
    assert_eq!(log(&guest).unwrap(), [0b100]);

    window.set_flags(KvmFlags::empty()).unwrap();
    assert!(log(&guest).is_err());
    assert_eq!(letters(&window), "xyz");
    assert_eq!(guest.letter(2), Access::Done('z'));
}

#[test]
fn other_flags_cannot_be_changed() {
    let (space, _) = mapped("a");
    let mut guest = Guest::new();
    let is = KvmFlags::READONLY | KvmFlags::HOLES_ABSORB;
    let window = guest.attach(&space, is);
    for flags in [
        KvmFlags::HOLES_ABSORB,
        KvmFlags::READONLY,
        is | KvmFlags::HOLES_DENIED,
        KvmFlags::LOG_DIRTY_PAGES,
    ] {
        let error = window.set_flags(flags).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL), "{flags:?}: {error}");
    }
    assert_eq!(window.flags(), is);
    window.set_flags(is | KvmFlags::LOG_DIRTY_PAGES).unwrap();
    assert_eq!(window.flags(), is | KvmFlags::LOG_DIRTY_PAGES);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.set_letter(0, 'x'), Access::Mmio);
}

#[test]
fn flags_cannot_be_changed_by_another_process() {
    let (space, _) = mapped("a");
    let guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    let code = common::in_another_process(|| {
        let error = window.set_flags(KvmFlags::LOG_DIRTY_PAGES).unwrap_err();
        error.raw_os_error().unwrap_or(0)
    });
    assert_eq!(code, Errno::IO.raw_os_error());
}
