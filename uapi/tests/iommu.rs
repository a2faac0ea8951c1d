// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A domain, as a process in the place of a device sees it. Needs the module.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use address_space::iommu::{Domain, Mapping};
use address_space::{AddressSpace, Errno, Error, Holes, Prot, page_size};
use vm_memory::iommu::{Iommu as _, IommuMemory};
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemory as _, GuestMemoryMmap, Permissions,
};

mod common;

use common::{Process, READ_WRITE, SIGBUS, SIGSEGV, file};

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

/// A domain of 16 pages, and guest RAM of four at each of page 0 and page 8:
/// "abcd" and "efgh".
fn domain() -> Domain {
    let domain = Domain::new(BASE..iova(16)).unwrap_or_else(|error| panic!("{error}"));
    domain.add_ram(gpa(0), file("abcd"), 0, gpa(4)).unwrap();
    domain
        .add_ram(gpa(8), file("xefgh"), page_size(), gpa(4))
        .unwrap();
    domain
}

/// A process that has attached a view, as a device does, and dies where it reaches nothing.
fn device(domain: &Domain) -> Process {
    let view = domain.view_with(READ_WRITE, Holes::SIGNAL).unwrap();
    let view = OwnedFd::from(view);
    Process::attaching(&AddressSpace::from(view), READ_WRITE)
}

#[test]
fn device_reaches_what_is_mapped_and_nothing_else() {
    let domain = domain();
    let page = page_size();
    let mut device_one = device(&domain);
    domain.map(iova(3), gpa(1), page, READ_WRITE).unwrap();
    assert_eq!(device_one.letter(3), Ok('b'));
    domain.map(iova(5), gpa(10), page, Prot::READ).unwrap();
    assert_eq!(device_one.letter(5), Ok('g'));
    assert_eq!(device_one.set_letter(3, 'B'), Ok(()));
    assert_eq!(device(&domain).set_letter(5, 'x'), Err(SIGSEGV));

    domain.unmap(iova(3), page).unwrap();
    assert_eq!(device_one.letter(5), Ok('g'));
    assert_eq!(device_one.letter(3), Err(SIGBUS));
    assert_eq!(device(&domain).letter(0), Err(SIGBUS));

    domain.map(iova(0), gpa(1), page, Prot::READ).unwrap();
    assert_eq!(device(&domain).letter(0), Ok('B'));
}

#[test]
fn mapping_can_span_two_parts_of_ram() {
    let domain = Domain::new(BASE..iova(16)).unwrap();
    domain.add_ram(gpa(2), file("cd"), 0, gpa(2)).unwrap();
    domain.add_ram(gpa(0), file("ab"), 0, gpa(2)).unwrap();
    domain.map(iova(8), gpa(0), gpa(4), Prot::READ).unwrap();
    let mut device = device(&domain);
    for (page, letter) in (8..).zip("abcd".chars()) {
        assert_eq!(device.letter(page), Ok(letter));
    }
    let error = domain
        .map(iova(0), gpa(3), 2 * page_size(), Prot::READ)
        .unwrap_err();
    assert!(matches!(error, Error::NotRam { .. }), "{error}");
    let error = domain.add_ram(gpa(3), file("x"), 0, gpa(1)).unwrap_err();
    assert!(matches!(error, Error::RamOverlaps { .. }), "{error}");
}

#[test]
fn map_over_a_mapping_is_refused() {
    let domain = domain();
    domain.map(iova(0), gpa(0), gpa(2), Prot::READ).unwrap();
    let error = domain.map(iova(1), gpa(8), gpa(1), Prot::READ).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EXIST), "{error}");
    assert_eq!(device(&domain).letter(1), Ok('b'));
}

/// A page of guest RAM, for reading.
fn mapping(to: u64, from: u64) -> Mapping {
    Mapping {
        iova: iova(to),
        gpa: gpa(from),
        length: page_size(),
        prot: Prot::READ,
    }
}

