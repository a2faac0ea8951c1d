// SPDX-License-Identifier: GPL-2.0

//! A reader-writer semaphore around the value it guards.
//!
//! C header: [`include/linux/rwsem.h`](srctree/include/linux/rwsem.h)

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

/// A value behind a `struct rw_semaphore`.
///
/// # Invariants
///
/// `sem` is initialised, and `value` is reached through guards only: shared while the semaphore
/// is held for reading, exclusively while it is held for writing.
#[pin_data]
pub(crate) struct RwSem<T> {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
    value: UnsafeCell<T>,
}

// SAFETY: The value moves between threads only under the semaphore.
unsafe impl<T: Send> Send for RwSem<T> {}
// SAFETY: Readers share the value, so it must be `Sync`; a writer has it alone.
unsafe impl<T: Send + Sync> Sync for RwSem<T> {}

/// Proof that a semaphore is held, by this task, in either mode.
///
/// For functions that rely on a lock without using what it guards: they take a reference to
/// the guard. Which lock it must be is documented with each.
pub(crate) trait Held {}

/// How a guard holds the semaphore.
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

/// The semaphore, held until the guard is dropped.
///
/// # Invariants
///
/// The current task holds the semaphore in mode `M`.
pub(crate) struct Guard<'a, T, M: Mode> {
    lock: &'a RwSem<T>,
    _mode: PhantomData<M>,
    _not_send: NotThreadSafe,
}

/// The semaphore held for reading.
pub(crate) type ReadGuard<'a, T> = Guard<'a, T, Read>;
/// The semaphore held for writing.
pub(crate) type WriteGuard<'a, T> = Guard<'a, T, Write>;

impl<T, M: Mode> Held for Guard<'_, T, M> {}

impl<T> RwSem<T> {
    /// Makes the semaphore around `value`.
    pub(crate) fn new(value: T) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned, which is what init_rwsem() needs.
            sem <- Opaque::ffi_init(|slot| unsafe {
                bindings::address_space_helper_init_rwsem(slot)
            }),
            value: UnsafeCell::new(value),
        })
    }

    fn lock<M: Mode>(&self) -> Guard<'_, T, M> {
        // SAFETY: The semaphore is initialised by the type's invariant.
        unsafe {
            match M::WRITE {
                true => bindings::down_write(self.sem.get()),
                false => bindings::down_read(self.sem.get()),
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

    /// Acquires the semaphore for reading. May sleep.
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        self.lock()
    }

    /// Acquires the semaphore for writing. May sleep.
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        self.lock()
    }

    /// Acquires the semaphore for writing if that needs no sleep.
    pub(crate) fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        // SAFETY: The semaphore is initialised by the type's invariant.
        let acquired = unsafe { bindings::down_write_trylock(self.sem.get()) } != 0;
        // INVARIANT: Acquired, if there is a guard at all.
        acquired.then(|| self.guard())
    }
}

impl<T, M: Mode> Deref for Guard<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The semaphore is held by the type's invariant, so nothing else has the value
        // exclusively; a write guard lends it exclusively only while it is borrowed so itself.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The semaphore is held for writing by the type's invariant, and `self` is
        // borrowed exclusively, so this is the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, M: Mode> Drop for Guard<'_, T, M> {
    fn drop(&mut self) {
        // SAFETY: The current task holds the semaphore in this mode by the type's invariant.
        unsafe {
            match M::WRITE {
                true => bindings::up_write(self.lock.sem.get()),
                false => bindings::up_read(self.lock.sem.get()),
            }
        };
    }
}
