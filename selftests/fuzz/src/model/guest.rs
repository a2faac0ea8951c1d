// SPDX-License-Identifier: GPL-2.0

//! The guest: its memory slots, and the results of touching them.

use libc::{EACCES, EEXIST, EINVAL, ENOENT};

use super::memory::Reach;
use super::{Model, Slot, Verdict, compare, expect, is_hot, results};
use crate::op::*;

impl Model {
    fn slot(&self, slot: usize) -> Option<Slot> {
        self.guest.as_ref()?.slots[slot]
    }

    pub(super) fn plug(
        &mut self,
        source: Source,
        slot: usize,
        at: Span,
        readonly: bool,
        seen: &Seen,
    ) -> Verdict {
        let Some(view) = self.source(source) else {
            return Err("nothing to plug".into());
        };
        let there = self.slot(slot);
        let wanted = if at.end() > view.at.count {
            Err(EINVAL)
        } else if there.is_some_and(|there| there.space == view.space) {
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
        if let (Ok(()), Some(guest)) = (wanted, &mut self.guest) {
            guest.slots[slot] = Some(Slot {
                space: view.space,
                at: Span::new(view.at.start + at.start, at.count),
                readonly,
            });
        }
        Ok(())
    }

    pub(super) fn unplug(&mut self, source: Source, slot: usize, seen: &Seen) -> Verdict {
        let space = self.source(source).map(|view| view.space);
        let known = self.slot(slot).is_some_and(|it| Some(it.space) == space);
        expect(seen, if known { Ok(()) } else { Err(ENOENT) })?;
        if let (true, Some(guest)) = (known, &mut self.guest) {
            guest.slots[slot] = None;
        }
        Ok(())
    }

    /// The accesses whose result is determined.
    pub fn meaningful_in_guest(&self, touches: &[GuestTouch]) -> Vec<GuestTouch> {
        touches
            .iter()
            .filter(|touch| {
                self.slot(touch.slot).is_some_and(|slot| {
                    touch.page < slot.at.count
                        && !self.is_unclear(
                            slot.space,
                            slot.at.start + touch.page,
                            touch.cell,
                            touch.store.is_some(),
                        )
                })
            })
            .copied()
            .collect()
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
        self.touch_slots("the guest", touches, seen, |slot, reach, store| {
            match (store, reach) {
                (true, _) if slot.readonly => Touched::NoWrite,
                (true, Reach::Denied) => Touched::NoWrite,
                _ => Touched::Fault,
            }
        })
    }

    pub(super) fn vmm_touch(&mut self, touches: &[GuestTouch], seen: &Seen) -> Verdict {
        self.touch_slots("the VMM", touches, seen, |slot, reach, store| match reach {
            _ if store && slot.readonly => Touched::Segv,
            Reach::Denied => Touched::Segv,
            _ => Touched::Bus,
        })
    }

    /// `refused` returns the result of an access that cannot be made.
    fn touch_slots(
        &mut self,
        name: &str,
        touches: &[GuestTouch],
        seen: &Seen,
        refused: impl Fn(&Slot, &Reach, bool) -> Touched,
    ) -> Verdict {
        let touches = self.meaningful_in_guest(touches);
        let seen = results(seen, touches.len())?;
        for (index, (touch, seen)) in touches.iter().zip(seen).enumerate() {
            let Some(slot) = self.slot(touch.slot) else {
                continue;
            };
            let page = slot.at.start + touch.page;
            let store = touch.store.is_some();
            let access = if store { WRITE } else { READ };
            let wanted = match self.reach(slot.space, page, touch.cell, access) {
                Reach::Cell { file, cell } if !(store && slot.readonly) => {
                    self.word(file, cell, touch.store)
                }
                // Reading is allowed where writing is not, but for PROT_NONE.
                Reach::Denied
                    if store
                        && matches!(
                            self.reach(slot.space, page, touch.cell, READ),
                            Reach::Denied
                        ) =>
                {
                    match refused(&slot, &Reach::Denied, store) {
                        Touched::NoWrite if !slot.readonly => Touched::Fault,
                        other => other,
                    }
                }
                reach => refused(&slot, &reach, store),
            };
            compare("access", index, *seen, wanted)
                .map_err(|why| format!("{name}, {touch:?} of {slot:?}, {why}"))?;
        }
        Ok(())
    }
}