#[test]
fn several_mappings_are_made_and_removed_in_one_step() {
    let domain = domain();
    let page = page_size();
    domain.map_all(&[mapping(2, 0), mapping(5, 9)]).unwrap();
    let mut device_one = device(&domain);
    assert_eq!(device_one.letter(2), Ok('a'));
    assert_eq!(device_one.letter(5), Ok('f'));

    // The second mapping fails, so none is made.
    let error = domain.map_all(&[mapping(0, 0), mapping(5, 0)]).unwrap_err();
    assert_eq!(error.failed_operation(), Some(1), "{error}");
    assert_eq!(device(&domain).letter(0), Err(SIGBUS));

    // An unmap is pending in the range of one of them.
    domain.unmap_later(iova(2), page).unwrap();
    domain.map_all(&[mapping(0, 1), mapping(2, 3)]).unwrap();
    assert_eq!(device_one.letter(0), Ok('b'));
    assert_eq!(device_one.letter(2), Ok('d'));

    domain
        .unmap_all(&[iova(0)..iova(1), iova(2)..iova(3)])
        .unwrap();
    assert_eq!(device_one.letter(5), Ok('f'));
    assert_eq!(device_one.letter(2), Err(SIGBUS));
    assert_eq!(device(&domain).letter(0), Err(SIGBUS));
    let error = domain
        .unmap_all(&[iova(5)..iova(6), iova(16)..iova(17)])
        .unwrap_err();
    assert!(matches!(error, Error::OutOfAperture { .. }), "{error}");
    assert_eq!(device(&domain).letter(5), Ok('f'));
    domain.map_all(&[]).unwrap();
    domain.unmap_all(&[]).unwrap();
}

#[test]
fn deferred_unmap_is_final_once_flushed() {
    let domain = domain();
    let page = page_size();
    domain.map(iova(0), gpa(0), 4 * page, Prot::READ).unwrap();
    let mut device_one = device(&domain);
    assert_eq!(device_one.letter(0), Ok('a'));
    domain.unmap_later(iova(0), page).unwrap();
    domain.unmap_later(iova(2), page).unwrap();
    domain.flush().unwrap();
    assert_eq!(device_one.letter(1), Ok('b'));
    assert_eq!(device_one.letter(0), Err(SIGBUS));
    assert_eq!(device(&domain).letter(2), Err(SIGBUS));
    domain.flush().unwrap();
}

#[test]
fn pending_unmaps_end_with_the_next_maps_in_one_step() {
    let domain = domain();
    let page = page_size();
    domain.map(iova(0), gpa(0), 2 * page, Prot::READ).unwrap();
    let mut device_one = device(&domain);
    assert_eq!(device_one.letter(0), Ok('a'));
    domain.unmap_later(iova(0), page).unwrap();

    // Something is mapped there: nothing changes.
    let refused = domain.flush_and_map_all(&[mapping(4, 8), mapping(1, 3)]);
    assert_eq!(refused.unwrap_err().failed_operation(), Some(2));
    assert_eq!(device_one.letter(0), Ok('a'));

    domain
        .flush_and_map_all(&[mapping(4, 8), mapping(5, 3)])
        .unwrap();
    assert_eq!(device_one.letter(1), Ok('b'));
    assert_eq!(device_one.letter(4), Ok('e'));
    assert_eq!(device_one.letter(5), Ok('d'));
    assert_eq!(device_one.letter(0), Err(SIGBUS));

    // With nothing to map, and with nothing pending.
    domain.unmap_later(iova(4), page).unwrap();
    domain.flush_and_map_all(&[]).unwrap();
    assert_eq!(device(&domain).letter(4), Err(SIGBUS));
    domain.flush_and_map_all(&[mapping(6, 10)]).unwrap();
    assert_eq!(device(&domain).letter(6), Ok('g'));
    domain.flush_and_map_all(&[]).unwrap();
}

/// The page faults of all devices of a domain so far.
fn faults(domain: &Domain) -> u64 {
    let fd = domain.space().as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let faults = info.lines().find_map(|line| line.strip_prefix("faults:"));
    faults.unwrap().trim().parse().unwrap()
}

