// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An IOMMU domain that is enforced: devices in other processes reach what is
//! mapped in it, and nothing else.
//!
//! A [`Domain`] is an address space whose offsets are I/O virtual addresses
//! (IOVAs), over the memory files that guest RAM is made of. A VMM gives a
//! device process one [view](Domain::view) of it, where it would have given it
//! the file descriptors of all RAM; an unmodified vhost-user device takes it for
//! one region of guest memory (`SET_MEM_TABLE`) whose guest physical addresses
//! are IOVAs. From then on the device needs no messages: a [`map()`](Domain::map)
//! shows at once, and when [`unmap()`](Domain::unmap) returns the device has
//! lost it.
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
//! give_to_device(domain.view(Prot::READ | Prot::WRITE)?, domain.aperture());
//!
//! // The guest's IOMMU driver maps a buffer for one transfer.
//! domain.map((5 << 30) - 0x1000, 0x7000, 0x1000, Prot::READ)?;
//! domain.unmap((5 << 30) - 0x1000, 0x1000)?;
//!
//! // The guest attaches the device to another domain: one step, with nothing
//! // between.
//! domain.replace(&[Mapping { iova: 4 << 30, gpa: 0, length: 2 << 20, prot: Prot::READ }])?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the device sees
//!
//! Where nothing is mapped, the device's own access is SIGBUS, and a system call
//! that it passes the address to fails with EFAULT: the page as a buffer for
//! reading or writing a file is an I/O error for the guest, a ring or a request
//! header there ends the device. Where it may only read, writing is SIGSEGV, or
//! EFAULT. O_DIRECT does not work on such memory. A system call for several pages
//! of which one is not mapped may do its first part; what the device makes of that
//! is its own: qemu-storage-daemon copies the rest by hand, and dies.
//!
//! # In a VMM
//!
//! - In the place of a table with a region for each part of RAM, `SET_MEM_TABLE`
//!   has one region: the view, `guest_phys_addr` and `memory_size` the aperture.
//!   `userspace_addr` is a name by which the device knows ring addresses, and can
//!   be the same number.
//! - Rings are at IOVAs, as the guest's driver (`VIRTIO_F_ACCESS_PLATFORM`) tells
//!   them: they are passed on as they are. The device itself need not offer that
//!   feature, nor know IOTLB messages.
//! - The virtual IOMMU's map and unmap requests become calls of the domain; those
//!   of one kick, [`map_all()`](Domain::map_all) and
//!   [`unmap_all()`](Domain::unmap_all). In cloud-hypervisor that place is
//!   `ExternalDmaMapping`, which VFIO devices have already.
//! - Attaching a device to another domain is [`replace()`](Domain::replace), or
//!   another view and `SET_MEM_TABLE`.
//! - A device that touches what it has not dies: the VMM sees it hang up, starts
//!   another with the same view, and makes the requests again that were in flight
//!   (`VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD` tells which).
//! - The device's dirty log, for migration, has IOVAs in it, not guest addresses.
//!
//! # Strict and deferred
//!
//! [`unmap()`](Domain::unmap) is strict: one call for each. With
//! [`unmap_later()`](Domain::unmap_later) the device may still reach the range
//! until [`flush()`](Domain::flush), which revokes all that is pending in one
//! batch. That is what the flush queue of a real IOMMU does: faster, and for
//! devices that are trusted a little longer.
//!
//! # What is small is entered at once
//!
//! A driver maps a buffer because a device is about to touch it. So what is mapped
//! by mappings of at most 64 KiB is entered in the device's page table before the
//! call returns, which costs a tenth of the page fault that the device would take
//! instead; memory that the guest has never touched is allocated for it. Larger
//! mappings are left to page faults, as a device may touch little of them.
//! [`populate_up_to()`](Domain::populate_up_to) sets the limit.
//!
//! # For devices in the VMM itself
//!
//! With the feature `iommu`, a domain is a `vm_memory::Iommu`: an
//! `IommuMemory` over guest memory and the domain translates through it.

mod joined;
mod pending;
mod ram;
#[cfg(test)]
mod tests;
#[cfg(feature = "iommu")]
mod translation;

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{AddressSpace, Batch, Errno, Error, Prot, Result, View, page_size};
use joined::joined;
use pending::Pending;
use ram::{Ram, add, overlap};

/// How many deferred unmaps may be pending: the next flushes them.
const MOST_PENDING: usize = 1024;

/// How large a mapping may be, in bytes, to be populated.
const POPULATED: u64 = 64 << 10;

/// One mapping of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the device finds it, in bytes, a multiple of the page size.
    pub iova: u64,
    /// The guest physical address that it shows, in bytes, a multiple of the
    /// page size.
    pub gpa: u64,
    /// How much, in bytes, a multiple of the page size.
    pub length: u64,
    /// What the device may do. [`Prot::WRITE`] goes with [`Prot::READ`].
    pub prot: Prot,
}

