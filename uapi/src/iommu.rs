// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An enforced IOMMU domain: devices in other processes can reach what is mapped in
//! it, and nothing else.
//!
//! A [`Domain`] is an address space whose offsets are I/O virtual addresses
//! (IOVAs), over the files that contain guest RAM. A VMM gives a device process
//! one [view](Domain::view) of it, instead of the file descriptors of all RAM. For
//! an unmodified vhost-user device the view is one region of guest memory
//! (`SET_MEM_TABLE`) whose guest physical addresses are IOVAs. From then on the
//! device needs no messages: a [`map()`](Domain::map) is visible at once, and when
//! [`unmap()`](Domain::unmap) returns, the device cannot reach the range.
//!
//! ```no_run
//! use address_space::Prot;
//! use address_space::iommu::{Domain, Mapping};
//!
//! # fn give_to_device(_: impl std::os::fd::AsFd, _: std::ops::Range<u64>) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ram = std::fs::File::open("/dev/shm/ram")?;
//! // IOVAs from 4 GiB to 5 GiB; 256 MiB of RAM at guest address 0.
//! let domain = Domain::new(4 << 30..5 << 30)?;
//! domain.add_ram(0, &ram, 0, 256 << 20)?;
//! give_to_device(domain.view(Prot::READ_WRITE)?, domain.aperture());
//!
//! // The guest's IOMMU driver maps a buffer for one transfer.
//! domain.map((5 << 30) - 0x1000, 0x7000, 0x1000, Prot::READ)?;
//! domain.unmap((5 << 30) - 0x1000, 0x1000)?;
//!
//! // The guest attaches the device to another domain: one step.
//! domain.replace(&[Mapping { iova: 4 << 30, gpa: 0, length: 2 << 20, prot: Prot::READ }])?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the device sees
//!
//! What a device sees behind a hardware IOMMU that records a fault. If nothing is mapped at
//! an address, a read returns zeroes and a write goes nowhere: to a page of the device's
//! own, which no other process and no guest sees. The device goes on, and the VMM reads
//! from [`faults()`](Domain::faults) which device has accessed what, how, and why that was
//! refused, to tell the guest. So it is where something is mapped that does not allow the
//! access: a write to a read-only mapping is dropped. In a system call the same: what is
//! written to a file from an address where nothing is mapped is zeroes. When a
//! [`map()`](Domain::map) returns, every access meets what is mapped.
//!
//! All of this is of the whole page. All holes share the device's page: what it wrote to
//! one it may read from another, in whatever domain it is by then. A write to a read-only
//! mapping hides the mapping from that device for about a hundredth of a second. For two
//! guests, or for users who do not trust each other, attach another view: it has another
//! page.
//!
//! With [`view_with()`](Domain::view_with) and [`Holes::SIGNAL`] the device is not spared:
//! an access raises SIGBUS, or SIGSEGV if the mapping does not allow it, and a system call
//! that gets the address fails with EFAULT. In a buffer for reading or writing a file this
//! is an I/O error for the guest; in a ring or a request header it ends the device. A system
//! call on several pages of which one is not mapped may do its first part; the rest depends
//! on the device: qemu-storage-daemon copies it by hand, and dies. The faults are reported
//! all the same.
//!
//! O_DIRECT does not work on such memory, but where it reads a hole of a file.
//!
//! # In a VMM
//!
//! - Instead of a table with a region for each part of RAM, `SET_MEM_TABLE` has one
//!   region: the view, with the aperture as `guest_phys_addr` and `memory_size`.
//!   `userspace_addr` is the base of ring addresses, and can be the same number.
//! - Rings are at IOVAs, as the guest's driver (`VIRTIO_F_ACCESS_PLATFORM`) sets
//!   them; pass them on unchanged. The device itself need not offer that feature,
//!   nor support IOTLB messages.
//! - The virtual IOMMU's map and unmap requests become calls of the domain; those
//!   of one kick, [`map_all()`](Domain::map_all) and
//!   [`unmap_all()`](Domain::unmap_all). In cloud-hypervisor the place is
//!   `ExternalDmaMapping`, which VFIO devices already implement.
//! - Attaching a device to another domain is [`replace()`](Domain::replace), or
//!   another view and `SET_MEM_TABLE`.
//! - Faults become events of the virtual IOMMU: for virtio-iommu, a
//!   `virtio_iommu_fault` with `VIRTIO_IOMMU_FAULT_R_MAPPING`, the endpoint that has the
//!   [`view`](Fault::view), and the [`iova`](Fault::iova).
//! - A device with [`Holes::SIGNAL`] that accesses what is not mapped may die: the VMM sees
//!   the socket hang up, starts another device with the same view, and repeats the requests
//!   that were in flight (`VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD` says which).
//! - The device's dirty log, for migration, contains IOVAs, not guest addresses. What is
//!   sent of the domain is what [`mappings()`](Domain::mappings) lists.
//! - Memory that the guest plugs and unplugs is [`add_ram()`](Domain::add_ram) and
//!   [`remove_ram()`](Domain::remove_ram).
//!
//! # Strict and deferred
//!
//! [`unmap()`](Domain::unmap) is strict: one call for each. With
//! [`unmap_later()`](Domain::unmap_later) the device may still reach the range
//! until [`flush()`](Domain::flush), which revokes all pending ranges in one batch.
//! This is what the flush queue of a hardware IOMMU driver does: faster, for devices
//! that can be trusted a little longer.
//!
//! # Small mappings are populated
//!
//! A driver maps a buffer because a device is about to access it. So a domain
//! populates mappings of at most 64 KiB: their pages are in the device's page table
//! when the call returns, at a tenth of the cost of the page fault that the device
//! would have instead. Memory that the guest has never accessed is allocated for it.
//! Larger mappings are left to page faults, since a device may access little of
//! them. [`populate_up_to()`](Domain::populate_up_to) sets the limit.
//!
//! # For devices in the VMM itself
//!
//! With the feature `iommu`, a domain is a `vm_memory::Iommu`: an
//! `IommuMemory` over guest memory and the domain translates through it.

