// SPDX-License-Identifier: GPL-2.0

//! Which attachments of a space are memory slots of virtual machines.
//!
//! Locks: a spinlock, which a closing attachment acquires under its process's mmap lock. A holder
//! of a view can add as many as it likes, so nothing that is done under it takes longer for that.

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
    /// The same by machine, with the number by which the space knows that.
    by_machine: RBTree<OfMachine, u64>,
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

/// A slot among those of its machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OfMachine {
    /// See [`Machine::id`].
    machine: usize,
    slot: u32,
    /// Where it is in the process. A slot that its VMM has removed and set again is listed twice
    /// until the former window goes.
    addr: usize,
}

impl OfMachine {
    fn new(slot: &Slot, addr: usize) -> Self {
        OfMachine {
            machine: slot.machine.id(),
            slot: slot.slot,
            addr,
        }
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
                Inner {
                    slots: RBTree::new(),
                    by_machine: RBTree::new(),
                    count: 0,
                    machines: 0,
                },
                "Slots"
            ),
        })
    }

    /// Adds the attachment at `addr` of `mm`. `ENOMEM`.
    pub(crate) fn add(&self, mm: *mut mm_struct, addr: usize, slot: Slot) -> Result {
        let room = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let other = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let of_machine = OfMachine::new(&slot, addr);
        let mut inner = self.inner.lock();
        let former = inner.remove(Place::new(mm, addr));
        let machine = match inner.first_of(of_machine.machine, 0) {
            Some((_, number)) => number,
            None => {
                inner.machines += 1;
                inner.machines
            }
        };
        let node = room.into_node(Place::new(mm, addr), Listed { slot, machine });
        inner.slots.insert(node);
        inner
            .by_machine
            .insert(other.into_node(of_machine, machine));
        inner.count += 1;
        drop(inner);
        drop(former);
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
        let inner = self.inner.lock();
        let (found, _) = inner.first_of(machine.id(), slot)?;
        if found.slot != slot {
            return None;
        }
        let listed = inner.slots.get(&Place::new(mm, found.addr))?;
        Some(found.addr..found.addr + listed.slot.length)
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
        // It is dropped after the lock.
        let _removed = self.inner.lock().remove(Place::new(mm, addr));
    }
}

impl Inner {
    /// The first slot of a machine from number `slot` on, and the number of the machine.
    fn first_of(&self, machine: usize, slot: u32) -> Option<(OfMachine, u64)> {
        let from = OfMachine {
            machine,
            slot,
            addr: 0,
        };
        let cursor = self.by_machine.cursor_lower_bound(&from)?;
        let (found, number) = cursor.current();
        (found.machine == machine).then_some((*found, *number))
    }

    /// Removes a slot, if it is there, which is to be dropped after the lock: it holds a file.
    fn remove(&mut self, place: Place) -> Option<Slot> {
        let (_, listed) = self.slots.remove_node(&place)?.to_key_value();
        let key = OfMachine::new(&listed.slot, place.addr);
        self.by_machine.remove(&key);
        self.count -= 1;
        Some(listed.slot)
    }
}
