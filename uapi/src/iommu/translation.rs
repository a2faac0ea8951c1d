// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A domain as a `vm_memory::Iommu`, for devices in the VMM itself: a second table of what
//! is mapped, in the form that vm-memory wants. The first translation makes it, and from
//! then on it is updated with each change of the domain. A domain through which nothing
//! translates, as where all devices are other processes, never has it.
//!
//! Its lock is inside that of the domain's state, under which it is made and changed. A
//! translation takes that of the state the first time, before its own.

use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::iommu::{Error as IommuError, Iommu, Iotlb, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, Permissions};

use super::{Domain, Mapping};
use crate::{Prot, Result};

/// All mappings, for devices that translate in this process. It is complete, not a
/// cache.
#[derive(Debug, Default)]
pub(super) struct Translation {
    table: OnceLock<RwLock<Iotlb>>,
}

impl Translation {
    /// The table, if anything has been translated.
    fn write(&self) -> Option<RwLockWriteGuard<'_, Iotlb>> {
        let table = self.table.get()?;
        Some(table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Domain {
    /// Adds mappings, after the kernel has mapped them.
    pub(super) fn translate_also(&self, mappings: &[Mapping]) {
        if let Some(mut table) = self.inner.translation.write() {
            set(&mut table, mappings.iter().cloned());
        }
    }

    /// Removes a range that devices cannot reach any more, or soon will not. Waits for
    /// translations that are under way.
    pub(super) fn translate_no_more(&self, iova: u64, length: u64) {
        if let Some(mut table) = self.inner.translation.write() {
            table.invalidate_mapping(GuestAddress(iova), length as usize);
        }
    }

    /// Replaces all mappings, together with the kernel's step: a translation sees both
    /// or neither.
    pub(super) fn translate_instead(
        &self,
        mappings: &[Mapping],
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(mut table) = self.inner.translation.write() else {
            return step();
        };
        step()?;
        table.invalidate_all();
        set(&mut table, mappings.iter().cloned());
        Ok(())
    }

    /// The table, which is made if this is the first translation.
    fn table(&self) -> RwLockReadGuard<'_, Iotlb> {
        let made = &self.inner.translation.table;
        let table = made.get().unwrap_or_else(|| {
            // Whoever changes the domain holds this lock and sees the new table, or has not
            // changed it yet.
            let state = self.state();
            made.get_or_init(|| {
                let mut table = Iotlb::default();
                set(&mut table, state.table.all());
                RwLock::new(table)
            })
        });
        table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(table: &mut Iotlb, mappings: impl IntoIterator<Item = Mapping>) {
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
/// Changes of the domain wait while an iterator exists. So a thread that has one must neither
/// change the domain nor translate anything else: it could wait for a change that waits for it.
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
        Iotlb::lookup(self.table(), iova, length, access).map_err(|fails| {
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
