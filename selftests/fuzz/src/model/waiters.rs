// SPDX-License-Identifier: GPL-2.0

//! Those that wait at holes: a copy of a process, or the guest, each with one access.

use super::events::{OFTEN, ONCE};
use super::holes::{By, Comes, Through};
use super::{Model, Verdict, compare};
use crate::op::*;

#[derive(Clone, Debug)]
pub struct Waiter {
    pub(super) to: Through,
    cell: u64,
    access: Access,
    by: By,
    /// Whether it must be told of.
    owed: bool,
    /// Whether it may be, however often: it has looked again, and waits again.
    pub(super) may_be_told_again: bool,
    /// A signal ends the wait of a guest.
    interrupted: bool,
}

impl Model {
    /// Whether an access of a process would wait, and whether its result is determined then
    /// whatever it meets in the end.
    pub(super) fn can_wait(&self, waiter: usize, process: usize, touch: &Touch) -> bool {
        let attached = self.processes[process]
            .as_ref()
            .and_then(|process| *process.pages.get(touch.page as usize)?);
        self.waiters[waiter].is_none()
            && attached.is_some_and(|attached| {
                let wants = touch.access.wants();
                attached.prot & wants != 0 && self.may_wait(&attached.to, touch.cell, touch.access)
            })
    }

    pub(super) fn guest_can_wait(&self, touch: &GuestTouch) -> bool {
        self.waiters[GUEST].is_none()
            && self.slot(touch.slot).is_some_and(|slot| {
                touch.page < slot.at.count
                    // KVM may take what is denied for a device's.
                    && (touch.store.is_none() || !slot.readonly && !slot.to.policy.denied)
                    && self.may_wait(&slot.through(touch.page), touch.cell, access_of(touch))
            })
    }

    fn may_wait(&self, to: &Through, cell: u64, access: Access) -> bool {
        let store = access.stored().is_some();
        let by = access.by();
        by != By::Debugger
            // Whose fdinfo tells of it.
            && self.asfds.iter().flatten().any(|it| it.space == to.space)
            && self.comes(to, cell, access.wants(), by) == Comes::Waits
            // One at a time, to the part of a page that any file has that has the page.
            && (!store
                || cell == 0
                    && self.files.iter().flatten().all(|it| it.kind != Kind::HugeTmpfs)
                    && self.waiters.iter().flatten().all(|it| it.access.stored().is_none()))
    }

    pub(super) fn wait(&mut self, waiter: usize, process: usize, touch: &Touch) {
        let attached = self.processes[process].as_ref();
        if let Some(attached) = attached.and_then(|it| it.pages[touch.page as usize]) {
            let by = touch.access.by();
            self.begin_wait(waiter, attached.to, touch.cell, touch.access, by);
        }
    }

    pub(super) fn guest_wait(&mut self, touch: &GuestTouch) {
        if let Some(slot) = self.slot(touch.slot) {
            let to = slot.through(touch.page);
            self.begin_wait(GUEST, to, touch.cell, access_of(touch), By::Guest);
        }
    }

    fn begin_wait(&mut self, waiter: usize, to: Through, cell: u64, access: Access, by: By) {
        self.waiters[waiter] = Some(Waiter {
            to,
            cell,
            access,
            by,
            owed: self.watch_of(to.space).is_some(),
            may_be_told_again: false,
            interrupted: false,
        });
    }

    pub(super) fn interrupt(&mut self, waiter: usize) {
        if let Some(waiter) = &mut self.waiters[waiter] {
            // It may not have handled the signal yet, and be told of between its waits.
            waiter.owed = false;
            waiter.may_be_told_again = true;
            waiter.interrupted = waiter.by == By::Guest;
        }
    }

    fn comes_of(&self, waiter: &Waiter) -> Comes {
        let comes = self.comes(&waiter.to, waiter.cell, waiter.access.wants(), waiter.by);
        match comes {
            Comes::Waits if waiter.interrupted => Comes::Refused(EventKind::Interrupted),
            comes => comes,
        }
    }

    pub fn somebody_waits(&self) -> bool {
        self.waiters.iter().any(Option::is_some)
    }

