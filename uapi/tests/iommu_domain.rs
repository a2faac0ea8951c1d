// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A domain with several users, whose RAM comes and goes. Needs the module.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use address_space::iommu::{Domain, Mapping};
use address_space::{AddressSpace, Error, Holes, Prot, View, page_size};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::iommu::{Iommu as _, IommuMemory};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, Permissions};

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file, letters};

/// The start of the apertures.
const BASE: u64 = 4 << 30;

/// The IOVA of a page.
fn iova(page: u64) -> u64 {
    BASE + page * page_size()
}

/// The guest physical address of a page.
fn gpa(page: u64) -> u64 {
    page * page_size()
}

/// A mapping of so many pages.
fn mapping(at: u64, from: u64, pages: u64, prot: Prot) -> Mapping {
    Mapping {
        iova: iova(at),
        gpa: gpa(from),
        length: gpa(pages),
        prot,
    }
}

/// A domain of 16 pages, and guest RAM of four at each of page 0 and page 8:
/// "abcd" and "efgh".
fn domain() -> Domain {
    let domain = Domain::new(BASE..iova(16)).unwrap_or_else(|error| panic!("{error}"));
    domain.add_ram(gpa(0), file("abcd"), 0, gpa(4)).unwrap();
    domain.add_ram(gpa(8), file("efgh"), 0, gpa(4)).unwrap();
    domain
}

/// A process that has attached a view, and dies where it reaches nothing.
fn device(view: View) -> Process {
    Process::attaching(&AddressSpace::from(OwnedFd::from(view)), READ_WRITE)
}

fn device_of(domain: &Domain) -> Process {
    device(domain.view_with(READ_WRITE, Holes::SIGNAL).unwrap())
}

#[test]
fn clone_is_of_the_same_domain() {
    let domain = domain();
    let other = domain.clone();
    let mut device = device_of(&domain);
    other.map(iova(0), gpa(1), gpa(1), Prot::READ).unwrap();
    assert_eq!(device.letter(0), Ok('b'));
    assert_eq!(domain.mappings(), other.mappings());
    drop(domain);
    other.unmap(iova(0), gpa(1)).unwrap();
    assert_eq!(device.letter(0), Err(SIGBUS));
}

#[test]
fn device_in_the_vmm_translates_what_another_handle_maps() {
    let ram = file("abcd");
    let mapped = FileOffset::new(ram.try_clone().unwrap(), 0);
    let range = (GuestAddress(0), gpa(4) as usize, Some(mapped));
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
    let domain = Domain::new(BASE..iova(16)).unwrap();
    domain.add_ram(0, &ram, 0, gpa(4)).unwrap();
    let inside = IommuMemory::new(memory, domain.clone(), true, ());
    let read = |page| inside.read_obj::<u8>(GuestAddress(iova(page))).ok();

    domain.map(iova(2), gpa(3), gpa(1), Prot::READ).unwrap();
    assert_eq!(read(2), Some(b'd'));
    domain.remove_ram(0, gpa(4)).unwrap();
    assert_eq!(read(2), None);
}

#[test]
fn first_translation_misses_no_change() {
    const ROUNDS: usize = 200;
    let reads = |domain: &Domain, page| {
        let at = GuestAddress(iova(page));
        domain.translate(at, 1, Permissions::Read).is_ok()
    };
    let ram = file("abcd");
    for round in 0..ROUNDS {
        let domain = Domain::new(BASE..iova(16)).unwrap();
        domain.add_ram(0, &ram, 0, gpa(4)).unwrap();
        domain.map(iova(15), 0, gpa(1), Prot::READ).unwrap();
        domain.unmap_later(iova(15), gpa(1)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for page in 0..8 {
                    domain.map(iova(page), 0, gpa(1), Prot::READ).unwrap();
                    domain.unmap(iova(page), gpa(1)).unwrap();
                    domain.map(iova(page + 8), 0, gpa(1), Prot::READ).unwrap();
                }
            });
            // Somewhere among the changes.
            for _ in 0..round % 20 {
                std::thread::yield_now();
            }
            let _ = reads(&domain, 0);
        });
        for page in 0..8 {
            assert!(!reads(&domain, page), "round {round}, page {page}");
            assert!(reads(&domain, page + 8), "round {round}, page {page}");
        }
    }
}

