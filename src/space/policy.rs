// SPDX-License-Identifier: GPL-2.0

//! What an access comes to that is refused: why it is, and what the owner wants then.

use kernel::fmt;

use crate::sys::{
    bindings::{
        self,
        vm_fault_t, //
    },
    mm::NoPage,
};

/// Why an access is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing is mapped there.
    Hole,
    /// The layout does not allow the access.
    Denied,
    /// The lender may not access its own memory so.
    DeniedByLender,
    /// The file ends before that page; or the lender has no memory there.
    PastEnd,
    /// The memory is bad (hwpoison): what the fault is to return.
    BadMemory(vm_fault_t),
    /// The file cannot provide the page: it has no room for it, or its disk fails.
    Failed,
    /// There is no memory for it.
    NoMemory,
    /// The owner has poisoned the page.
    Poisoned,
    /// The wait for the owner took too long.
    TimedOut,
    /// A signal ended the wait, which cannot be gone on with by itself.
    Interrupted,
}

impl Refusal {
    /// What a page of a segment came to that could not be brought in; `ended` if the file did
    /// before that page, before or after. [`None`] where it is to be tried again.
    pub(crate) fn of(no_page: NoPage, ended: bool) -> Option<Self> {
        Some(match no_page {
            NoPage::Busy | NoPage::Interrupted => return None,
            NoPage::Fault(bindings::vm_fault_reason_VM_FAULT_SIGBUS) if ended => Refusal::PastEnd,
            NoPage::Fault(bindings::vm_fault_reason_VM_FAULT_SIGBUS) => Refusal::Failed,
            NoPage::Fault(bad) => Refusal::BadMemory(bad),
            NoPage::Gone => Refusal::PastEnd,
            NoPage::Denied => Refusal::DeniedByLender,
        })
    }

    /// What a fault returns for it where the access is to end.
    pub(crate) fn signal(self) -> vm_fault_t {
        match self {
            Refusal::Denied | Refusal::DeniedByLender => bindings::vm_fault_reason_VM_FAULT_SIGSEGV,
            Refusal::BadMemory(answer) => answer,
            // Not VM_FAULT_OOM, as in `sys/mm.rs`.
            _ => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// As fdinfo names it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Hole => "hole",
            Refusal::Denied | Refusal::DeniedByLender => "denied",
            Refusal::PastEnd => "past-end",
            Refusal::BadMemory(_) => "memory-error",
            Refusal::Failed => "io-error",
            Refusal::NoMemory => "no-memory",
            Refusal::Poisoned => "poisoned",
            Refusal::TimedOut => "timed-out",
            Refusal::Interrupted => "interrupted",
        })
    }
}

/// What becomes of accesses that meet a hole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnHole {
    /// The access ends in a signal or an error.
    Signal,
    /// It meets a page of the attachment's own.
    Absorb,
    /// It waits until something is mapped there.
    Wait {
        /// Also where the kernel makes it, which may hold locks then.
        kernel: bool,
    },
}

/// What becomes of accesses through a file, and through its attachments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) on_hole: OnHole,
    /// Whether that is so too where something is mapped and does not allow the access.
    pub(crate) denied: bool,
}

impl Policy {
    /// Without any flag.
    pub(crate) const SIGNAL: Policy = Policy {
        on_hole: OnHole::Signal,
        denied: false,
    };

    /// Whether a refused access meets a page of the attachment's own.
    pub(crate) fn absorbs(self, refusal: Refusal) -> bool {
        self.on_hole == OnHole::Absorb
            && match refusal {
                Refusal::Hole | Refusal::PastEnd => true,
                Refusal::Denied => self.denied,
                _ => false,
            }
    }

    /// Whether a refused access waits, if it is made by user space or by a virtual machine, or else
    /// in the kernel.
    pub(crate) fn waits(self, refusal: Refusal, in_kernel: bool) -> bool {
        match (self.on_hole, refusal) {
            (OnHole::Wait { kernel }, Refusal::Hole) => kernel || !in_kernel,
            (OnHole::Wait { kernel }, Refusal::Denied) => self.denied && (kernel || !in_kernel),
            _ => false,
        }
    }
}

/// As fdinfo shows it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.on_hole {
            OnHole::Signal => "signal",
            OnHole::Absorb => "absorb",
            OnHole::Wait { kernel: false } => "wait",
            OnHole::Wait { kernel: true } => "wait kernel",
        })?;
        if self.denied {
            f.write_str(" denied")?;
        }
        Ok(())
    }
}
