// SPDX-License-Identifier: GPL-2.0

//! What is between a device and the guest's RAM: nothing, or an IOMMU that an address
//! space enforces, with the guest's allocator of I/O virtual addresses for it.

use std::cell::Cell;
use std::os::fd::AsFd as _;

use address_space::iommu::{Domain, Fault, Faults, Mapping};
use address_space::{Holes, Prot, View, page_size};
use anyhow::{Context as _, Result, bail, ensure};
use vhost::VhostUserMemoryRegionInfo;

use crate::READ_WRITE;
use crate::frontend::region;
use crate::ram::{Ram, alignment};

/// Where I/O virtual addresses begin: no guest physical address is there.
const APERTURE: u64 = 4 << 30;
/// How many bytes of them there are.
const APERTURE_LENGTH: u64 = 1 << 30;
/// Where they end.
const APERTURE_END: u64 = APERTURE + APERTURE_LENGTH;
/// Where those for the mappings of requests begin: below are those that stay.
const REQUESTS: u64 = APERTURE + (64 << 20);

/// When an unmap takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// Before it returns.
    Strict,
    /// When `most` unmaps are pending.
    Deferred {
        /// The number of pending unmaps that are made together.
        most: u32,
    },
    /// In the call that maps the next.
    WithTheNext,
}

/// What is between a device and the RAM.
pub enum Bus {
    /// Nothing: the device has the memfd of the RAM, and addresses are the guest's.
    Memfd,
    /// A view of an address space that shows the RAM, or will: addresses are the guest's.
    View(View),
    /// An IOMMU.
    Iommu(Box<Iommu>),
}

/// An IOMMU, and the guest's allocator of addresses for it.
pub struct Iommu {
    /// What the device reaches.
    pub domain: Domain,
    /// What devices are given; each new one gets the same.
    pub view: View,
    /// What an access to nothing comes to.
    holes: Holes,
    /// Such accesses, if they are to be reported.
    faults: Option<Faults>,
    next_permanent: Cell<u64>,
    next: Cell<u64>,
    /// How many bytes are left free after each mapping, so that an access past its end
    /// meets a hole: a page, unless the test sets another number.
    pub gap: Cell<u64>,
    pending: Cell<u32>,
    /// Whether the next map makes the pending unmaps.
    flush_with_next: Cell<bool>,
}

/// Where a device finds some memory.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    /// The address on the bus.
    pub addr: u64,
    length: u64,
}

impl Bus {
    /// A bus without an IOMMU.
    pub fn memfd(_: &Ram) -> Result<Bus> {
        Ok(Bus::Memfd)
    }

    /// A bus with an IOMMU, in which nothing is mapped yet. An access to nothing ends the
    /// device, and is not reported.
    pub fn iommu(ram: &Ram) -> Result<Bus> {
        Bus::with(ram, Holes::SIGNAL, false)
    }

    /// The same, and it is reported.
    pub fn signalling(ram: &Ram) -> Result<Bus> {
        Bus::with(ram, Holes::SIGNAL, true)
    }

    /// A bus with an IOMMU where a device goes on after it has accessed nothing, which is
    /// reported.
    pub fn absorbing(ram: &Ram) -> Result<Bus> {
        Bus::with(ram, Holes::ABSORB | Holes::DENIED, true)
    }

    fn with(ram: &Ram, holes: Holes, report: bool) -> Result<Bus> {
        let domain = Domain::new(APERTURE..APERTURE_END)?;
        domain.add_ram(0, ram, 0, ram.length())?;
        let faults = report.then(|| domain.faults()).transpose()?;
        if let Some(faults) = &faults {
            faults.set_nonblocking(true)?;
        }
        Ok(Bus::Iommu(Box::new(Iommu {
            view: domain.view_with(READ_WRITE, holes)?,
            holes,
            faults,
            domain,
            next_permanent: Cell::new(APERTURE),
            next: Cell::new(REQUESTS),
            gap: Cell::new(page_size()),
            pending: Cell::new(0),
            flush_with_next: Cell::new(false),
        })))
    }

