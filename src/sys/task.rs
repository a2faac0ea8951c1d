// SPDX-License-Identifier: GPL-2.0

//! What the current task works as, changed for a while: its mm, its credentials, and the memory
//! cgroup that it charges. Each function restores what it found.
//!
//! C headers: [`include/linux/kthread.h`](srctree/include/linux/kthread.h),
//! [`include/linux/cred.h`](srctree/include/linux/cred.h),
//! [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h)

use kernel::{
    cred::Credential,
    mm::MmWithUser,
    sync::aref::ARef,
    task::Task, //
};

use crate::sys::{
    bindings,
    safe_fns, //
};

/// The current task's credentials.
pub(crate) fn current_cred() -> ARef<Credential> {
    // SAFETY: A task's own credentials change only when it changes them itself, so they are valid
    // for as long as it takes to get a reference.
    unsafe { Credential::from_ptr((*Task::current_raw()).cred) }.into()
}

/// The current task's number, as its own PID namespace numbers it.
pub(crate) fn current_tid() -> u32 {
    safe_fns::address_space_helper_current_tid() as u32
}

/// Whether the current task may trace any other, and so stop it wherever it is.
pub(crate) fn may_trace_any() -> bool {
    safe_fns::capable(bindings::CAP_SYS_PTRACE as i32)
}

/// Runs `f` with `mm` as the current mm of a kernel thread, which has none of its own.
pub(crate) fn with_mm<R>(mm: &MmWithUser, f: impl FnOnce() -> R) -> R {
    // SAFETY: `mm` has users as long as it is borrowed. The switch is undone on the same task:
    // panics do not unwind.
    unsafe {
        bindings::kthread_use_mm(mm.as_raw());
        let result = f();
        bindings::kthread_unuse_mm(mm.as_raw());
        result
    }
}

/// Runs `f` with the credentials `cred`.
pub(crate) fn with_cred<R>(cred: &Credential, f: impl FnOnce() -> R) -> R {
    // SAFETY: `cred` outlives the override, which is reverted on the same task: panics do not
    // unwind.
    unsafe {
        let old = bindings::address_space_helper_override_creds(cred.as_ptr());
        let result = f();
        bindings::address_space_helper_revert_creds(old);
        result
    }
}

/// A memory cgroup, or none where the kernel has no such thing.
///
/// # Invariants
///
/// The pointer is null or owns a reference.
pub(crate) struct MemCgroup(*mut bindings::mem_cgroup);

impl MemCgroup {
    /// The memory cgroup of the mm's owner; of the current task for no mm.
    pub(crate) fn of(mm: Option<&MmWithUser>) -> Self {
        // INVARIANT: The function returns a reference, or null where memory cgroups are off.
        MemCgroup(safe_fns::address_space_helper_mm_memcg(mm))
    }

    /// The C object, which is valid as long as this is not dropped.
    #[cfg(not(EXPORTED_MM_ALLOC))]
    pub(crate) fn as_raw(&self) -> *mut bindings::mem_cgroup {
        self.0
    }

    /// Runs `f` with this as the memory cgroup that the current task charges: for page cache that
    /// a fault brings in, and for all memory that is allocated with `GFP_KERNEL_ACCOUNT`.
    pub(crate) fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: The memory cgroup is held until the old one, which was active and so is held by
        // somebody all the time, is restored on the same task: panics do not unwind.
        unsafe {
            let old = bindings::address_space_helper_set_active_memcg(self.0);
            let result = f();
            bindings::address_space_helper_set_active_memcg(old);
            result
        }
    }
}

impl Drop for MemCgroup {
    fn drop(&mut self) {
        // SAFETY: Puts the reference that the type owns; null is allowed.
        unsafe { bindings::address_space_helper_mem_cgroup_put(self.0) };
    }
}
