// SPDX-License-Identifier: GPL-2.0

//! The install lock: what stands between a check and the entry made upon it.
//!
//! Whoever puts a frame where a process or a VM can reach it holds the lock
//! shared from the check (layout, frame table, notifier) to the insertion.
//! Whoever takes something away holds it exclusively for as long as it takes to
//! say so, and zaps after letting go: who checked before has inserted already
//! and is zapped, who comes later sees the change.
//!
//! **No allocation while it is held, in either mode.** Reclaim calls our
//! notifier, and the notifier wants the lock exclusively.

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
};

use kernel::{
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

use crate::sys::bindings;

/// A reader-writer semaphore around the value it guards.
///
/// # Invariants
///
/// `sem` is initialised, and `value` is only reached through a guard: shared
/// while the semaphore is held for reading, exclusively while it is held for
/// writing.
#[pin_data]
pub(crate) struct InstallLock<T> {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
    value: UnsafeCell<T>,
}

// SAFETY: The value moves between threads only under the semaphore.
unsafe impl<T: Send> Send for InstallLock<T> {}
// SAFETY: Readers share the value, so it must be `Sync`; a writer has it alone.
unsafe impl<T: Send + Sync> Sync for InstallLock<T> {}

impl<T> InstallLock<T> {
    /// Makes the lock around `value`.
    pub(crate) fn new(value: T) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned: what init_rwsem needs.
            sem <- Opaque::ffi_init(|slot| unsafe {
                bindings::address_space_helper_init_rwsem(slot)
            }),
            value: UnsafeCell::new(value),
        })
    }

    /// Takes the lock shared. May sleep.
    pub(crate) fn read(&self) -> Shared<'_, T> {
        // SAFETY: The semaphore is initialised by the type's invariant.
        unsafe { bindings::down_read(self.sem.get()) };
        Shared {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Takes the lock exclusively. May sleep.
    pub(crate) fn write(&self) -> Exclusive<'_, T> {
        // SAFETY: The semaphore is initialised by the type's invariant.
        unsafe { bindings::down_write(self.sem.get()) };
        Exclusive {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Takes the lock exclusively if that needs no sleep.
    pub(crate) fn try_write(&self) -> Option<Exclusive<'_, T>> {
        // SAFETY: The semaphore is initialised by the type's invariant.
        if unsafe { bindings::down_write_trylock(self.sem.get()) } == 0 {
            return None;
        }
        Some(Exclusive {
            lock: self,
            _not_send: NotThreadSafe,
        })
    }
}

/// The install lock held shared.
pub(crate) struct Shared<'a, T> {
    lock: &'a InstallLock<T>,
    _not_send: NotThreadSafe,
}

impl<T> Deref for Shared<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The semaphore is held for reading while `self` lives, so no
        // exclusive reference to the value exists.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for Shared<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `self` stands for one hold for reading, by this task.
        unsafe { bindings::up_read(self.lock.sem.get()) };
    }
}

/// The install lock held exclusively.
pub(crate) struct Exclusive<'a, T> {
    lock: &'a InstallLock<T>,
    _not_send: NotThreadSafe,
}

impl<T> Deref for Exclusive<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The semaphore is held for writing while `self` lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Exclusive<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The semaphore is held for writing while `self` lives, and
        // `self` is borrowed exclusively, so this is the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Exclusive<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `self` stands for the hold for writing, by this task.
        unsafe { bindings::up_write(self.lock.sem.get()) };
    }
}