    /// A name for output.
    pub fn name(&self) -> &'static str {
        match self {
            Bus::Memfd => "memfd",
            Bus::View(_) => "view",
            Bus::Iommu(iommu) if iommu.holes.contains(Holes::ABSORB) => "absorb",
            Bus::Iommu(_) => "space",
        }
    }

    /// The IOMMU, for tests of nothing else.
    pub fn as_iommu(&self) -> Result<&Iommu> {
        match self {
            Bus::Memfd | Bus::View(_) => bail!("no IOMMU here"),
            Bus::Iommu(iommu) => Ok(iommu),
        }
    }

    /// The one region of memory that the device gets.
    pub fn region(&self, ram: &Ram) -> VhostUserMemoryRegionInfo {
        match self {
            Bus::Memfd => region(0..ram.length(), ram.as_fd()),
            Bus::View(view) => region(0..ram.length(), view.as_fd()),
            Bus::Iommu(iommu) => region(APERTURE..APERTURE_END, iommu.view.as_fd()),
        }
    }

    /// The first address after the region.
    pub fn end(&self, ram: &Ram) -> u64 {
        match self {
            Bus::Memfd | Bus::View(_) => ram.length(),
            Bus::Iommu(_) => APERTURE_END,
        }
    }

    /// Maps RAM for the device: the pages of so many bytes from a page's guest address on.
    pub fn map(&self, gpa: u64, length: u64, prot: Prot) -> Result<Mapped> {
        Ok(self.map_all(&[(gpa, length, prot)])?[0])
    }

    /// As [`map()`](Bus::map), for several parts (address, length and protection), all in
    /// one step.
    pub fn map_all(&self, parts: &[(u64, u64, Prot)]) -> Result<Vec<Mapped>> {
        match self {
            Bus::Memfd | Bus::View(_) => {
                let mapped = |&(addr, length, _): &_| Mapped { addr, length };
                Ok(parts.iter().map(mapped).collect())
            }
            Bus::Iommu(iommu) => iommu.map_all(parts),
        }
    }

    /// As [`map()`](Bus::map), for as long as the machine exists.
    pub fn map_permanent(&self, gpa: u64, length: u64, prot: Prot) -> Result<Mapped> {
        let Bus::Iommu(iommu) = self else {
            return self.map(gpa, length, prot);
        };
        let length = length.next_multiple_of(page_size());
        let addr = iommu.next_permanent.get();
        // A page between any two, so that an access past the end of one meets a hole.
        let next = addr + length + page_size();
        ensure!(next <= REQUESTS, "too many permanent mappings");
        iommu.next_permanent.set(next);
        iommu.domain.map(addr, gpa, length, prot)?;
        Ok(Mapped { addr, length })
    }

    /// Unmaps it for the device. Without an IOMMU the device keeps the memory.
    pub fn unmap(&self, mapped: Mapped, unmap: Unmap) -> Result<()> {
        self.unmap_all(&[mapped], unmap)
    }

    /// As [`unmap()`](Bus::unmap), all in one step.
    pub fn unmap_all(&self, mapped: &[Mapped], unmap: Unmap) -> Result<()> {
        match self {
            Bus::Memfd | Bus::View(_) => Ok(()),
            Bus::Iommu(iommu) => iommu.unmap_all(mapped, unmap),
        }
    }
}

impl Iommu {
    /// What was reported since it was last asked.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let mut all = Vec::new();
        let faults = self.faults.as_ref().context("nobody listens")?;
        while let Some(fault) = faults.try_next()? {
            all.push(fault);
        }
        ensure!(faults.lost() == 0, "faults were lost");
        Ok(all)
    }

    fn map_all(&self, parts: &[(u64, u64, Prot)]) -> Result<Vec<Mapped>> {
        let mappings: Vec<_> = parts
            .iter()
            .map(|&(gpa, length, prot)| {
                let length = length.next_multiple_of(page_size());
                Mapping {
                    iova: self.allocate(length),
                    gpa,
                    length,
                    prot,
                }
            })
            .collect();
        if self.flush_with_next.take() {
            self.domain.flush_and_map_all(&mappings)?;
            self.pending.set(0);
        } else {
            self.domain.map_all(&mappings)?;
        }
        Ok(mappings
            .iter()
            .map(|mapping| Mapped {
                addr: mapping.iova,
                length: mapping.length,
            })
            .collect())
    }

    /// Addresses for so many bytes.
    fn allocate(&self, length: u64) -> u64 {
        let mut addr = self.next.get().next_multiple_of(alignment(length));
        if addr + length > APERTURE_END {
            // From the start again: what was mapped there is unmapped by now.
            addr = REQUESTS;
        }
        self.next.set(addr + length + self.gap.get());
        addr
    }

    fn unmap_all(&self, mapped: &[Mapped], unmap: Unmap) -> Result<()> {
        let most = match unmap {
            Unmap::Strict => {
                let ranges: Vec<_> = mapped
                    .iter()
                    .map(|mapped| mapped.addr..mapped.addr + mapped.length)
                    .collect();
                return Ok(self.domain.unmap_all(&ranges)?);
            }
            Unmap::Deferred { most } => most,
            Unmap::WithTheNext => u32::MAX,
        };
        self.flush_with_next.set(unmap == Unmap::WithTheNext);
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