#[test]
fn mappings_are_those_that_devices_can_rely_on() {
    let domain = domain();
    assert_eq!(domain.mappings(), []);
    let large = mapping(4, 0, 4, READ_WRITE);
    let small = mapping(1, 9, 1, Prot::READ);
    domain.map_all(&[large.clone(), small.clone()]).unwrap();
    assert_eq!(domain.mappings(), [small.clone(), large.clone()]);
    // What has failed has changed nothing.
    domain.map(iova(5), gpa(0), gpa(1), Prot::READ).unwrap_err();
    domain.unmap(iova(5) + 1, gpa(1)).unwrap_err();
    assert_eq!(domain.mappings(), [small.clone(), large]);

    domain.unmap(iova(5), gpa(1)).unwrap();
    domain.unmap_later(iova(1), gpa(1)).unwrap();
    let rest = [mapping(4, 0, 1, READ_WRITE), mapping(6, 2, 2, READ_WRITE)];
    assert_eq!(domain.mappings(), rest);
    domain.map(iova(1), gpa(9), gpa(1), Prot::READ).unwrap();
    assert_eq!(domain.mappings()[0], small);
    let ranges = [iova(1)..iova(2), iova(4)..iova(5)];
    domain.unmap_all(&ranges).unwrap();
    assert_eq!(domain.mappings(), rest[1..]);
    domain.replace(std::slice::from_ref(&small)).unwrap();
    assert_eq!(domain.mappings(), [small]);
}

#[test]
fn domain_that_takes_over_shows_the_same() {
    let (from, to) = (domain(), domain());
    from.map(iova(3), gpa(2), gpa(2), READ_WRITE).unwrap();
    from.map(iova(9), gpa(8), gpa(3), Prot::READ).unwrap();
    from.unmap(iova(10), gpa(1)).unwrap();
    to.replace(&from.mappings()).unwrap();
    assert_eq!(to.mappings(), from.mappings());
    let mut device_one = device_of(&to);
    for (page, letter) in [(3, 'c'), (4, 'd'), (9, 'e'), (11, 'g')] {
        assert_eq!(device_one.letter(page), Ok(letter));
    }
    assert_eq!(device_one.set_letter(4, 'x'), Ok(()));
    assert_eq!(device_one.letter(10), Err(SIGBUS));
    assert_eq!(device_of(&to).set_letter(9, 'x'), Err(SIGSEGV));
}

#[test]
fn ram_that_is_removed_cannot_be_reached() {
    let domain = Domain::new(BASE..iova(16)).unwrap();
    // Two parts that are one for the guest.
    domain.add_ram(gpa(0), file("ab"), 0, gpa(2)).unwrap();
    domain.add_ram(gpa(2), file("cd"), 0, gpa(2)).unwrap();
    domain.map(iova(0), gpa(0), gpa(4), Prot::READ).unwrap();
    domain.map(iova(8), gpa(3), gpa(1), Prot::READ).unwrap();
    domain.map(iova(9), gpa(2), gpa(1), Prot::READ).unwrap();
    domain.unmap_later(iova(9), gpa(1)).unwrap();
    let mut devices = [0, 1, 2].map(|_| device_of(&domain));
    for device in &mut devices {
        for (page, letter) in [(0, 'a'), (2, 'c'), (3, 'd'), (8, 'd'), (9, 'c')] {
            assert_eq!(device.letter(page), Ok(letter));
        }
    }

    domain.remove_ram(gpa(2), gpa(2)).unwrap();
    assert_eq!(domain.mappings(), [mapping(0, 0, 2, Prot::READ)]);
    for (device, page) in devices.iter_mut().zip([2, 8, 9]) {
        assert_eq!(device.letter(1), Ok('b'));
        assert_eq!(device.letter(page), Err(SIGBUS));
    }
    for (gpa, length) in [(gpa(2), gpa(2)), (gpa(0), gpa(1)), (gpa(1), gpa(1))] {
        let error = domain.remove_ram(gpa, length).unwrap_err();
        assert_eq!(error, Error::NotRam { gpa, length });
    }
    let error = domain.map(iova(2), gpa(2), gpa(1), Prot::READ).unwrap_err();
    assert!(matches!(error, Error::NotRam { .. }), "{error}");

    // Other RAM can be there.
    domain.add_ram(gpa(2), file("xy"), 0, gpa(2)).unwrap();
    domain.map(iova(2), gpa(2), gpa(1), Prot::READ).unwrap();
    assert_eq!(device_of(&domain).letter(2), Ok('x'));
}

