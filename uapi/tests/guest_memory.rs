// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attachments as the guest memory of a VMM and of a device. Needs the module and /dev/kvm.

#![cfg(target_arch = "x86_64")]

use std::fs::File;
use std::os::fd::OwnedFd;

use address_space::{GuestRegion, Holes, KvmFlags, KvmWindow, Prot, Window, page_size, vm_fd};
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestMemoryRegion as _, GuestRegionCollection,
};

mod common;

use common::guest::{Access, Guest, SLOT, TESTED, mapped};
use common::{READ_WRITE, file, letter_in_file, pages, space};

/// The guest address of a page under test.
fn gpa(page: u64) -> GuestAddress {
    GuestAddress(TESTED + page * page_size())
}

/// The guest's memory in two slots, with a hole between them, as the VMM has it: "ab" at page
/// 0 and "cd" at page 4.
fn two_slots(guest: &Guest) -> (GuestRegionCollection<GuestRegion<KvmWindow>>, File) {
    let (space, file) = mapped("abcd");
    let attach = |slot, page, range| {
        let window = space.attach_kvm(
            vm_fd(&guest.vm),
            slot,
            gpa(page).0,
            range,
            KvmFlags::empty(),
        );
        GuestRegion::from(window.unwrap())
    };
    let regions = vec![
        attach(SLOT, 0, pages(0, 2)),
        attach(SLOT + 1, 4, pages(2, 4)),
    ];
    (GuestRegionCollection::from_regions(regions).unwrap(), file)
}

#[test]
fn guest_and_vmm_have_the_same_memory() {
    let mut guest = Guest::new();
    let (memory, file) = two_slots(&guest);
    assert_eq!(memory.read_obj::<u8>(gpa(1)).unwrap(), b'b');
    assert_eq!(memory.read_obj::<u8>(gpa(5)).unwrap(), b'd');
    memory.write_obj(b'x', gpa(5)).unwrap();
    assert_eq!(guest.letter(5), Access::Done('x'));
    assert_eq!(letter_in_file(&file, 3), 'x');
    assert_eq!(guest.set_letter(0, 'y'), Access::Done('y'));
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), b'y');

    // Over the border of pages, and not beyond the region.
    let mut bytes = [0; 4];
    let border = GuestAddress(gpa(1).0 - 2);
    memory.read_slice(&mut bytes, border).unwrap();
    assert_eq!(&bytes, b"aabb");
    assert!(
        memory
            .read_slice(&mut bytes, GuestAddress(gpa(2).0 - 2))
            .is_err()
    );
    assert!(memory.read_obj::<u8>(gpa(3)).is_err());
    assert!(memory.check_range(gpa(4), 2 * page_size() as usize));
}

#[test]
fn slot_goes_with_the_last_user_of_its_region() {
    let mut guest = Guest::new();
    let (memory, _) = two_slots(&guest);
    let (rest, region) = memory.remove_region(gpa(4), 2 * page_size()).unwrap();
    assert_eq!(guest.letter(4), Access::Done('c'));
    drop(memory);
    assert_eq!(guest.letter(4), Access::Done('c'));
    assert_eq!(region.window().slot(), SLOT + 1);
    drop(region);
    assert_eq!(guest.letter(0), Access::Done('a'));
    assert_eq!(guest.letter(4), Access::Mmio);
    assert_eq!(rest.num_regions(), 1);
}

#[test]
fn device_has_guest_memory_of_a_view() {
    let (space, file) = mapped("abc");
    let absorbs = Holes::ABSORB | Holes::DENIED;
    let view = space.view_with(pages(1, 3), READ_WRITE, absorbs).unwrap();
    let window = view.attach(.., READ_WRITE).unwrap();
    let region = GuestRegion::<Window>::new(window, gpa(0)).unwrap();
    let region = region.with_file(FileOffset::new(File::from(OwnedFd::from(view)), 0));
    let memory = GuestRegionCollection::from_regions(vec![region]).unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), b'b');
    memory.write_obj(b'x', gpa(1)).unwrap();
    assert_eq!(letter_in_file(&file, 2), 'x');

    // What the owner changes is no change of the guest memory.
    space
        .map(&common::file("z"))
        .at(page_size())
        .replace()
        .commit()
        .unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), b'z');
    space.unmap(..).unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), 0);

    // The file is what another device would get.
    let region = memory.find_region(gpa(1)).unwrap();
    let sent = region.file_offset().unwrap();
    let view = address_space::View::from(OwnedFd::from(sent.file().try_clone().unwrap()));
    assert_eq!(view.length(), Ok(2 * page_size()));
}

#[test]
fn address_space_is_a_file_of_guest_memory_mmap() {
    let (space, file) = mapped("ab");
    let fd = File::from(OwnedFd::from(space.try_clone().unwrap()));
    let length = 2 * page_size() as usize;
    let range = (gpa(0), length, Some(FileOffset::new(fd, 0)));
    let memory = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(1)).unwrap(), b'b');
    memory.write_obj(b'x', gpa(1)).unwrap();
    assert_eq!(letter_in_file(&file, 1), 'x');
    space
        .map(&common::file("z"))
        .at(0)
        .replace()
        .commit()
        .unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), b'z');
}

#[test]
fn memory_that_is_read_only_in_the_guest_can_be_read() {
    let space = space(1);
    space.map(&file("a")).at(0).commit().unwrap();
    let view = space.view(.., Prot::READ).unwrap();
    let guest = Guest::new();
    let window = view
        .attach_kvm(vm_fd(&guest.vm), SLOT, TESTED, .., KvmFlags::READONLY)
        .unwrap();
    let regions = vec![GuestRegion::from(window)];
    let memory = GuestRegionCollection::from_regions(regions).unwrap();
    assert_eq!(memory.read_obj::<u8>(gpa(0)).unwrap(), b'a');
}
