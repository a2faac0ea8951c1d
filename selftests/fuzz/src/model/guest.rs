// SPDX-License-Identifier: GPL-2.0

//! The guest: its memory slots, and the results of touching them.

use libc::{EACCES, EEXIST, EINVAL, ENOENT, EPERM};

use super::events::{OFTEN, ONCE, PERHAPS};
use super::holes::{By, Comes, Policy, Through};
use super::memory::Reach;
use super::waiters::access_of;
use super::{Model, Slot, Verdict, compare, expect, is_hot, results};
use crate::op::*;

impl Slot {
    pub(super) fn through(&self, page: u64) -> Through {
        Through {
            page: self.to.page + page,
            ..self.to
        }
    }
}

impl Model {
    pub(super) fn slot(&self, slot: usize) -> Option<Slot> {
        self.guest.as_ref()?.slots[slot]
    }

    pub(super) fn plug(
        &mut self,
        source: Source,
        slot: usize,
        at: Span,
        readonly: bool,
        holes: u32,
        seen: &Seen,
    ) -> Verdict {
        let Some(view) = self.source(source) else {
            return Err("nothing to plug".into());
        };
        let there = self.slot(slot);
        let policy = Policy::of(holes, view.policy);
        let of_view = matches!(source, Source::View(_));
        let wanted = if let Err(errno) = policy {
            Err(errno)
        } else if at.end() > view.at.count {
            Err(EINVAL)
        } else if of_view && policy != Ok(view.policy) {
            Err(EPERM)
        } else if there.is_some_and(|there| there.to.space == view.space) {
            Err(EEXIST)
        } else if !readonly && view.prot & WRITE == 0 {
            Err(EACCES)
        } else if there.is_some() {
            // KVM does not change the memory of a slot.
            Err(EINVAL)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        if let (Ok(()), Ok(policy)) = (wanted, policy) {
            let sink = self.new_sink(policy);
            let to = view.through(at.start, sink);
            if let Some(guest) = &mut self.guest {
                guest.slots[slot] = Some(Slot {
                    to: Through { policy, ..to },
                    at: view.pages(at),
                    readonly,
                });
            }
        }
        Ok(())
    }

    pub(super) fn unplug(&mut self, source: Source, slot: usize, seen: &Seen) -> Verdict {
        let space = self.source(source).map(|view| view.space);
        let known = self.slot(slot).is_some_and(|it| Some(it.to.space) == space);
        expect(seen, if known { Ok(()) } else { Err(ENOENT) })?;
        if let (true, Some(guest)) = (known, &mut self.guest) {
            guest.slots[slot] = None;
        }
        Ok(())
    }

    /// The accesses whose result is determined, without anything else happening.
    fn meaningful_in_slots(&self, touches: &[GuestTouch], by: By) -> Vec<GuestTouch> {
        let mut timeouts = 1;
        touches
            .iter()
            .filter(|touch| {
                self.slot(touch.slot).is_some_and(|slot| {
                    if touch.page >= slot.at.count {
                        return false;
                    }
                    let (to, access) = (slot.through(touch.page), access_of(touch));
                    let store = touch.store.is_some();
                    !self.is_unclear(to.space, to.page, touch.cell, store)
                        && (store && slot.readonly
                            || self.has_result(&to, touch.cell, access, by, &mut timeouts))
                })
            })
            .copied()
            .collect()
    }

    pub fn meaningful_in_guest(&self, touches: &[GuestTouch]) -> Vec<GuestTouch> {
        self.meaningful_in_slots(touches, By::Guest)
    }

    pub fn meaningful_in_vmm(&self, touches: &[GuestTouch]) -> Vec<GuestTouch> {
        self.meaningful_in_slots(touches, By::User)
    }

    /// Reads of all pages near the boundaries of huge pages.
    pub fn guest_sweep(&self) -> Vec<GuestTouch> {
        let slots = (0..SLOTS).filter_map(|slot| Some((slot, self.slot(slot)?)));
        let touches: Vec<_> = slots
            .flat_map(|(slot, it)| {
                let hot = (0..it.at.count).filter(move |page| is_hot(it.at.start + page));
                hot.map(move |page| GuestTouch {
                    slot,
                    page,
                    cell: page % CELLS,
                    store: None,
                })
            })
            .collect();
        self.meaningful_in_guest(&touches)
    }

    pub(super) fn guest_touch(&mut self, touches: &[GuestTouch], seen: &Seen) -> Verdict {
        let touches = self.meaningful_in_guest(touches);
        self.touch_slots("the guest", &touches, By::Guest, seen)
    }

    pub(super) fn vmm_touch(&mut self, touches: &[GuestTouch], seen: &Seen) -> Verdict {
        let touches = self.meaningful_in_vmm(touches);
        self.touch_slots("the VMM", &touches, By::User, seen)
    }

    fn touch_slots(&mut self, name: &str, touches: &[GuestTouch], by: By, seen: &Seen) -> Verdict {
        let seen = results(seen, touches.len())?;
        for (index, (touch, seen)) in touches.iter().zip(seen).enumerate() {
            let Some(slot) = self.slot(touch.slot) else {
                continue;
            };
            let to = slot.through(touch.page);
            let (access, store) = (access_of(touch).wants(), touch.store.is_some());
            let comes = self.comes(&to, touch.cell, access, by);
            // KVM takes a write to what can only be read for one to a device, unless there is
            // nothing at all yet.
            let readable = !matches!(
                self.reach(to.space, to.page, touch.cell, READ),
                Reach::Denied
            );
            let wanted = match (by, comes) {
                (By::Guest, _) if store && slot.readonly => vec![Touched::NoWrite],
                (_, _) if store && slot.readonly => vec![Touched::Segv],
                (
                    By::Guest,
                    Comes::Absorbed {
                        why: EventKind::Denied,
                        ..
                    },
                ) if store && readable && matches!(seen, Touched::Mmio) => {
                    vec![Touched::Mmio]
                }
                (_, Comes::Refused(why)) => {
                    let denied = why == EventKind::Denied;
                    let (result, times) = match by {
                        By::Guest if denied && store && readable => (Touched::NoWrite, PERHAPS),
                        By::Guest => (Touched::Fault, OFTEN),
                        _ if denied => (Touched::Segv, ONCE),
                        _ => (Touched::Bus, ONCE),
                    };
                    self.tell(&to, access, why, times);
                    vec![result]
                }
                (_, comes) => self.made(&to, touch.cell, access, touch.store, comes),
            };
            compare("access", index, *seen, &wanted)
                .map_err(|why| format!("{name}, {touch:?} of {slot:?}, {why}"))?;
        }
        Ok(())
    }
}
