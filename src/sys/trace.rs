// SPDX-License-Identifier: GPL-2.0

//! Tracepoints; `events.h` says what each means.
//!
//! The kernel crate's `declare_trace!` knows only tracepoints of its own bindings, so the branch
//! on whether a tracepoint is enabled is in C. Each may be hit anywhere, with any values.

use core::ops::Range;

use crate::sys::{
    mapping::Mapping, //
    safe_fns,
};

/// Whether [`change`] is enabled: asked once for many.
pub(crate) fn change_is_enabled() -> bool {
    safe_fns::address_space_helper_trace_change_enabled()
}

/// The owner changed what `pages` of a space shows; `prot` is 0 for an unmap.
pub(crate) fn change(space: &Mapping, pages: &Range<u64>, prot: u32, revoked: bool) {
    let ino = space.ino();
    safe_fns::address_space_helper_trace_change(ino, pages.start, pages.end, prot, revoked);
}

/// A fault on a page of a space, in an attachment of the file with inode number `view`, was
/// answered with `ret`, a `vm_fault_t`.
pub(crate) fn fault(space: &Mapping, view: u64, page: u64, access: u32, ret: u32) {
    safe_fns::address_space_helper_trace_fault(space.ino(), view, page, access, ret);
}

/// Pages of a segment are being invalidated, here or, if `deferred`, by the worker.
pub(crate) fn invalidate(space: &Mapping, segment: u64, pages: &Range<u64>, deferred: bool) {
    safe_fns::address_space_helper_trace_invalidate(
        space.ino(),
        segment,
        pages.start,
        pages.end,
        deferred,
    );
}
