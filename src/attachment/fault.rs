// SPDX-License-Identifier: GPL-2.0

//! Page faults of attachments: what each comes to, and what the kernel gets for an answer. What a
//! refused access comes to is in `refuse.rs`.
//!
//! A fault comes with the attached process's mmap lock (or its VMA lock). It never waits for
//! anything slow with that held: where the arena must fault a page in, or its lock is held, or
//! something is being invalidated there, the fault releases its own lock, waits, and has the access
//! tried again. So there is no lock order between mms, and a slow file holds up only accesses to
//! it.
//!
//! Memory for page tables and for the frame table is allocated before the install lock is
//! acquired. (The former comes with the fault: `do_fault` has made one, if there is none.)
//!
//! Those of attachments that a VM may show are in `fault_for_vm.rs`.

use core::ops::ControlFlow;

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::ordering::*,
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::{
    attachment::{
        around::{
            self,
            Around, //
        },
        install::{
            self,
            PageTable, //
        },
        vma::{
            FaultContext,
            VmFault,
            FALLBACK,
            HUGE_SIZE,
            NOPAGE, //
        },
    },
    layout::{
        Prot,
        SegmentPage,
        SpacePage, //
    },
    segment::list::Pinned,
    space::{
        failures::{
            Awaited,
            Waited, //
        },
        policy::Refusal,
        readahead::MOST,
        resolve::{
            Caution,
            Miss, //
        },
        retry::{
            Obstacle,
            Reach,
            Retry, //
        },
        watch::Wait,
        Space, //
    },
    sys::{
        bindings,
        mm::{
            Locks,
            NoPage, //
        },
        trace, //
    },
};

const RETRY: VmFault = bindings::vm_fault_reason_VM_FAULT_RETRY;

/// `RETRY` after a wait. With the lock of the VMA alone the kernel does not count a try, unless it
/// has been told that this one took long; and how a wait has ended is for the next try to say.
const WAITED: VmFault = RETRY | bindings::vm_fault_reason_VM_FAULT_MAJOR;

/// How long a fault on a page that is being revoked waits before the access is tried again.
const BACK_OFF: Delta = Delta::from_micros(20);

/// Something is touched that has no entry.
pub(super) fn fault(context: FaultContext<'_>) -> VmFault {
    Fault::new(context).answer(Fault::install)
}

/// Something is touched where a huge page could be.
pub(super) fn huge_fault(context: FaultContext<'_>) -> VmFault {
    let mut fault = Fault::new(context);
    fault.huge = true;
    fault.answer(Fault::install_huge)
}

/// Something is written that has an entry for reading.
///
/// Not to have this would let the kernel make the entry writable in place, and read-only ranges
/// would protect nothing.
pub(super) fn write_fault(context: FaultContext<'_>) -> VmFault {
    let fault = Fault::new(context);
    let answer = match fault.install_writable() {
        Answer::Refused(refusal) => fault.refuse(refusal, true),
        answer => answer,
    };
    let ret = fault.finish(answer);
    // The caller knows nothing of `RETRY` alone, and would go on with the lock that was released.
    if ret & RETRY != 0 {
        ret | NOPAGE
    } else {
        ret
    }
}

/// What a fault comes to.
pub(super) enum Answer {
    /// This is returned.
    Now(VmFault),
    /// The page is being revoked: the access is tried again in a while.
    BackOff,
    /// The page is installed, and KVM is to look again; see [`Fault::for_kvm`].
    LookAgain,
    /// The access is tried again when the owner has changed something.
    WaitForChange(Wait),
    /// The access is refused: what that comes to is for `refuse.rs` to say.
    Refused(Refusal),
    /// The arena must fault the page in, which may take its time, or what is under way there must
    /// end before it can be looked at; the segment is not ended meanwhile.
    Wait(Waited, Pinned),
}

/// One page fault of an attachment.
pub(super) struct Fault<'a> {
    pub(super) context: FaultContext<'a>,
    /// What is wanted, which may be more than what was touched for.
    pub(super) access: Prot,
    /// Whether a huge page is wanted, or else nothing.
    huge: bool,
    /// Whether writing was asked for first, and the layout did not allow it.
    pub(super) denied: bool,
}

impl<'a> Fault<'a> {
    fn new(context: FaultContext<'a>) -> Self {
        context.space().counts.faults.fetch_add(1, Relaxed);
        let access = context.access();
        Fault {
            context,
            access,
            huge: false,
            denied: false,
        }
    }