#[test]
fn small_mappings_are_populated() {
    let domain = domain();
    let page = page_size();
    let mut device = device(&domain);
    // Once it answers, it has attached the view.
    domain.map(iova(15), gpa(3), page, Prot::READ).unwrap();
    assert_eq!(device.letter(15), Ok('d'));
    let mut touched = |first: u64, count: u64| {
        let before = faults(&domain);
        for page in first..first + count {
            device.letter(page).unwrap();
            device.set_letter(page, 'x').unwrap();
        }
        faults(&domain) - before
    };
    domain.map(iova(0), gpa(0), 2 * page, READ_WRITE).unwrap();
    assert_eq!(touched(0, 2), 0);
    let mapping = |at, gpa, count| Mapping {
        iova: iova(at),
        gpa,
        length: count * page,
        prot: READ_WRITE,
    };
    domain
        .map_all(&[mapping(4, gpa(2), 1), mapping(6, gpa(8), 2)])
        .unwrap();
    assert_eq!(touched(4, 1) + touched(6, 2), 0);
    domain
        .replace(&[mapping(1, gpa(8), 1), mapping(9, gpa(9), 3)])
        .unwrap();
    assert_eq!(touched(1, 1) + touched(9, 3), 0);

    // The limit can be set.
    domain.populate_up_to(page);
    domain.map(iova(12), gpa(0), 2 * page, READ_WRITE).unwrap();
    assert_ne!(touched(12, 2), 0);
    domain.populate_up_to(0);
    domain.map(iova(14), gpa(0), page, READ_WRITE).unwrap();
    assert_ne!(touched(14, 1), 0);
}

#[test]
fn map_over_a_pending_unmap_is_one_step() {
    let domain = domain();
    let page = page_size();
    domain.map(iova(0), gpa(0), 4 * page, Prot::READ).unwrap();
    let mut device = device(&domain);
    assert_eq!(device.letter(3), Ok('d'));
    domain.unmap_later(iova(0), page).unwrap();
    domain.unmap_later(iova(3), page).unwrap();
    domain.map(iova(0), gpa(8), page, Prot::READ).unwrap();
    assert_eq!(device.letter(0), Ok('e'));
    domain.flush().unwrap();
    assert_eq!(device.letter(0), Ok('e'));
    assert_eq!(device.letter(3), Err(SIGBUS));
}

#[test]
fn too_many_pending_unmaps_are_flushed() {
    const COUNT: u64 = 1025;
    let domain = Domain::new(BASE..iova(2 * COUNT)).unwrap();
    domain.add_ram(0, file("a"), 0, gpa(1)).unwrap();
    for page in 0..COUNT {
        domain.map(iova(2 * page), 0, gpa(1), Prot::READ).unwrap();
    }
    let mut device = device(&domain);
    assert_eq!(device.letter(0), Ok('a'));
    for page in 0..COUNT {
        domain.unmap_later(iova(2 * page), gpa(1)).unwrap();
    }
    assert_eq!(device.letter(0), Err(SIGBUS));
}

#[test]
fn replace_removes_all_mappings_and_makes_the_new_ones() {
    let domain = domain();
    let page = page_size();
    domain.map(iova(0), gpa(0), 4 * page, READ_WRITE).unwrap();
    let mut device_one = device(&domain);
    assert_eq!(device_one.letter(0), Ok('a'));
    let mapping = |iova, gpa, pages, prot| Mapping {
        iova,
        gpa,
        length: pages * page,
        prot,
    };
    domain
        .replace(&[
            mapping(iova(8), gpa(8), 2, Prot::READ),
            mapping(iova(1), gpa(3), 1, READ_WRITE),
        ])
        .unwrap();
    assert_eq!(device_one.letter(8), Ok('e'));
    assert_eq!(device_one.letter(9), Ok('f'));
    assert_eq!(device_one.letter(1), Ok('d'));
    assert_eq!(device_one.letter(0), Err(SIGBUS));

    // One mapping fails: nothing changes.
    let both = [
        mapping(iova(0), gpa(0), 2, Prot::READ),
        mapping(iova(1), gpa(3), 1, Prot::READ),
    ];
    let error = domain.replace(&both).unwrap_err();
    assert_eq!(error.failed_operation(), Some(2), "{error}");
    assert_eq!(device(&domain).letter(1), Ok('d'));

    domain.replace(&[]).unwrap();
    assert_eq!(device(&domain).letter(1), Err(SIGBUS));
}

