// SPDX-License-Identifier: GPL-2.0

//! The logic of a domain, without a kernel.

use super::ram::RamFile;
use super::*;
use crate::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;

const PAGE: u64 = 4096;

/// A domain whose calls to the kernel all fail.
fn domain() -> Domain {
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let domain = Domain::of(AddressSpace::from(null()), 0x10000..0x20000);
    domain.state().ram.push(Ram {
        gpa: 0..8 * PAGE,
        file: RamFile::of(null()).unwrap(),
        offset: 0,
    });
    domain
}

#[test]
fn iovas_are_within_the_aperture() {
    let domain = domain();
    assert_eq!(domain.offsets(0x11000, 0x1000), Ok(0x1000..0x2000));
    assert_eq!(domain.offsets(0x1f000, 0x1000), Ok(0xf000..0x10000));
    for (iova, length) in [(0xf000, 0x1000), (0x1f000, 0x2000), (u64::MAX, 1)] {
        let error = Error::OutOfAperture { iova, length };
        assert_eq!(domain.offsets(iova, length), Err(error.clone()));
        assert_eq!(domain.map(iova, 0, length, Prot::READ), Err(error.clone()));
        assert_eq!(domain.unmap(iova, length), Err(error.clone()));
        assert_eq!(domain.unmap_later(iova, length), Err(error));
    }
}

#[test]
fn adjacent_ranges_are_unmapped_as_one() {
    let ranges = [0x11000..0x12000, 0x10000..0x11000];
    let error = domain().unmap_all(&ranges).unwrap_err();
    assert!(matches!(error, Error::Batch { operations: 1, .. }));
}

#[test]
fn unmaps_are_still_pending_after_a_flush_that_failed() {
    let domain = domain();
    domain.flush().unwrap();
    domain.unmap_later(0x10000, PAGE).unwrap();
    assert!(domain.flush().is_err());
    domain.unmap_later(0x13000, PAGE).unwrap();
    for (iova, length) in [(0x14000, 0), (0x14001, PAGE), (0x14000, 1)] {
        let error = domain.unmap_later(iova, length).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::INVAL));
    }
    let error = domain.flush().unwrap_err();
    assert!(matches!(error, Error::Batch { operations: 2, .. }));
    assert_eq!(domain.state().pending.count(), 2);
}

#[cfg(feature = "iommu")]
#[test]
fn mappings_that_the_kernel_refused_are_not_translated() {
    use vm_memory::iommu::Iommu as _;
    use vm_memory::{GuestAddress, Permissions};

    let domain = domain();
    assert!(domain.map(0x10000, 0, PAGE, Prot::READ).is_err());
    let translated = domain.translate(GuestAddress(0x10000), 1, Permissions::Read);
    assert!(translated.is_err());
    assert!(
        domain
            .translate(GuestAddress(u64::MAX), 2, Permissions::Read)
            .is_err()
    );
}

#[cfg(feature = "iommu")]
#[test]
fn permissions_and_protections_are_the_same() {
    use vm_memory::Permissions;

    for prot in [Prot::empty(), Prot::READ, Prot::READ_WRITE] {
        assert_eq!(Prot::from(Permissions::from(prot)), prot);
    }
    assert_eq!(Prot::from(Permissions::Write), Prot::READ_WRITE);
}
