// SPDX-License-Identifier: GPL-2.0

//! Which attachments of a space are memory slots of virtual machines.
//!
//! Locks: a spinlock, which a closing attachment acquires under its process's mmap lock. A holder
//! of a view can add as many as it likes, so nothing but a walk over the caller's own takes longer
//! for that.

use core::ops::Range;

use kernel::{
    bindings::mm_struct,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        new_spinlock,
        SpinLock, //
    },
};

use crate::sys::kvm::Machine;

/// An attachment that is a memory slot.
pub(crate) struct Slot {
    /// Held, or the next VM might be taken for it. It is put when the attachment goes.
    pub(crate) machine: Machine,
    /// The slot's number.
    pub(crate) slot: u32,
    /// How long the attachment is in bytes.
    pub(crate) length: usize,
}

/// Where an attachment is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The process's mm: compared, never followed.
    mm: usize,
    addr: usize,
}

impl Place {
    fn new(mm: *mut mm_struct, addr: usize) -> Self {
        let mm = mm as usize;
        Place { mm, addr }
    }
}

/// The attachments of a space that are memory slots. An entry goes when its attachment does.
#[pin_data]
pub(crate) struct Slots {
    #[pin]
    inner: SpinLock<RBTree<Place, Slot>>,
}

impl Slots {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(RBTree::new(), "Slots"),
        })
    }

    /// Adds the attachment at `addr` of `mm`. `ENOMEM`.
    pub(crate) fn add(&self, mm: *mut mm_struct, addr: usize, slot: Slot) -> Result {
        let node = RBTreeNode::new(Place::new(mm, addr), slot, GFP_KERNEL_ACCOUNT)?;
        let replaced = self.inner.lock().insert(node);
        drop(replaced);
        Ok(())
    }

    /// Where the attachment is in the process with `mm` that is the slot of a machine. KVM allows
    /// no other process to have any.
    pub(crate) fn window(
        &self,
        mm: *mut mm_struct,
        machine: &Machine,
        slot: u32,
    ) -> Option<Range<usize>> {
        let mut inner = self.inner.lock();
        let mut cursor = inner.cursor_lower_bound_mut(&Place::new(mm, 0));
        while let Some(at) = cursor {
            let (place, known) = at.current();
            if place.mm != mm as usize {
                break;
            }
            if known.slot == slot && known.machine.is(machine) {
                return Some(place.addr..place.addr + known.length);
            }
            cursor = at.move_next();
        }
        None
    }

    /// Removes the attachment that begins at `addr` of `mm`, if it is one of these: it is gone, or
    /// its slot is. May be called with the mmap lock of `mm` held.
    pub(crate) fn remove(&self, mm: *mut mm_struct, addr: usize) {
        let removed = self.inner.lock().remove_node(&Place::new(mm, addr));
        drop(removed);
    }
}
