// SPDX-License-Identifier: GPL-2.0

//! Guest RAM, and what of it a device can reach.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};

use address_space::iommu::{Domain, Mapping};
use address_space::{Prot, View, page_size};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

/// How much RAM the guest has, in bytes, from guest address 0 on.
const RAM_LENGTH: u64 = 32 << 20;
/// Where I/O virtual addresses begin: where no guest physical address is.
const APERTURE: u64 = 4 << 30;
/// How many bytes of them there are.
const APERTURE_LENGTH: u64 = 1 << 30;
/// The first of them, in bytes, are for what stays mapped.
const LASTING: u64 = 64 << 20;

pub const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

/// The guest's memory, as its driver and the VMM see it.
pub struct Ram {
    file: File,
    memory: GuestMemoryMmap,
    next: Cell<u64>,
}

impl Ram {
    pub fn new() -> Result<Ram> {
        let file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC)?);
        file.set_len(RAM_LENGTH)?;
        let region = (
            GuestAddress(0),
            RAM_LENGTH as usize,
            Some(FileOffset::new(file.try_clone()?, 0)),
        );
        Ok(Ram {
            memory: GuestMemoryMmap::from_ranges_with_files([region])?,
            file,
            next: Cell::new(1 << 20),
        })
    }

    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Guest pages that nothing else uses, zeroed, for so many bytes; where they
    /// begin.
    pub fn pages(&self, length: u64) -> Result<u64> {
        let length = length.next_multiple_of(page_size());
        // Large ones can then be mapped by large pages.
        let align = if length >= 2 << 20 {
            2 << 20
        } else {
            page_size()
        };
        let gpa = self.next.get().next_multiple_of(align);
        ensure!(gpa + length <= RAM_LENGTH, "the guest's RAM is used up");
        self.next.set(gpa + length);
        Ok(gpa)
    }

    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.memory.write_slice(bytes, GuestAddress(gpa))?)
    }

    pub fn read(&self, gpa: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(gpa))?;
        Ok(bytes)
    }
}

/// When an unmap is to be final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// When it returns.
    Strict,
    /// When so many are pending.
    Deferred { most: u32 },
}

/// What is between a device and the RAM.
pub enum Bus {
    /// Nothing: the device has the RAM's file, and addresses are the guest's.
    Memfd,
    /// An IOMMU.
    Iommu(Box<Iommu>),
}

/// An IOMMU, and the guest's allocator of addresses for it.
pub struct Iommu {
    pub domain: Domain,
    /// What devices are given; the same one again after they have died.
    view: View,
    lasting: Cell<u64>,
    passing: Cell<u64>,
    /// How much is left free after each, so that what reaches too far reaches
    /// nothing: a page, if nobody wants it otherwise.
    pub gap: Cell<u64>,
    pending: Cell<u32>,
}

/// Where a device finds some memory.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    pub addr: u64,
    length: u64,
}

impl Bus {
    /// The one of today.
    pub fn memfd() -> Bus {
        Bus::Memfd
    }