/// An IOMMU domain: see the [module](self).
#[derive(Debug)]
pub struct Domain {
    space: AddressSpace,
    aperture: Range<u64>,
    state: Mutex<State>,
    #[cfg(feature = "iommu")]
    translation: translation::Translation,
}

#[derive(Debug)]
struct State {
    ram: Vec<Ram>,
    pending: Pending,
    /// The largest mapping that is populated.
    populated: u64,
}

impl Default for State {
    fn default() -> State {
        State {
            ram: Vec::new(),
            pending: Pending::default(),
            populated: POPULATED,
        }
    }
}

impl Domain {
    /// Makes a domain for these IOVAs (bytes, multiples of the page size), in
    /// which nothing is mapped.
    ///
    /// Devices see them as one region of memory, so that most of them take an
    /// aperture of no more than some terabytes.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::new()`].
    pub fn new(aperture: Range<u64>) -> Result<Domain> {
        let space = AddressSpace::new(crate::batch::length_of(&aperture))?;
        Ok(Domain::of(space, aperture))
    }

    fn of(space: AddressSpace, aperture: Range<u64>) -> Domain {
        Domain {
            space,
            aperture,
            state: Mutex::default(),
            #[cfg(feature = "iommu")]
            translation: Default::default(),
        }
    }

    /// Tells of guest RAM: `length` bytes at the guest physical address `gpa`
    /// are those at `offset` of a file, open for reading and writing. The file
    /// is registered with the address space; a device sees nothing of it before
    /// it is mapped.
    ///
    /// # Errors
    ///
    /// As [`Registration::commit()`](crate::Registration::commit);
    /// [`Error::Duplicate`]; [`Error::RamOverlaps`] where there is RAM already.
    pub fn add_ram(&self, gpa: u64, file: impl AsFd, offset: u64, length: u64) -> Result<()> {
        let file = file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::Duplicate {
                errno: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
            })?;
        let gpa = gpa..gpa
            .checked_add(length)
            .ok_or(Error::NotRam { gpa, length })?;
        let mut state = self.state();
        if state.ram.iter().any(|ram| overlap(&ram.gpa, &gpa)) {
            return Err(Error::RamOverlaps { gpa });
        }
        self.space
            .register(&file)
            .offset(offset)
            .length(length)
            .prot(Prot::READ | Prot::WRITE)
            .commit()?;
        state.ram.push(Ram { gpa, file, offset });
        state.ram.sort_by_key(|ram| ram.gpa.start);
        Ok(())
    }

    /// The IOVAs that can be mapped.
    pub fn aperture(&self) -> Range<u64> {
        self.aperture.clone()
    }

    /// The address space: offset 0 of it is the start of the aperture.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Makes a view of the whole aperture, for a device. Whatever is mapped, the
    /// device can do no more than `prot`.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::view()`].
    pub fn view(&self, prot: Prot) -> Result<View> {
        self.space
            .view(0..self.aperture.end - self.aperture.start, prot)
    }

    /// Has what is mapped from now on by mappings of at most so many bytes entered
    /// in the devices' page tables at once; 0 for none. It is 64 KiB until it is
    /// set.
    pub fn populate_up_to(&self, length: u64) {
        self.state().populated = length;
    }

    /// Maps `length` bytes of guest RAM at `gpa` to the IOVA `iova`, where
    /// nothing may be mapped. All are bytes, multiples of the page size. Where an
    /// unmap of something there is pending, the same step makes it final.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::NotRam`]; [`Error::Map`] (or, for more
    /// than one step, [`Error::Batch`] with it): EEXIST where something is mapped
    /// there; EINVAL where a number is not of whole pages or the length 0.
    pub fn map(&self, iova: u64, gpa: u64, length: u64, prot: Prot) -> Result<()> {
        self.map_all(&[Mapping {
            iova,
            gpa,
            length,
            prot,
        }])
    }

    /// Makes several mappings, in one step: all or none. Cheaper than one after
    /// the other, where a guest asks for several at once.
    ///
    /// # Errors
    ///
    /// As [`map()`](Domain::map).
    pub fn map_all(&self, mappings: &[Mapping]) -> Result<()> {
        let mut state = self.state();
        let State {
            ram,
            pending,
            populated,
        } = &mut *state;
        let mut batch = self.space.batch();
        let mut meets_pending = false;
        if pending.count() != 0 {
            for mapping in mappings {
                let range = self.offsets(mapping.iova, mapping.length)?;
                meets_pending |= pending.overlaps(&range);
            }
        }
        if meets_pending {
            batch = pending.unmap_all(batch);
        }
        for mapping in mappings {
            let range = self.offsets(mapping.iova, mapping.length)?;
            let populate = mapping.length <= *populated;
            add(&mut batch, ram, &range, mapping.gpa, mapping.prot, populate)?;
        }
        if meets_pending {
            batch.commit()?;
            pending.clear();
        } else {
            batch.commit_maps()?;
        }
        self.translate_also(mappings);
        Ok(())
    }

    /// Unmaps a range of IOVAs; holes in it are fine. When this returns, no
    /// device reaches what was mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::Unmap`]: EINVAL where a number is not of
    /// whole pages or the length 0; ENOMEM.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<()> {
        let _state = self.state();
        let range = self.offsets(iova, length)?;
        self.space.unmap(range)?;
        self.translate_no_more(iova, length);
        Ok(())
    }

    /// Unmaps several ranges of IOVAs, in one step: all or none. When this
    /// returns, no device reaches what was mapped there. Those that touch are one
    /// for the kernel, which is what the error counts.
    ///
    /// # Errors
    ///
    /// As [`unmap()`](Domain::unmap), in [`Error::Batch`]; [`Error::OutOfAperture`]
    /// for a range that ends before it begins.
    pub fn unmap_all(&self, ranges: &[Range<u64>]) -> Result<()> {
        let _state = self.state();
        let mut offsets = Vec::with_capacity(ranges.len());
        for range in ranges {
            let (iova, length) = (range.start, crate::batch::length_of(range));
            if range.end < range.start {
                return Err(Error::OutOfAperture { iova, length });
            }
            offsets.push(self.offsets(iova, length)?);
        }
        let batch = self.space.batch();
        joined(offsets)
            .into_iter()
            .fold(batch, Batch::unmap)
            .commit()?;
        for range in ranges {
            self.translate_no_more(range.start, range.end - range.start);
        }
        Ok(())
    }

    /// Unmaps a range of IOVAs, but lets devices reach it until
    /// [`flush()`](Domain::flush). Until then, or until it is mapped again,
    /// devices may use what was mapped there: the guest must not yet use that
    /// memory for anything that they may not see or change.
    ///
    /// At most 1024 such ranges are pending: one more has all of them flushed.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`]; [`Error::Unmap`]: EINVAL where a number is not of
    /// whole pages or the length 0; and those of a flush.
    pub fn unmap_later(&self, iova: u64, length: u64) -> Result<()> {
        let mut state = self.state();
        let range = self.offsets(iova, length)?;
        if length == 0 || (range.start | length) % page_size() != 0 {
            // One that the kernel would refuse is not to spoil the others' flush.
            let errno = Errno::INVAL;
            return Err(Error::Unmap { range, errno });
        }
        self.translate_no_more(iova, length);
        state.pending.add(range);
        if state.pending.count() > MOST_PENDING {
            self.flush_all(&mut state)?;
        }
        Ok(())
    }

    /// Makes all pending unmaps final, in one step. When this returns, no device
    /// reaches what was mapped there.
    ///
    /// # Errors
    ///
    /// [`Error::Batch`]; what was pending still is.
    pub fn flush(&self) -> Result<()> {
        self.flush_all(&mut self.state())
    }

    fn flush_all(&self, state: &mut State) -> Result<()> {
        state.pending.unmap_all(self.space.batch()).commit()?;
        state.pending.clear();
        Ok(())
    }

    /// Unmaps all and maps these, in one step: devices see the domain as it was
    /// or as it is now. Pending unmaps are final with it.
    ///
    /// # Errors
    ///
    /// As [`map()`](Domain::map). Nothing has changed then.
    pub fn replace(&self, mappings: &[Mapping]) -> Result<()> {
        let mut state = self.state();
        let State {
            ram,
            pending,
            populated,
        } = &mut *state;
        let mut batch = self
            .space
            .batch()
            .unmap(0..self.aperture.end - self.aperture.start);
        for mapping in mappings {
            let range = self.offsets(mapping.iova, mapping.length)?;
            let populate = mapping.length <= *populated;
            add(&mut batch, ram, &range, mapping.gpa, mapping.prot, populate)?;
        }
        self.translate_instead(mappings, || batch.commit())?;
        pending.clear();
        Ok(())
    }

    /// Where in the address space a range of IOVAs is.
    fn offsets(&self, iova: u64, length: u64) -> Result<Range<u64>> {
        let start = iova.checked_sub(self.aperture.start);
        let end = iova.checked_add(length);
        match (start, end) {
            (Some(start), Some(end)) if end <= self.aperture.end => Ok(start..start + length),
            _ => Err(Error::OutOfAperture { iova, length }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left it whole: it is changed after the kernel's part,
        // and by what cannot fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