mod faults;
mod joined;
mod pending;
mod ram;
mod table;
#[cfg(test)]
mod tests;
#[cfg(feature = "iommu")]
mod translation;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{AddressSpace, Error, Holes, Prot, Result, View};
pub use faults::{Fault, Faults, Reason};
use joined::joined;
use pending::Pending;
use ram::{Ram, add};
use table::Table;

/// The default limit for mappings to be populated, in bytes.
const POPULATED: u64 = 64 << 10;

/// One mapping of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The I/O virtual address, in bytes, a multiple of the page size.
    pub iova: u64,
    /// The guest physical address that is mapped there, in bytes, a multiple of the
    /// page size.
    pub gpa: u64,
    /// The length in bytes, a multiple of the page size.
    pub length: u64,
    /// What the device may do. [`Prot::WRITE`] requires [`Prot::READ`].
    pub prot: Prot,
}

/// An IOMMU domain: see the [module](self).
///
/// This is a handle: a clone is of the same domain. So one can be the virtual IOMMU's, and
/// others belong to devices in the VMM itself, or be moved into an `IommuMemory`.
#[derive(Clone, Debug)]
pub struct Domain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    space: AddressSpace,
    aperture: Range<u64>,
    state: Mutex<State>,
    #[cfg(feature = "iommu")]
    translation: translation::Translation,
}

#[derive(Debug)]
struct State {
    ram: Vec<Ram>,
    table: Table,
    pending: Pending,
    /// The largest mapping that is populated, in bytes.
    populated: u64,
}

impl Default for State {
    fn default() -> State {
        State {
            ram: Vec::new(),
            table: Table::default(),
            pending: Pending::default(),
            populated: POPULATED,
        }
    }
}

impl Domain {
    /// Creates a domain for these IOVAs (bytes, multiples of the page size), in
    /// which nothing is mapped.
    ///
    /// Devices map the aperture as one region of memory; most of them accept some
    /// terabytes at most.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::new()`].
    pub fn new(aperture: Range<u64>) -> Result<Domain> {
        let space = AddressSpace::new(crate::batch::length_of(&aperture))?;
        Ok(Domain::of(space, aperture))
    }

