// SPDX-License-Identifier: GPL-2.0

//! What a refused access comes to: the attachment's policy decides whether it is absorbed, waits
//! for the owner to change something, or ends in a signal. Whoever watches the space is told.
//!
//! Locks: under the fault's own; a sink's entry is made under the install lock.

use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    attachment::{
        fault::{
            Answer,
            Fault, //
        },
        install::PageTable,
        vma::NOPAGE, //
    },
    space::{
        events::{
            Event,
            What, //
        },
        failures::Awaited,
        policy::Refusal,
        watch::Wait, //
    },
    sys::task::current_tid,
};

impl Fault<'_> {
    /// What a refused access comes to: this decides it for all of them. There is an entry for
    /// reading if `installed`.
    pub(super) fn refuse(&self, refusal: Refusal, installed: bool) -> Answer {
        let context = &self.context;
        if context.is_speculative() {
            // Nothing was touched.
            return Answer::Now(refusal.signal());
        }
        let refusal = match context.attachment().sink() {
            Some(sink) if context.terms().policy.absorbs(refusal) => match sink.pfn() {
                Ok(pfn) => return self.absorb(refusal, pfn, installed),
                Err(error) if error == EAGAIN => return Answer::BackOff,
                Err(_) => Refusal::NoMemory,
            },
            _ => match self.wait_for_change(refusal) {
                Ok(wait) => return Answer::WaitForChange(wait),
                Err(refusal) => refusal,
            },
        };
        // KVM comes back for what it got after the lock was released; see `failed`.
        if !(self.is_by_kvm() && context.was_tried()) {
            self.note(refusal);
        }
        Answer::Now(refusal.signal())
    }

    /// Installs the sink `pfn` in place of what is refused.
    fn absorb(&self, refusal: Refusal, pfn: usize, installed: bool) -> Answer {
        let context = &self.context;
        let Some(table) = PageTable::make(context) else {
            // A huge page was installed meanwhile.
            return Answer::Now(NOPAGE);
        };
        if installed && !context.attachment().zap(context.address(), PAGE_SIZE) {
            return Answer::BackOff;
        }
        let (space, page) = (self.space(), self.page());
        match space.with_sink(page, self.access, refusal, pfn, |frame| {
            table.insert_one(page, &frame)
        }) {
            Ok(Some(())) => self.note(refusal),
            Ok(None) => (),
            // Or there is no room for it.
            Err(_) => return Answer::BackOff,
        }
        Answer::Now(NOPAGE)
    }

    /// How a refused access waits for the owner to change something; an error says why it does not.
    fn wait_for_change(&self, refusal: Refusal) -> Result<Wait, Refusal> {
        let (context, watch) = (&self.context, &self.space().watch);
        let by_kvm = self.is_by_kvm();
        let in_kernel = !context.is_by_user() && !by_kvm;
        if !context.may_release() || !context.terms().policy.waits(refusal, in_kernel) {
            return Err(refusal);
        }
        if let Some(refusal) = self.failed(Awaited::Change(self.page())) {
            return Err(refusal);
        }
        match watch.refusal(self.page()) {
            // Nobody watches.
            Some(Refusal::Hole) => return Err(refusal),
            Some(other) => return Err(other),
            None => (),
        }
        // KVM_RUN is to return for it.
        if by_kvm && current!().signal_pending() {
            return Err(Refusal::Interrupted);
        }
        let event = self.event(What::Waits);
        Wait::new(watch, event, refusal, in_kernel).map_err(|_| Refusal::NoMemory)
    }

    /// What there is to tell about the access.
    fn event(&self, what: What) -> Event {
        Event {
            what,
            page: self.page(),
            access: self.context.access(),
            tid: current_tid(),
            view: self.context.terms().id,
            share_of: self.context.terms().share_of,
        }
    }

    /// Notes that an access was refused.
    fn note(&self, refusal: Refusal) {
        let (page, access) = (self.page(), self.context.access());
        self.context.terms().refusals.note(page, access, refusal);
        self.space().refusals.note(page, access, refusal);
        self.space().watch.tell(self.event(What::Refused(refusal)));
    }
}
