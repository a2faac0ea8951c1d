// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A domain as a `vm_memory::Iommu`: the table of what is mapped, kept with each
//! change of the domain, and looked up by devices in the VMM itself.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::iommu::{Error as IommuError, Iommu, Iotlb, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, Permissions};

use super::{Domain, Mapping};
use crate::{Prot, Result};

/// What is mapped, for those who translate themselves. Not a cache: all of
/// it.
#[derive(Debug, Default)]
pub(super) struct Translation {
    table: RwLock<Iotlb>,
}

impl Translation {
    fn write(&self) -> RwLockWriteGuard<'_, Iotlb> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Domain {
    /// After the kernel has mapped them.
    pub(super) fn translate_also(&self, mappings: &[Mapping]) {
        set(&mut self.translation.write(), mappings);
    }

    /// Once devices do not reach it, or soon will not. Whoever is translating
    /// now is waited for.
    pub(super) fn translate_no_more(&self, iova: u64, length: u64) {
        self.translation
            .write()
            .invalidate_mapping(GuestAddress(iova), length as usize);
    }

    /// With the kernel's step: who translates sees both or none.
    pub(super) fn translate_instead(
        &self,
        mappings: &[Mapping],
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut table = self.translation.write();
        step()?;
        table.invalidate_all();
        set(&mut table, mappings);
        Ok(())
    }
}

fn set(table: &mut Iotlb, mappings: &[Mapping]) {
    for mapping in mappings {
        // It has no error to give.
        let _ = table.set_mapping(
            GuestAddress(mapping.iova),
            GuestAddress(mapping.gpa),
            mapping.length as usize,
            mapping.prot.into(),
        );
    }
}

/// Translates as the kernel enforces, but for what is pending of
/// [`Domain::unmap_later()`], which is translated no more.
///
/// While an iterator exists, changes of the domain wait.
impl Iommu for Domain {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> std::result::Result<IotlbIterator<Self::IotlbGuard<'_>>, IommuError> {
        let failed = |reason: String| IommuError::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason,
        };
        if iova.0.checked_add(length as u64).is_none() {
            return Err(failed("it ends past 2^64".into()));
        }
        let table = self
            .translation
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(table, iova, length, access).map_err(|fails| {
            failed(if fails.misses.is_empty() {
                "it may not be accessed so".into()
            } else {
                "nothing is mapped there".into()
            })
        })
    }
}

impl From<Prot> for Permissions {
    fn from(prot: Prot) -> Permissions {
        match (prot.contains(Prot::READ), prot.contains(Prot::WRITE)) {
            (false, false) => Permissions::No,
            (true, false) => Permissions::Read,
            (false, true) => Permissions::Write,
            (true, true) => Permissions::ReadWrite,
        }
    }
}

/// An address space has nothing that can only be written, so what may be
/// written may be read.
impl From<Permissions> for Prot {
    fn from(permissions: Permissions) -> Prot {
        match permissions {
            Permissions::No => Prot::empty(),
            Permissions::Read => Prot::READ,
            Permissions::Write | Permissions::ReadWrite => Prot::READ | Prot::WRITE,
        }
    }
}
