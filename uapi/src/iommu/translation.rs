// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A domain as a `vm_memory::Iommu`: a table of what is mapped, updated with each
//! change of the domain, for devices in the VMM itself.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::iommu::{Error as IommuError, Iommu, Iotlb, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, Permissions};

use super::{Domain, Mapping};
use crate::{Prot, Result};

/// All mappings, for devices that translate in this process. It is complete, not a
/// cache.
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
    /// Adds mappings, after the kernel has mapped them.
    pub(super) fn translate_also(&self, mappings: &[Mapping]) {
        set(&mut self.inner.translation.write(), mappings);
    }

    /// Removes a range that devices cannot reach any more, or soon will not. Waits for
    /// translations that are under way.
    pub(super) fn translate_no_more(&self, iova: u64, length: u64) {
        self.inner
            .translation
            .write()
            .invalidate_mapping(GuestAddress(iova), length as usize);
    }

    /// Replaces all mappings, together with the kernel's step: a translation sees both
    /// or neither.
    pub(super) fn translate_instead(
        &self,
        mappings: &[Mapping],
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut table = self.inner.translation.write();
        step()?;
        table.invalidate_all();
        set(&mut table, mappings);
        Ok(())
    }
}

fn set(table: &mut Iotlb, mappings: &[Mapping]) {
    for mapping in mappings {
        // This cannot fail.
        let _ = table.set_mapping(
            GuestAddress(mapping.iova),
            GuestAddress(mapping.gpa),
            mapping.length as usize,
            mapping.prot.into(),
        );
    }
}

/// Translates what the kernel enforces, except for ranges that are pending after
/// [`Domain::unmap_later()`]: they are not translated any more.
///
/// Changes of the domain wait while an iterator exists.
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
            return Err(failed("the range ends beyond 2^64".into()));
        }
        let table = self
            .inner
            .translation
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(table, iova, length, access).map_err(|fails| {
            failed(if fails.misses.is_empty() {
                "the mapping does not allow the access".into()
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

/// An address space has no mappings that can be written and not read, so permission to
/// write includes permission to read.
impl From<Permissions> for Prot {
    fn from(permissions: Permissions) -> Prot {
        match permissions {
            Permissions::No => Prot::empty(),
            Permissions::Read => Prot::READ,
            Permissions::Write | Permissions::ReadWrite => Prot::READ_WRITE,
        }
    }
}
