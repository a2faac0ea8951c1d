// SPDX-License-Identifier: GPL-2.0

//! A reader-writer spinlock around the value it guards.
//!
//! Whoever holds it is not preempted, and whoever waits takes its turn: so a task of low priority
//! that takes it keeps nobody waiting longer than it takes to do what it does under it.
//!
//! C header: [`include/linux/rwlock.h`](srctree/include/linux/rwlock.h)

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
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

/// A value behind a `rwlock_t`.
///
/// # Invariants
///
/// `lock` is initialised, and `value` is reached through guards only: shared while the lock is
/// held for reading, exclusively while it is held for writing.
#[pin_data]
pub(crate) struct RwLock<T> {
    #[pin]
    lock: Opaque<bindings::rwlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: The value moves between threads only under the lock.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: Readers share the value, so it must be `Sync`; a writer has it alone.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

/// Proof that a lock is held, by this task, in either mode.
///
/// For functions that rely on a lock without using what it guards: they take a reference to
/// the guard. Which lock it must be is documented with each.
pub(crate) trait Held {}

/// How a guard holds the lock.
pub(crate) trait Mode {
    /// For writing; else for reading.
    const WRITE: bool;
}

/// Held for reading.
pub(crate) enum Read {}
impl Mode for Read {
    const WRITE: bool = false;
}

/// Held for writing.
pub(crate) enum Write {}
impl Mode for Write {
    const WRITE: bool = true;
}

/// The lock, held until the guard is dropped.
///
/// # Invariants
///
/// The current task holds the lock in mode `M`.
pub(crate) struct Guard<'a, T, M: Mode> {
    lock: &'a RwLock<T>,
    _mode: PhantomData<M>,
    _not_send: NotThreadSafe,
}

/// The lock held for reading.
pub(crate) type ReadGuard<'a, T> = Guard<'a, T, Read>;
/// The lock held for writing.
pub(crate) type WriteGuard<'a, T> = Guard<'a, T, Write>;

impl<T, M: Mode> Held for Guard<'_, T, M> {}

impl<T> RwLock<T> {
    /// Makes the lock around `value`.
    pub(crate) fn new(value: T) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned, which is what rwlock_init() needs.
            lock <- Opaque::ffi_init(|slot| unsafe {
                bindings::address_space_helper_init_rwlock(slot)
            }),
            value: UnsafeCell::new(value),
        })
    }

    fn acquire<M: Mode>(&self) -> Guard<'_, T, M> {
        // SAFETY: The lock is initialised by the type's invariant.
        unsafe {
            match M::WRITE {
                true => bindings::address_space_helper_write_lock(self.lock.get()),
                false => bindings::address_space_helper_read_lock(self.lock.get()),
            }
        };
        // INVARIANT: Just acquired.
        self.guard()
    }

    fn guard<M: Mode>(&self) -> Guard<'_, T, M> {
        Guard {
            lock: self,
            _mode: PhantomData,
            _not_send: NotThreadSafe,
        }
    }

    /// Acquires the lock for reading.
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        self.acquire()
    }

    /// Acquires the lock for writing.
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        self.acquire()
    }
}

impl<T, M: Mode> Deref for Guard<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The lock is held by the type's invariant, so nothing else has the value
        // exclusively; a write guard lends it exclusively only while it is borrowed so itself.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The lock is held for writing by the type's invariant, and `self` is
        // borrowed exclusively, so this is the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, M: Mode> Drop for Guard<'_, T, M> {
    fn drop(&mut self) {
        // SAFETY: The current task holds the lock in this mode by the type's invariant.
        unsafe {
            match M::WRITE {
                true => bindings::address_space_helper_write_unlock(self.lock.lock.get()),
                false => bindings::address_space_helper_read_unlock(self.lock.lock.get()),
            }
        };
    }
}
