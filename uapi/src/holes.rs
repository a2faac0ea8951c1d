// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What becomes of accesses to what an address space does not have.

use crate::sys;

bitflags::bitflags! {
    /// What becomes of an access to a hole, or beyond the end of a file: the policy of
    /// an address space or of a view, which its attachments keep.
    ///
    /// One of [`SIGNAL`](Holes::SIGNAL), [`ABSORB`](Holes::ABSORB) and
    /// [`WAIT`](Holes::WAIT), the latter two with others. Empty is the policy of the
    /// address space that a view is made of, and [`SIGNAL`](Holes::SIGNAL) for an
    /// address space.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Holes: u32 {
        /// The access raises SIGBUS; in a guest it ends `KVM_RUN` with EFAULT.
        const SIGNAL = sys::ADDRESS_SPACE_HOLE_SIGNAL;
        /// The access meets a page of the attachment's own, zeroed, until something is
        /// mapped there: reads return zeroes, or what was written to any hole before.
        const ABSORB = sys::ADDRESS_SPACE_HOLE_ABSORB;
        /// The task waits until something is mapped there, as long as there are
        /// [`Events`](crate::Events) that watch the range.
        const WAIT = sys::ADDRESS_SPACE_HOLE_WAIT;
        /// With [`ABSORB`](Holes::ABSORB) or [`WAIT`](Holes::WAIT): so too where
        /// something is mapped with a protection that does not allow the access.
        const DENIED = sys::ADDRESS_SPACE_HOLE_DENIED;
        /// With [`WAIT`](Holes::WAIT): accesses in system calls wait, too. Needs
        /// CAP_SYS_PTRACE.
        const KERNEL = sys::ADDRESS_SPACE_HOLE_KERNEL;
    }
}