    fn of(space: AddressSpace, aperture: Range<u64>) -> Domain {
        let inner = Arc::new(Inner {
            space,
            aperture,
            state: Mutex::default(),
            #[cfg(feature = "iommu")]
            translation: Default::default(),
        });
        Domain { inner }
    }

    /// The IOVAs that can be mapped.
    pub fn aperture(&self) -> Range<u64> {
        self.inner.aperture.clone()
    }

    /// The address space: offset 0 of it is the start of the aperture.
    pub fn space(&self) -> &AddressSpace {
        &self.inner.space
    }

    /// Creates a view of the whole aperture, for a device. The device can do no more
    /// than `prot`, whatever is mapped; what else it tries is absorbed, and
    /// [reported](Domain::faults). See [above](self#what-the-device-sees).
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::view()`].
    pub fn view(&self, prot: Prot) -> Result<View> {
        self.view_with(prot, Holes::ABSORB | Holes::DENIED)
    }

    /// The same, with another answer to what the device tries: [`Holes::SIGNAL`] for a
    /// device that is to die of it, [`Holes::WAIT`] for one whose memory is mapped when it
    /// asks for it ([`Reason::Waits`]).
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::view_with()`].
    pub fn view_with(&self, prot: Prot, holes: Holes) -> Result<View> {
        self.inner.space.view_with(.., prot, holes)
    }

    /// Creates a view of a range of IOVAs (bytes, multiples of the page size), for a device
    /// that is to have no more. Offset 0 of the view is the start of the range.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; and as [`AddressSpace::view_with()`].
    pub fn view_of(&self, iovas: Range<u64>, prot: Prot, holes: Holes) -> Result<View> {
        let range = self.offsets(iovas.start, crate::batch::length_of(&iovas))?;
        self.inner.space.view_with(range, prot, holes)
    }

    /// All that is mapped, by IOVA, without the ranges whose unmap is pending: for
    /// [`replace()`](Domain::replace) in the domain that takes over, after a migration or
    /// from a snapshot. What was mapped in one call may be in several pieces, where parts of
    /// it were unmapped.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.state().table.all().collect()
    }

    /// Sets the largest mapping, in bytes, that is populated when it is mapped; 0 for
    /// none. The default is 64 KiB.
    pub fn populate_up_to(&self, length: u64) {
        self.state().populated = length;
    }

    /// Maps `length` bytes of guest RAM at `gpa` to the IOVA `iova`, where nothing
    /// may be mapped. All are bytes, multiples of the page size. If an unmap in the
    /// range is pending, the same step makes it final.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::NotRam`]; [`Error::Map`] (or, if more than
    /// one operation is needed, [`Error::Batch`] with it): EEXIST if something is
    /// mapped there; EINVAL if a number is not a multiple of the page size or the
    /// length is 0.
    pub fn map(&self, iova: u64, gpa: u64, length: u64, prot: Prot) -> Result<()> {
        self.map_all(&[Mapping {
            iova,
            gpa,
            length,
            prot,
        }])
    }

    /// Makes several mappings in one step: all or none. Cheaper than one call for
    /// each. A step has at most 65,536 operations, of which a mapping takes one for each part
    /// of RAM that it is in, and a pending unmap one.
    ///
    /// # Errors
    ///
    /// As [`map()`](Domain::map).
    pub fn map_all(&self, mappings: &[Mapping]) -> Result<()> {
        self.map_in_one_step(mappings, false)
    }

    /// Makes mappings, and the pending unmaps where they meet any, or all of them to `flush`.
    fn map_in_one_step(&self, mappings: &[Mapping], flush: bool) -> Result<()> {
        let mut state = self.state();
        let State {
            ram,
            table,
            pending,
            populated,
            ..
        } = &mut *state;
        let mut batch = self.inner.space.batch();
        let mut unmaps = flush && pending.count() != 0;
        if !unmaps && pending.count() != 0 {
            for mapping in mappings {
                let range = self.offsets(mapping.iova, mapping.length)?;
                unmaps |= pending.overlaps(&range);
            }
        }
        if unmaps {
            pending.unmap_all(&mut batch);
        }
        batch.reserve(mappings.len());
        for mapping in mappings {
            let range = self.offsets(mapping.iova, mapping.length)?;
            let populate = mapping.length <= *populated;
            add(&mut batch, ram, &range, mapping.gpa, mapping.prot, populate)?;
        }
        if unmaps {
            batch.commit()?;
            pending.clear();
        } else {
            batch.commit_maps()?;
        }
        table.add(mappings);
        self.translate_also(mappings);
        Ok(())
    }

    /// Unmaps a range of IOVAs, which may contain holes. When this returns, no device
    /// can reach what was mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::Unmap`]: EINVAL if a number is not a
    /// multiple of the page size or the length is 0; ENOMEM.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<()> {
        let mut state = self.state();
        let range = self.offsets(iova, length)?;
        self.inner.space.unmap(range)?;
        state.table.remove(&(iova..iova + length));
        self.translate_no_more(iova, length);
        Ok(())
    }

    /// Unmaps several ranges of IOVAs in one step: all or none. When this returns, no
    /// device can reach what was mapped there. Adjacent and overlapping ranges become
    /// one operation; indices in the error refer to the operations.
    ///
    /// # Errors
    ///
    /// As [`unmap()`](Domain::unmap), in [`Error::Batch`]; [`Error::OutOfAperture`]
    /// for a range that ends before it starts.
    pub fn unmap_all(&self, ranges: &[Range<u64>]) -> Result<()> {
        let mut state = self.state();
        let mut offsets = Vec::with_capacity(ranges.len());
        for range in ranges {
            let (iova, length) = (range.start, crate::batch::length_of(range));
            if range.end < range.start {
                return Err(Error::OutOfAperture { iova, length });
            }
            offsets.push(self.offsets(iova, length)?);
        }
        let offsets = joined(offsets);
        let mut batch = self.inner.space.batch();
        batch.reserve(offsets.len());
        for range in offsets {
            batch.push_unmap(&range);
        }
        batch.commit()?;
        for range in ranges {
            state.table.remove(range);
            self.translate_no_more(range.start, range.end - range.start);
        }
        Ok(())
    }

    /// Unmaps everything and maps these, in one step: devices see the domain as it
    /// was before or as it is after. Pending unmaps become final. One step has a limit, see
    /// [`map_all()`](Domain::map_all): a new domain can be filled with several calls of that.
    ///
    /// # Errors
    ///
    /// As [`map()`](Domain::map). Nothing has changed then.
    pub fn replace(&self, mappings: &[Mapping]) -> Result<()> {
        let mut state = self.state();
        let State {
            ram,
            table,
            pending,
            populated,
            ..
        } = &mut *state;
        let mut batch = self
            .inner
            .space
            .batch()
            .unmap(0..self.inner.aperture.end - self.inner.aperture.start);
        for mapping in mappings {
            let range = self.offsets(mapping.iova, mapping.length)?;
            let populate = mapping.length <= *populated;
            add(&mut batch, ram, &range, mapping.gpa, mapping.prot, populate)?;
        }
        self.translate_instead(mappings, || batch.commit())?;
        table.clear();
        table.add(mappings);
        pending.clear();
        Ok(())
    }

    /// The range of the address space for a range of IOVAs.
    fn offsets(&self, iova: u64, length: u64) -> Result<Range<u64>> {
        let start = iova.checked_sub(self.inner.aperture.start);
        let end = iova.checked_add(length);
        match (start, end) {
            (Some(start), Some(end)) if end <= self.inner.aperture.end => Ok(start..start + length),
            _ => Err(Error::OutOfAperture { iova, length }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Consistent after a panic too: it is changed only by code that cannot fail, after
        // all that can.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(feature = "iommu"))]
impl Domain {
    fn translate_also(&self, _: &[Mapping]) {}

    fn translate_no_more(&self, _: u64, _: u64) {}

    fn translate_instead(&self, _: &[Mapping], step: impl FnOnce() -> Result<()>) -> Result<()> {
        step()
    }
}