#[test]
fn translates_as_it_enforces() {
    let page = page_size();
    let ram = file("abcd");
    let mapped = FileOffset::new(ram.try_clone().unwrap(), 0);
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), gpa(4) as usize, Some(mapped))])
            .unwrap();
    let domain = Domain::new(BASE..iova(16)).unwrap();
    domain.add_ram(0, &ram, 0, gpa(4)).unwrap();
    domain.map(iova(3), gpa(1), page, READ_WRITE).unwrap();
    domain.map(iova(4), gpa(0), page, Prot::READ).unwrap();

    // A device in the VMM itself, and one outside.
    let inside = IommuMemory::new(memory, domain, true, ());
    let domain = inside.iommu();
    let mut outside = device(domain);
    let letter = |page| {
        inside
            .read_obj::<u8>(GuestAddress(iova(page)))
            .map(char::from)
    };
    assert_eq!(letter(3).unwrap(), 'b');
    assert_eq!(letter(4).unwrap(), 'a');
    inside.write_obj(b'B', GuestAddress(iova(3))).unwrap();
    assert_eq!(outside.letter(3), Ok('B'));

    // Across both, which are not adjacent in RAM.
    let mut both = vec![0; 2 * page as usize];
    inside.read_slice(&mut both, GuestAddress(iova(3))).unwrap();
    assert_eq!((both[1], both[page as usize]), (b'b', b'a'));
    let readable = |first, pages, access| {
        inside.check_range(GuestAddress(iova(first)), (pages * page) as usize, access)
    };
    assert!(readable(3, 2, Permissions::Read));
    assert!(!readable(3, 2, Permissions::Write));
    assert!(!readable(4, 2, Permissions::Read));

    domain.unmap(iova(3), page).unwrap();
    assert!(letter(3).is_err());
    domain.unmap_later(iova(4), page).unwrap();
    assert!(letter(4).is_err());
    domain
        .replace(&[Mapping {
            iova: iova(0),
            gpa: gpa(2),
            length: page,
            prot: Prot::READ,
        }])
        .unwrap();
    assert_eq!(letter(0).unwrap(), 'c');
    assert!(
        domain
            .translate(GuestAddress(iova(4)), 1, Permissions::Read)
            .is_err()
    );
    assert_eq!(outside.letter(0), Ok('c'));
    assert_eq!(outside.letter(4), Err(SIGBUS));
}

#[test]
fn large_and_small_mappings_live_together() {
    const LARGE: u64 = 2 << 20;
    let ram = File::from(rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    ram.set_len(4 * LARGE).unwrap();
    let domain = Domain::new(BASE..BASE + 16 * LARGE).unwrap();
    domain.add_ram(0, ram.as_fd(), 0, 4 * LARGE).unwrap();
    domain.map(BASE, LARGE, LARGE, READ_WRITE).unwrap();
    domain
        .map(BASE + LARGE, 0, page_size(), READ_WRITE)
        .unwrap();
    let mut device_one = device(&domain);
    let last = (LARGE - 1) / page_size();
    assert_eq!(device_one.set_letter(last, 'z'), Ok(()));
    assert_eq!(device_one.set_letter(last + 1, 'y'), Ok(()));
    // Unmap a page in the middle of the large mapping.
    domain.unmap(BASE + LARGE / 2, page_size()).unwrap();
    assert_eq!(device_one.letter(last), Ok('z'));
    assert_eq!(device_one.letter(LARGE / 2 / page_size() - 1), Ok('\0'));
    assert_eq!(device_one.letter(LARGE / 2 / page_size()), Err(SIGBUS));
}
