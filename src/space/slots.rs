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
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        new_spinlock,
        SpinLock, //
    },
    task::Task, //
};

use crate::{
    layout::SpacePage,
    sys::kvm::Machine, //
};

/// An attachment that is a memory slot.
pub(crate) struct Slot {
    /// Held, or the next VM might be taken for it. It is put when the attachment goes.
    pub(crate) machine: Machine,
    /// The slot's number.
    pub(crate) slot: u32,
    /// How long the attachment is in bytes.
    pub(crate) length: usize,
    /// The page of the space with which it begins.
    pub(crate) first: SpacePage,
    /// The process: its first thread.
    pub(crate) process: ARef<Task>,
}

/// What fdinfo says of a slot.
pub(crate) struct Told {
    place: Place,
    pub(crate) process: ARef<Task>,
    pub(crate) machine: u64,
    pub(crate) slot: u32,
    pub(crate) first: SpacePage,
    pub(crate) length: usize,
}

/// A slot in the list.
struct Listed {
    slot: Slot,
    /// The number by which the space knows the machine.
    machine: u64,
}

/// What the lock guards.
struct Inner {
    slots: RBTree<Place, Listed>,
    /// How many there are.
    count: usize,
    /// Machines that were given a number.
    machines: u64,
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
    inner: SpinLock<Inner>,
}

impl Slots {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(
                Inner { slots: RBTree::new(), count: 0, machines: 0 },
                "Slots"
            ),
        })
    }

    /// Adds the attachment at `addr` of `mm`. `ENOMEM`.
    pub(crate) fn add(&self, mm: *mut mm_struct, addr: usize, slot: Slot) -> Result {
        let room = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let mut inner = self.inner.lock();
        let machine = match inner.find(mm, |known| known.machine.is(&slot.machine)) {
            Some((_, listed)) => listed.machine,
            None => {
                inner.machines += 1;
                inner.machines
            }
        };
        let node = room.into_node(Place::new(mm, addr), Listed { slot, machine });
        let replaced = inner.slots.insert(node);
        inner.count += usize::from(replaced.is_none());
        drop(inner);
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
        let is_it = |known: &Slot| known.slot == slot && known.machine.is(machine);
        let (place, listed) = inner.find(mm, is_it)?;
        Some(place.addr..place.addr + listed.slot.length)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().count
    }

    /// The first slot, or the one behind `last`. One at a time: who reads them must keep no
    /// attachment from closing for long.
    pub(crate) fn next(&self, last: Option<&Told>) -> Option<Told> {
        let from = last.map_or(Place { mm: 0, addr: 0 }, |told| Place {
            mm: told.place.mm,
            addr: told.place.addr + 1,
        });
        let inner = self.inner.lock();
        let cursor = inner.slots.cursor_lower_bound(&from)?;
        let (place, listed) = cursor.current();
        let slot = &listed.slot;
        Some(Told {
            place: *place,
            process: slot.process.clone(),
            machine: listed.machine,
            slot: slot.slot,
            first: slot.first,
            length: slot.length,
        })
    }

    /// Removes the attachment that begins at `addr` of `mm`, if it is one of these: it is gone, or
    /// its slot is. May be called with the mmap lock of `mm` held.
    pub(crate) fn remove(&self, mm: *mut mm_struct, addr: usize) {
        let mut inner = self.inner.lock();
        let removed = inner.slots.remove_node(&Place::new(mm, addr));
        inner.count -= usize::from(removed.is_some());
        drop(inner);
        drop(removed);
    }
}

impl Inner {
    /// The first slot of the process with `mm` that is `wanted`.
    fn find(
        &mut self,
        mm: *mut mm_struct,
        wanted: impl Fn(&Slot) -> bool,
    ) -> Option<(Place, &Listed)> {
        let mut cursor = self.slots.cursor_lower_bound_mut(&Place::new(mm, 0));
        let place = loop {
            let at = cursor?;
            let (place, known) = at.current();
            if place.mm != mm as usize {
                return None;
            }
            if wanted(&known.slot) {
                break *place;
            }
            cursor = at.move_next();
        };
        self.slots.get(&place).map(|listed| (place, listed))
    }
}
