// SPDX-License-Identifier: GPL-2.0

//! Hiding locks from lockdep.
//!
//! C header: [`include/linux/lockdep.h`](srctree/include/linux/lockdep.h)

use crate::sys::safe_fns;

/// Runs `f` with lockdep off for the current task: for a nesting that lockdep reports and that
/// cannot go in circles. What `f` does should run elsewhere with lockdep on.
///
/// Zapping an attachment inside a notifier is such a nesting: the attached mm's notifiers are
/// called inside the arena's, and lockdep has one map for the notifiers of all mms. No attachment
/// can be mapped in an arena, and no notifier zaps that is called inside a zap
/// (`zapping_tasks.rs`), so it ends there. (virtio_mem does the same for a false positive of its
/// own.)
pub(crate) fn without_lockdep<R>(f: impl FnOnce() -> R) -> R {
    safe_fns::address_space_helper_lockdep_off();
    let result = f();
    safe_fns::address_space_helper_lockdep_on();
    result
}
