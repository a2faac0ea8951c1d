// SPDX-License-Identifier: GPL-2.0

//! Page faults of attachments that a virtual machine may show, and what KVM gets for an answer.
//!
//! Where KVM finds an entry for reading and the guest writes, it does not fault but takes the
//! write for one to a device. So in an attachment that may be a memory slot there must be no entry
//! for reading where there may be one for writing: a read fault asks for a writable entry first.
//! Any attachment of a process that has a VM may be a slot: nothing says which are.

use crate::{
    attachment::{
        fault::{
            Answer,
            Fault, //
        },
        vma::{
            FALLBACK,
            NOPAGE, //
        },
    },
    layout::Prot,
    space::{
        failures::Waited,
        policy::Refusal, //
    },
    sys::bindings,
};

impl Fault<'_> {
    /// Installs what an attachment wants that a VM may show.
    pub(super) fn install_for_vm(&mut self, install: impl Fn(&Self) -> Answer) -> Answer {
        if self.access == Prot::READ && self.vm_flags() & bindings::VM_WRITE != 0 {
            let shown = self.space().shown_at(self.page());
            let waited = |write| {
                shown.map(|(segment, page)| Waited {
                    segment,
                    page,
                    write,
                })
            };
            // Where reading has failed, writing had before.
            if let Some(refusal) = waited(false).and_then(|what| self.failed(what)) {
                return Answer::Refused(refusal);
            }
            self.access = Prot::WRITE;
            match install(self) {
                // The layout does not allow writing. By the time that reading is tried it may.
                Answer::Refused(Refusal::Denied) => {
                    self.access = Prot::READ;
                    self.denied = true;
                }
                // The file has no room for a page.
                Answer::Refused(Refusal::Failed | Refusal::NoMemory) | Answer::Now(FALLBACK) => {
                    self.access = Prot::READ
                }
                Answer::Refused(Refusal::DeniedByLender) => {
                    self.access = Prot::READ;
                    let answer = install(self);
                    // It can be read. That it may not be written is not for the next access to
                    // hear, before which the lender may allow it.
                    if let (Answer::Now(NOPAGE), Some(what)) = (&answer, waited(true)) {
                        let _ = self.space().failures.take(what);
                    }
                    return answer;
                }
                answer => return answer,
            }
        }
        install(self)
    }

    /// What KVM gets for an answer.
    ///
    /// KVM has a page faulted in, looks, and where it finds nothing takes that for a hole, though
    /// a revocation may only have been faster. It looks again only when the lock was released
    /// meanwhile; so it is, once.
    pub(super) fn for_kvm(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Now(NOPAGE)
                if !self.context.was_tried() && self.context.may_release() && self.is_by_kvm() =>
            {
                Answer::LookAgain
            }
            answer => answer,
        }
    }

    /// Whether KVM may have the page faulted in for a guest: no access has raised the fault.
    pub(super) fn is_by_kvm(&self) -> bool {
        self.context.attachment().has_secondary_mmu() && !self.context.is_by_access()
    }
}