    pub(super) fn space(&self) -> &'a Arc<Space> {
        self.context.space()
    }

    pub(super) fn page(&self) -> SpacePage {
        self.context.page()
    }

    fn write(&self) -> bool {
        self.access.contains(Prot::WRITE)
    }

    /// The VMA's flags.
    pub(super) fn vm_flags(&self) -> bindings::vm_flags_t {
        self.context.attachment().vma().flags()
    }

    /// Answers the fault with what `install` comes to.
    fn answer(mut self, install: impl Fn(&Self) -> Answer) -> VmFault {
        let for_vm = self.context.attachment().has_secondary_mmu();
        let mut answer = if for_vm {
            self.install_for_vm(install)
        } else {
            install(&self)
        };
        if let Answer::Refused(refusal) = answer {
            // Not as huge: the ordinary fault says what it comes to.
            answer = match self.huge {
                true => Answer::Now(FALLBACK),
                false => self.refuse(refusal, false),
            };
        }
        if for_vm {
            answer = self.for_kvm(answer);
        }
        self.finish(answer)
    }

    /// Does what is left to do for an answer, without the fault's lock where that may take time.
    fn finish(self, answer: Answer) -> VmFault {
        let (page, access) = (self.page().get(), self.access.bits());
        let ret = match answer {
            Answer::Now(ret) => ret,
            // It has been decided on.
            Answer::Refused(refusal) => refusal.signal(),
            Answer::BackOff if !self.context.may_release() => NOPAGE,
            Answer::BackOff | Answer::LookAgain => RETRY,
            Answer::WaitForChange(_) | Answer::Wait(..) => WAITED,
        };
        if ret != FALLBACK {
            let view = self.context.terms().id;
            trace::fault(&self.space().mapping, view, page, access, ret);
        }
        let tried = self.context.was_tried();
        match answer {
            // Not at once: the task that revokes may have to share the CPU with this one, and may
            // be less urgent.
            Answer::BackOff if ret == RETRY => {
                self.context.release_fault_lock(|_| fsleep(BACK_OFF))
            }
            Answer::LookAgain => self.context.release_fault_lock(|_| ()),
            Answer::WaitForChange(wait) => self
                .context
                .release_fault_lock(|space| space.wait_for_change(wait)),
            Answer::Wait(what, pinned) => self.context.release_fault_lock(|space| {
                let segment = pinned.segment();
                let ended = segment.ends_before(what.page);
                match space.provide(&pinned, what.page, what.write, tried) {
                    // A failure from before is no longer true.
                    Ok(()) => drop(space.failures.take(what)),
                    Err(no_page) => {
                        let ended = ended || segment.ends_before(what.page);
                        // Where there is none, a signal ends the retry too.
                        if let Some(refusal) = Refusal::of(no_page, ended) {
                            space.failures.put(what, refusal);
                        }
                    }
                }
                // Before the file is put, which may be the space's last.
                drop(pinned);
            }),
            Answer::Now(_) | Answer::Refused(_) | Answer::BackOff => (),
        }
        ret
    }

    /// Installs the page that is touched, and perhaps what is around.
    fn install(&self) -> Answer {
        let page = self.page();
        let Some(table) = PageTable::make(&self.context) else {
            // A huge page was installed meanwhile.
            return Answer::Now(NOPAGE);
        };
        let Around {
            pages,
            count,
            caution,
        } = Around::of(&self.context, self.access, self.denied);
        let first = pages.start..pages.end.min(pages.start + MOST as u64);
        let space = self.space();
        let wider = || Reach::new(page, &around::wider(&self.context));
        let mut retry = Retry::new(self.write(), Reach::new(page, &first));
        if count == 1 {
            retry = retry.wider(&wider);
        }
        let found = self.look(retry, |reach| {
            around::install_run(
                space,
                &table,
                page,
                &reach.around(page),
                self.access,
                caution,
            )
        });
        let mut installed = match found {
            Ok(installed) => installed.unwrap_or(0),
            Err(answer) => return answer,
        };
        if installed > 0 {
            let next = page + installed;
            // With readahead also where what comes next is not known yet. (What comes next may be
            // of another range, and so have to be alone.)
            if caution == Caution::None && (next == first.end || count > 1) {
                let rest = next..pages.end;
                installed += around::install_ahead(space, &table, &rest, self.access);
            }
            let next = page + installed;
            let whole = if next >= pages.end { count } else { 0 };
            space.readahead.note(next, installed.max(whole));
        }
        Answer::Now(NOPAGE)
    }

    /// Installs the page that is touched so that it may be written, where there is an entry for
    /// reading.
    fn install_writable(&self) -> Answer {
        let page = self.page();
        let found = self.look(Retry::new(self.write(), Reach::ALONE), |_| {
            self.space().with_frame(page, self.access, |_| ())
        });
        match found {
            Ok(Some(())) => (),
            Ok(None) => return Answer::Now(NOPAGE),
            Err(answer) => return answer,
        }
        // It may be written. To have the kernel upgrade the entry it saw would be wrong: that may
        // since have been zapped and made anew for reading, the arena's entry being clean again.
        let addr = self.context.address();
        match self.context.attachment().zap(addr, PAGE_SIZE) {
            true => self.install(),
            false => Answer::BackOff,
        }
    }

    /// Installs a huge page, if that is what the arena has, and it fits: then one entry stands
    /// for all of it, and KVM makes one of it too.
    fn install_huge(&self) -> Answer {
        const NO: Answer = Answer::Now(FALLBACK);
        let attachment = self.context.attachment();
        let addr = self.context.address() & !(HUGE_SIZE - 1);
        if addr < attachment.vma().start() || attachment.vma().end() - addr < HUGE_SIZE {
            return NO;
        }
        let touched = ((self.context.address() - addr) / PAGE_SIZE) as u64;
        let first = self.page() - touched;
        if self.write() && !install::is_empty(&self.context) && !attachment.zap(addr, HUGE_SIZE) {
            return Answer::BackOff;
        }
        let caution = around::caution(&self.context, self.access, self.denied);
        let attempt = |_| {
            let found = self
                .space()
                .with_huge_frame(first, self.access, caution, |frame| {
                    install::insert_huge(&self.context, &frame)
                });
            match found {
                Err(Miss::Unknown(pinned, page)) => {
                    // The page that is touched shows whether the arena has a huge one. What is
                    // known as a single page is none of a huge one.
                    let page = page + touched;
                    match pinned.segment().frames.get(page) {
                        Some(frame) if frame.allows(self.access) => Err(Miss::Denied),
                        _ => Err(Miss::Unknown(pinned, page)),
                    }
                }
                other => other,
            }
        };
        let policy = |obstacle: Obstacle<'_>| match obstacle {
            // Once there is a page table, there will be no huge page; so it is now that the arena
            // must have its own, or that a revocation must end.
            // Busy it is also where the notifier has to be waited for.
            Obstacle::Missing(pinned, page) | Obstacle::Busy(pinned, page)
                if self.context.may_release() =>
            {
                self.wait_for(pinned, page)
            }
            Obstacle::Invalidating if self.context.may_release() => {
                ControlFlow::Break(Answer::BackOff)
            }
            _ => ControlFlow::Break(NO),
        };
        let found = Retry::new(self.write(), Reach::ALONE)
            .without_mapping()
            .run(self.space(), attempt, policy);
        match found {
            Ok(Some(ret)) => Answer::Now(ret),
            Ok(None) => NO,
            Err(answer) => answer,
        }
    }

    /// Has `attempt` try until it finds the page that is touched. `Ok(None)`: the access is to be
    /// tried again.
    fn look<T>(
        &self,
        mut retry: Retry<'_>,
        attempt: impl FnMut(Reach) -> Result<T, Miss>,
    ) -> Result<Option<T>, Answer> {
        retry.run(self.space(), attempt, |obstacle| self.meet(obstacle))
    }

    /// What a fault does about an obstacle.
    fn meet(&self, obstacle: Obstacle<'_>) -> ControlFlow<Answer> {
        let answer = match obstacle {
            Obstacle::Hole => Answer::Refused(Refusal::Hole),
            Obstacle::Denied => Answer::Refused(Refusal::Denied),
            Obstacle::NoMemory => Answer::Refused(Refusal::NoMemory),
            Obstacle::Invalidating => Answer::BackOff,
            Obstacle::Busy(pinned, page) | Obstacle::Missing(pinned, page) => {
                return self.wait_for(pinned, page)
            }
        };
        ControlFlow::Break(answer)
    }

    /// Has the arena fault a page in. Goes on where that was done at once.
    fn wait_for(&self, pinned: &Pinned, page: SegmentPage) -> ControlFlow<Answer> {
        let segment = pinned.segment();
        let write = self.write();
        let what = Waited {
            segment: segment.id(),
            page,
            write,
        };
        let answer = if let Some(refusal) = self.failed(what) {
            Answer::Refused(refusal)
        } else if self.context.may_release() {
            Answer::Wait(what, pinned.clone())
        } else if self.context.may_retry() {
            Answer::Now(RETRY)
        } else {
            // With the fault's lock held, as a futex operation wants it.
            let ended = segment.ends_before(page);
            match self.space().fault_in(segment, page, write, Locks::Try) {
                Ok(()) => return ControlFlow::Continue(()),
                Err(NoPage::Busy) => {
                    fsleep(BACK_OFF);
                    return ControlFlow::Continue(());
                }
                Err(no_page) => {
                    let ended = ended || segment.ends_before(page);
                    // Interrupted is not to be tried again: the caller does not look for signals.
                    Answer::Refused(Refusal::of(no_page, ended).unwrap_or(Refusal::Failed))
                }
            }
        };
        ControlFlow::Break(answer)
    }

    /// How the wait of this fault's previous try ended, if in an error: that could not be returned
    /// then, with the lock released.
    ///
    /// KVM does not get an error either when the lock was released in any try, but begins anew. So
    /// it gets it at the beginning of its next fault; unless what it wants is absorbed, now. A huge
    /// fault leaves it to the ordinary one that follows.
    pub(super) fn failed(&self, what: impl Into<Awaited>) -> Option<Refusal> {
        let tried = self.context.was_tried();
        let failures = &self.space().failures;
        if !self.is_by_kvm() && !tried {
            return None;
        }
        if self.huge || self.is_by_kvm() && tried && self.context.attachment().sink().is_none() {
            failures.peek(what)
        } else {
            failures.take(what)
        }
    }
}
