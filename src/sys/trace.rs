// SPDX-License-Identifier: GPL-2.0

//! Tracepoints as safe calls; `address_space_events.h` tells what each means.
//!
//! The kernel crate's `declare_trace!` knows only tracepoints of its own bindings, so
//! the branch on whether anyone listens is in C.

use core::ops::Range;

use crate::{
    layout::Prot,
    sys::{
        bindings,
        mapping::Mapping, //
    },
};

/// Whether anyone listens to [`change`]: asked once for many.
pub(crate) fn hears_changes() -> bool {
    // SAFETY: May be called from anywhere.
    unsafe { bindings::address_space_helper_trace_change_enabled() }
}

/// The owner changed what `pages` shows.
pub(crate) fn change(space: &Mapping, pages: &Range<u64>, prot: Prot, revoked: bool) {
    // SAFETY: May be called from anywhere, with any values; so may those below.
    unsafe {
        bindings::address_space_helper_trace_change(
            space.ino(),
            pages.start,
            pages.end,
            prot.bits(),
            revoked,
        )
    };
}

/// A fault was met with `ret`, a `vm_fault_t`.
pub(crate) fn fault(space: &Mapping, page: u64, access: Prot, ret: u32) {
    // SAFETY: As in `change`.
    unsafe { bindings::address_space_helper_trace_fault(space.ino(), page, access.bits(), ret) };
}

/// Pages of a segment are being revoked behind the owner's back.
pub(crate) fn invalidate(space: &Mapping, segment: u64, pages: Range<usize>, deferred: bool) {
    // SAFETY: As in `change`.
    unsafe {
        bindings::address_space_helper_trace_invalidate(
            space.ino(),
            segment,
            pages.start as u64,
            pages.end as u64,
            deferred,
        )
    };
}