/// How many ranges of files are registered.
fn registered(domain: &Domain) -> u64 {
    let fd = domain.space().as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let lines = info.lines();
    let mut numbers = lines.filter_map(|line| line.strip_prefix("registered:"));
    numbers.next().unwrap().trim().parse().unwrap()
}

#[test]
fn file_is_registered_as_long_as_there_is_ram_in_it() {
    let domain = Domain::new(BASE..iova(16)).unwrap();
    let ram = file("abcd");
    assert_eq!(registered(&domain), 0);
    for page in 0..2 {
        domain.add_ram(gpa(page), &ram, gpa(page), gpa(1)).unwrap();
    }
    domain.add_ram(gpa(8), file("x"), 0, gpa(1)).unwrap();
    let all = registered(&domain);
    domain.remove_ram(gpa(0), gpa(1)).unwrap();
    // What is in the same file stays registered.
    assert_eq!(registered(&domain), all - 1);
    domain.map(iova(0), gpa(1), gpa(1), Prot::READ).unwrap();
    domain.remove_ram(gpa(1), gpa(1)).unwrap();
    assert_eq!(registered(&domain), all - 2);
    domain.remove_ram(gpa(8), gpa(1)).unwrap();
    assert_eq!(registered(&domain), 0);
}

#[test]
fn ram_that_comes_and_goes_keeps_no_file_open() {
    let domain = Domain::new(BASE..iova(16)).unwrap();
    let ram = memfd_create("comes-and-goes", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&ram, gpa(2)).unwrap();
    let open = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let of_it = |link: &std::path::PathBuf| link.to_string_lossy().contains("comes-and-goes");
        links.filter(of_it).count()
    };
    domain.add_ram(gpa(0), &ram, 0, gpa(1)).unwrap();
    let (before, registrations) = (open(), registered(&domain));
    for _ in 0..20 {
        domain.add_ram(gpa(8), &ram, gpa(1), gpa(1)).unwrap();
        domain.map(iova(0), gpa(8), gpa(1), READ_WRITE).unwrap();
        domain.remove_ram(gpa(8), gpa(1)).unwrap();
        assert_eq!(open(), before);
    }
    assert_eq!(registered(&domain), registrations);
    domain.map(iova(0), gpa(0), gpa(1), READ_WRITE).unwrap();
}

#[test]
fn view_of_a_range_shows_no_more() {
    let domain = domain();
    domain.map(iova(2), gpa(0), gpa(4), READ_WRITE).unwrap();
    let view = domain
        .view_of(iova(3)..iova(5), READ_WRITE, Holes::SIGNAL)
        .unwrap();
    assert_eq!(view.length(), Ok(gpa(2)));
    assert_eq!(letters(&view.attach(.., Prot::READ).unwrap()), "bc");
    let mut device = device(view);
    assert_eq!(device.set_letter(0, 'x'), Ok(()));
    domain.unmap(iova(4), gpa(1)).unwrap();
    assert_eq!(device.letter(0), Ok('x'));
    assert_eq!(device.letter(1), Err(SIGBUS));
    let beyond = iova(15)..iova(17);
    let error = domain
        .view_of(beyond, Prot::READ, Holes::SIGNAL)
        .unwrap_err();
    assert!(matches!(error, Error::OutOfAperture { .. }), "{error}");
}