    /// One with nothing mapped yet.
    pub fn iommu(ram: &Ram) -> Result<Bus> {
        let domain = Domain::new(APERTURE..APERTURE + APERTURE_LENGTH)?;
        domain.add_ram(0, &ram.file, 0, RAM_LENGTH)?;
        Ok(Bus::Iommu(Box::new(Iommu {
            view: domain.view(READ_WRITE)?,
            domain,
            lasting: Cell::new(APERTURE),
            passing: Cell::new(APERTURE + LASTING),
            gap: Cell::new(page_size()),
            pending: Cell::new(0),
        })))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Bus::Memfd => "memfd",
            Bus::Iommu(_) => "space",
        }
    }

    /// The IOMMU, for cases that are about nothing else.
    pub fn as_iommu(&self) -> Result<&Iommu> {
        match self {
            Bus::Memfd => anyhow::bail!("no IOMMU here"),
            Bus::Iommu(iommu) => Ok(iommu),
        }
    }

    /// The one region of memory that the device is told of.
    pub fn region(&self, ram: &Ram) -> VhostUserMemoryRegionInfo {
        // The device translates ring addresses by `userspace_addr`. It is a name
        // and nothing else, so it is the same number.
        let (start, memory_size, mmap_handle) = match self {
            Bus::Memfd => (0, RAM_LENGTH, ram.file.as_raw_fd()),
            Bus::Iommu(iommu) => (APERTURE, APERTURE_LENGTH, iommu.view.as_fd().as_raw_fd()),
        };
        VhostUserMemoryRegionInfo {
            guest_phys_addr: start,
            memory_size,
            userspace_addr: start,
            mmap_offset: 0,
            mmap_handle,
        }
    }

    /// The first address that the device has not.
    pub fn end(&self) -> u64 {
        match self {
            Bus::Memfd => RAM_LENGTH,
            Bus::Iommu(_) => APERTURE + APERTURE_LENGTH,
        }
    }

    /// Lets the device have the pages that so many bytes of RAM are in, which
    /// must begin at a page.
    pub fn map(&self, gpa: u64, length: u64, prot: Prot) -> Result<Mapped> {
        Ok(self.map_all(&[(gpa, length, prot)])?[0])
    }

    /// As [`map()`](Bus::map), all in one step.
    pub fn map_all(&self, parts: &[(u64, u64, Prot)]) -> Result<Vec<Mapped>> {
        match self {
            Bus::Memfd => {
                let mapped = |&(addr, length, _): &_| Mapped { addr, length };
                Ok(parts.iter().map(mapped).collect())
            }
            Bus::Iommu(iommu) => iommu.map_all(parts),
        }
    }

    /// As [`map()`](Bus::map), for as long as the machine lives.
    pub fn map_lasting(&self, gpa: u64, length: u64, prot: Prot) -> Result<Mapped> {
        let Bus::Iommu(iommu) = self else {
            return self.map(gpa, length, prot);
        };
        let length = length.next_multiple_of(page_size());
        let addr = iommu.lasting.get();
        // A page between any two, so that what reaches too far reaches nothing.
        iommu.lasting.set(addr + length + page_size());
        ensure!(iommu.lasting.get() <= APERTURE + LASTING, "too much lasts");
        iommu.domain.map(addr, gpa, length, prot)?;
        Ok(Mapped { addr, length })
    }

    /// Takes it from the device. Where there is no IOMMU it keeps it, as devices
    /// do today.
    pub fn unmap(&self, mapped: Mapped, unmap: Unmap) -> Result<()> {
        self.unmap_all(&[mapped], unmap)
    }

    /// As [`unmap()`](Bus::unmap), all in one step.
    pub fn unmap_all(&self, mapped: &[Mapped], unmap: Unmap) -> Result<()> {
        match self {
            Bus::Memfd => Ok(()),
            Bus::Iommu(iommu) => iommu.unmap_all(mapped, unmap),
        }
    }
}

impl Iommu {
    fn map_all(&self, parts: &[(u64, u64, Prot)]) -> Result<Vec<Mapped>> {
        let mappings: Vec<_> = parts
            .iter()
            .map(|&(gpa, length, prot)| {
                let length = length.next_multiple_of(page_size());
                Mapping {
                    iova: self.address(length),
                    gpa,
                    length,
                    prot,
                }
            })
            .collect();
        self.domain.map_all(&mappings)?;
        Ok(mappings
            .iter()
            .map(|mapping| Mapped {
                addr: mapping.iova,
                length: mapping.length,
            })
            .collect())
    }

    /// Addresses for so many bytes.
    fn address(&self, length: u64) -> u64 {
        let align = if length >= 2 << 20 {
            2 << 20
        } else {
            page_size()
        };
        let mut addr = self.passing.get().next_multiple_of(align);
        if addr + length > APERTURE + APERTURE_LENGTH {
            // Around again: what was there is long unmapped.
            addr = APERTURE + LASTING;
        }
        self.passing.set(addr + length + self.gap.get());
        addr
    }

    fn unmap_all(&self, mapped: &[Mapped], unmap: Unmap) -> Result<()> {
        let Unmap::Deferred { most } = unmap else {
            let ranges: Vec<_> = mapped
                .iter()
                .map(|mapped| mapped.addr..mapped.addr + mapped.length)
                .collect();
            return Ok(self.domain.unmap_all(&ranges)?);
        };
        for mapped in mapped {
            self.domain.unmap_later(mapped.addr, mapped.length)?;
        }
        self.pending.set(self.pending.get() + mapped.len() as u32);
        if self.pending.get() >= most {
            self.domain.flush().context("flush")?;
            self.pending.set(0);
        }
        Ok(())
    }
}