    /// Those that wait no longer.
    pub fn ended_waiters(&self) -> Vec<usize> {
        let ended = |at: &usize| {
            let waiter = self.waiters[*at].as_ref();
            waiter.is_some_and(|waiter| self.comes_of(waiter) != Comes::Waits)
        };
        (0..self.waiters.len()).filter(ended).collect()
    }

    /// How many wait in each space that has an asfd.
    pub fn waiting(&self) -> Vec<(usize, u64)> {
        let spaces = (0..SPACES).filter_map(|space| Some((space, self.asfds[space]?.space)));
        spaces
            .map(|(asfd, space)| {
                let here = |waiter: &&Waiter| waiter.to.space == space;
                (
                    asfd,
                    self.waiters.iter().flatten().filter(here).count() as u64,
                )
            })
            .collect()
    }

    /// Judges what came of the accesses of those that wait no longer.
    pub fn judge_waiters(&mut self, ended: &[(usize, Touched)]) -> Verdict {
        let mut waiters = Vec::new();
        for (at, seen) in ended {
            let waiter = self.waiters[*at].take().ok_or("nobody waits")?;
            let comes = self.comes_of(&waiter);
            waiters.push((*at, waiter, comes, *seen));
        }
        // The one that stores may come before or after any of the others.
        waiters.sort_by_key(|(_, waiter, _, _)| waiter.access.stored().is_some());
        let stores: Vec<_> = waiters
            .iter()
            .filter_map(|(_, waiter, comes, _)| Some((*comes, waiter.access.stored()?)))
            .collect();
        for (at, waiter, comes, seen) in waiters {
            let mut wanted = match comes {
                Comes::Refused(why) => {
                    self.tell(
                        &waiter.to,
                        waiter.access.wants(),
                        why,
                        if waiter.by == By::User { ONCE } else { OFTEN },
                    );
                    vec![refused(waiter.by, why)]
                }
                comes => {
                    let (to, access) = (waiter.to, waiter.access);
                    self.made(&to, waiter.cell, access.wants(), access.stored(), comes)
                }
            };
            if waiter.access.stored().is_none() {
                let same = stores.iter().filter(|(cell, _)| *cell == comes);
                wanted.extend(same.map(|(_, value)| Touched::Value(*value)));
            }
            // KVM may take a write to what is read-only for one to a device.
            if wanted == [Touched::Fault]
                && waiter.by == By::Guest
                && waiter.access.wants() == WRITE
            {
                wanted = vec![Touched::NoWrite];
            }
            let to = &waiter.to;
            if self.is_unclear(to.space, to.page, waiter.cell, false) {
                continue;
            }
            compare("waiter", at, seen, &wanted).map_err(|why| format!("{waiter:?}: {why}"))?;
        }
        Ok(())
    }

    /// Compares the events of those that wait in a space.
    pub(super) fn waits_told(&mut self, space: usize, told: &[&Told]) -> Verdict {
        let mut here: Vec<_> = self
            .waiters
            .iter_mut()
            .flatten()
            .filter(|waiter| waiter.to.space == space)
            .collect();
        for event in told {
            let is = |waiter: &Waiter| waiter.event() == **event;
            // First those that must be told of.
            let owed = here.iter().position(|it| is(it) && it.owed);
            let again = || here.iter().position(|it| is(it) && it.may_be_told_again);
            let found = owed.or_else(again);
            match found {
                Some(at) => here[at].owed = false,
                None => return Err(format!("{event:?} is told, and none such waits")),
            }
        }
        match here.iter().find(|waiter| waiter.owed) {
            Some(waiter) => Err(format!("{waiter:?} is not told of")),
            None => Ok(()),
        }
    }
}

impl Waiter {
    fn event(&self) -> Told {
        Told::Of {
            kind: EventKind::Wait,
            page: self.to.page,
            access: self.access.wants(),
            through: self.to.id,
        }
    }
}

/// The access of a guest.
pub(super) fn access_of(touch: &GuestTouch) -> Access {
    touch.store.map_or(Access::Load, Access::Store)
}

/// The result of an access that is refused.
pub(super) fn refused(by: By, why: EventKind) -> Touched {
    match (by, why) {
        (By::User, EventKind::Denied) => Touched::Segv,
        (By::User, _) => Touched::Bus,
        _ => Touched::Fault,
    }
}
