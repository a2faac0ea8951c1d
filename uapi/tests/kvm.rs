// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Address spaces as the memory of a KVM guest, as the guest sees them. Needs the
//! module and /dev/kvm.

#![cfg(target_arch = "x86_64")]

use address_space::{Error, KvmFlags, page_size, vm_fd};

mod common;

use common::guest::{Access, Guest, SLOT, TESTED, mapped};
use common::{READ_WRITE, file, letter_in_file, letters, pages, space};

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
fn window_and_guest_show_the_same_memory() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::empty());
    assert_eq!(window.slot(), SLOT);
    assert_eq!(window.guest_phys_addr(), TESTED);
    assert_eq!(letters(&window), "ab");
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    assert_eq!(letters(&window), "ax");
    window.write(0, b'y').unwrap();
    assert_eq!(guest.letter(0), Access::Done('y'));
}

#[test]
fn replace_is_visible_to_a_guest() {
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
fn unmap_is_visible_to_a_guest() {
    let (space, _) = mapped("ab");
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    space.unmap(pages(0, 2)).unwrap();
    assert_eq!(guest.letter(0), Access::Fault);
    assert_eq!(guest.set_letter(1, 'y'), Access::Fault);
}

#[test]
fn unmap_is_visible_to_a_guest_through_a_view() {
    let (space, _) = mapped("ab");
    let view = space.view(pages(1, 2), READ_WRITE).unwrap();
    let mut guest = Guest::new();
    let _window = view
        .attach_kvm(vm_fd(&guest.vm), SLOT, TESTED, .., KvmFlags::empty())
        .unwrap();
    assert_eq!(guest.letter(0), Access::Done('b'));
    assert_eq!(guest.set_letter(0, 'x'), Access::Done('x'));
    space.unmap(pages(0, 2)).unwrap();
    assert_eq!(guest.letter(0), Access::Fault);
}

#[test]
fn unmap_is_visible_to_two_guests() {
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
fn guest_that_met_a_hole_continues_once_something_is_mapped() {
    let space = space(1);
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Fault);
    assert_eq!(guest.go_on(), Access::Fault);
    space.map(&file("a")).at(0).commit().unwrap();
    assert_eq!(guest.go_on(), Access::Done('a'));
}

#[test]
fn guest_cannot_write_to_a_read_only_mapping() {
    let space = space(1);
    let file = file("a");
    space.map(&file).at(0).commit().unwrap();
    let mut guest = Guest::with(&space);
    assert_eq!(guest.set_letter(0, 'x'), Access::Fault);
    assert_eq!(letter_in_file(&file, 0), 'a');
}

#[test]
fn guest_cannot_write_to_a_read_only_mapping_that_it_has_read() {
    let space = space(1);
    let file = file("a");
    space.map(&file).at(0).commit().unwrap();
    let mut guest = Guest::with(&space);
    assert_eq!(guest.letter(0), Access::Done('a'));
    // KVM finds a read-only page table entry, and treats the write as in a read-only
    // slot: it passes the write to the VMM, and the guest continues.
    assert_eq!(guest.set_letter(0, 'x'), Access::Mmio);
    assert_eq!(guest.go_on(), Access::Done('x'));
    assert_eq!(letter_in_file(&file, 0), 'a');
    assert_eq!(guest.letter(0), Access::Done('a'));
}

#[test]
fn guest_cannot_write_to_a_read_only_slot() {
    let (space, file) = mapped("a");
    let mut guest = Guest::new();
    let window = guest.attach(&space, KvmFlags::READONLY);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.set_letter(0, 'x'), Access::Mmio);
    assert_eq!(letter_in_file(&file, 0), 'a');
    assert_eq!(window.write(0, b'x'), Err(Error::NotWritable));
}

#[test]
fn dirty_pages_are_logged_on_request() {
    let (space, _) = mapped("abc");
    let mut guest = Guest::new();
    let _window = guest.attach(&space, KvmFlags::LOG_DIRTY_PAGES);
    assert_eq!(guest.set_letter(1, 'x'), Access::Done('x'));
    let length = (3 * page_size()) as usize;
    assert_eq!(guest.vm.get_dirty_log(SLOT, length).unwrap(), [0b010]);
}
