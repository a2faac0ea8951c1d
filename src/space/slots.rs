// SPDX-License-Identifier: GPL-2.0

//! Which attachments of a space are memory slots of virtual machines.
//!
//! Locks: one mutex, which a closing attachment acquires under its process's mmap lock; so
//! nothing is mapped while it is held.

use core::ops::Range;

use kernel::{
    bindings::mm_struct,
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    },
};

use crate::sys::kvm::Machine;

/// An attachment that is a memory slot.
pub(crate) struct Slot {
    /// The process's mm: compared, never followed.
    pub(crate) mm: usize,
    /// Held, or the next VM might be taken for it. It is put when the attachment goes.
    pub(crate) machine: Machine,
    /// The slot's number.
    pub(crate) slot: u32,
    /// Where the attachment is in the process, in bytes,
    pub(crate) addr: usize,
    /// and how long.
    pub(crate) length: usize,
}

impl Slot {
    fn is(&self, machine: &Machine, slot: u32) -> bool {
        self.machine.is(machine) && self.slot == slot
    }
}

/// The attachments of a space that are memory slots. An entry goes when its attachment does.
#[pin_data]
pub(crate) struct Slots {
    #[pin]
    inner: Mutex<KVec<Slot>>,
}

impl Slots {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(KVec::new(), "Slots"),
        })
    }

    /// Adds one. `ENOMEM`.
    pub(crate) fn add(&self, slot: Slot) -> Result {
        Ok(self.inner.lock().push(slot, GFP_KERNEL_ACCOUNT)?)
    }

    /// Where the attachment is, in bytes of its process, that is the slot of a machine.
    pub(crate) fn window(&self, machine: &Machine, slot: u32) -> Option<Range<usize>> {
        let inner = self.inner.lock();
        let known = inner.iter().find(|known| known.is(machine, slot))?;
        Some(known.addr..known.addr + known.length)
    }

    /// Removes the slot of a machine, if it is one of these.
    pub(crate) fn remove(&self, machine: &Machine, slot: u32) {
        self.inner.lock().retain(|known| !known.is(machine, slot));
    }

    /// The attachment that begins at `addr` of `mm` is gone. Called with the mmap lock of `mm`
    /// held.
    pub(crate) fn remove_attachment(&self, mm: *mut mm_struct, addr: usize) {
        self.inner
            .lock()
            .retain(|known| known.mm != mm as usize || known.addr != addr);
    }
}
