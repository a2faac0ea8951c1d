// SPDX-License-Identifier: GPL-2.0

//! Events: which there must be, and which there may be.

use std::collections::BTreeSet;

use libc::{EBUSY, EINVAL, ENOENT, ENOTTY};

use super::holes::Through;
use super::{Model, Verdict, expect};
use crate::op::*;

/// An events file.
#[derive(Clone, Debug)]
pub struct Watch {
    pub space: usize,
    pub(super) at: Span,
    pub(super) timed: bool,
    pub(super) poisoned: BTreeSet<u64>,
    /// In their order.
    expected: Vec<Expected>,
}

/// What is told of an access.
#[derive(Clone, Copy, Debug)]
struct Expected {
    told: Told,
    /// Whether it must be, or only may be.
    sure: bool,
    /// Whether it may be told several times, since the access may have been tried several times.
    often: bool,
}

/// How often an access is told of that is refused.
pub(super) const ONCE: u32 = 1;
/// That may have been tried several times.
pub(super) const OFTEN: u32 = 2;
/// That may have been absorbed, or refused by others than the module.
pub(super) const PERHAPS: u32 = 0;

impl Model {
    pub(super) fn watch(
        &mut self,
        on: Source,
        watch: usize,
        at: Option<Span>,
        timed: bool,
        seen: &Seen,
    ) -> Verdict {
        let part = self.part(on);
        let wanted = if matches!(on, Source::View(_)) {
            Err(ENOTTY)
        } else if at.is_some_and(|at| !part.has(at)) {
            Err(EINVAL)
        } else if self.watch_of(part.space).is_some() {
            Err(EBUSY)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        if wanted.is_ok() {
            self.watches[watch] = Some(Watch {
                space: part.space,
                at: at.unwrap_or(part.at),
                timed,
                poisoned: BTreeSet::new(),
                expected: Vec::new(),
            });
        }
        Ok(())
    }

    pub(super) fn poison(&mut self, on: Source, at: Span, clear: bool, seen: &Seen) -> Verdict {
        let part = self.part(on);
        let wanted = if matches!(on, Source::View(_)) {
            Err(ENOTTY)
        } else if !part.has(at) {
            Err(EINVAL)
        } else if self.watch_of(part.space).is_none() {
            Err(ENOENT)
        } else {
            Ok(())
        };
        expect(seen, wanted)?;
        let mut watches = self.watches.iter_mut().flatten();
        if let (Ok(()), Some(watch)) = (wanted, watches.find(|it| it.space == part.space)) {
            if clear {
                watch.poisoned.retain(|page| !at.has(*page));
            } else {
                watch.poisoned.extend(at.iter());
            }
        }
        if wanted.is_ok() {
            for waiter in self.waiters.iter_mut().flatten() {
                waiter.may_be_told_again |= waiter.to.space == part.space;
            }
        }
        Ok(())
    }

    /// Something was mapped there.
    pub(super) fn unpoison(&mut self, space: usize, at: Span) {
        for watch in self.watches.iter_mut().flatten() {
            if watch.space == space {
                watch.poisoned.retain(|page| !at.has(*page));
            }
        }
    }

    /// An access has been refused or absorbed.
    pub(super) fn tell(&mut self, to: &Through, access: u32, kind: EventKind, times: u32) {
        for watch in self.watches.iter_mut().flatten() {
            if watch.space == to.space && watch.at.has(to.page) {
                watch.expected.push(Expected {
                    told: Told::Of {
                        kind,
                        page: to.page,
                        access,
                        through: to.id,
                    },
                    sure: times != PERHAPS,
                    often: times != ONCE,
                });
            }
        }
    }

    pub(super) fn read_events(&mut self, watch: usize, seen: &Seen) -> Verdict {
        let Seen::Told(told) = seen else {
            return Err(format!("expected events, got {seen:?}"));
        };
        let Some(watch) = &mut self.watches[watch] else {
            return Err("nothing to read".into());
        };
        let mut expected = std::mem::take(&mut watch.expected);
        let space = watch.space;
        let (waits, others): (Vec<_>, Vec<_>) = told.iter().partition(|told| {
            let wait = EventKind::Wait;
            matches!(told, Told::Of { kind, .. } if *kind == wait)
        });
        self.waits_told(space, &waits)?;
        let (lost, others) = match others.split_last() {
            Some((Told::Lost(count), others)) => (*count, others),
            _ => (0, &others[..]),
        };
        // Tasks that one step has woken are told of in any order.
        let mut others = others.to_vec();
        expected.sort_by_key(|it| format!("{:?}", it.told));
        others.sort_by_key(|told| format!("{told:?}"));
        let missing = missing(&expected, &others).map_err(|event| {
            format!("{event:?} is told, which is not what has happened: {expected:?}")
        })?;
        if missing > lost {
            return Err(format!(
                "at least {missing} events are not told, and {lost} counted as lost: {told:?} \
                 of {expected:?}"
            ));
        }
        Ok(())
    }
}

/// How many events that must be told are not, at least, if these are. The error is one that is
/// not among the expected, in their order.
fn missing(expected: &[Expected], told: &[&Told]) -> Result<u64, Told> {
    // How many of the sure ones come before each.
    let mut before = vec![0];
    for it in expected {
        before.push(before[before.len() - 1] + u64::from(it.sure));
    }
    // For each that was told last, how many were left out at least.
    let mut left_out: Vec<Option<u64>> = vec![None; expected.len()];
    for (index, &&told) in told.iter().enumerate() {
        let mut next = vec![None; expected.len()];
        // What those before it leave out, without those between.
        let mut best: Option<i64> = (index == 0).then_some(0);
        for (at, it) in expected.iter().enumerate() {
            if it.told == told {
                let again = left_out[at].filter(|_| it.often);
                let first = best.map(|best| best.saturating_add_unsigned(before[at]) as u64);
                next[at] = again.into_iter().chain(first).min();
            }
            let here = left_out[at].map(|left| left as i64 - before[at + 1] as i64);
            best = best.into_iter().chain(here).min();
        }
        if next.iter().all(Option::is_none) {
            return Err(told);
        }
        left_out = next;
    }
    let all = before[expected.len()];
    if told.is_empty() {
        return Ok(all);
    }
    let ends = left_out.iter().enumerate();
    let ends = ends.filter_map(|(at, left)| Some((*left)? + all - before[at + 1]));
    Ok(ends.min().unwrap_or(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(page: u64) -> Told {
        Told::Of {
            kind: EventKind::Hole,
            page,
            access: READ,
            through: 0,
        }
    }

    fn expected(page: u64, sure: bool, often: bool) -> Expected {
        Expected {
            told: event(page),
            sure,
            often,
        }
    }

    fn missing_of(expected: &[Expected], pages: &[u64]) -> Result<u64, Told> {
        let told: Vec<_> = pages.iter().map(|page| event(*page)).collect();
        missing(expected, &told.iter().collect::<Vec<_>>())
    }

    #[test]
    fn events_that_must_be_told_are_missed() {
        let all = [
            expected(1, true, false),
            expected(2, false, true),
            expected(3, true, true),
            expected(1, true, false),
        ];
        assert_eq!(missing_of(&all, &[1, 3, 1]), Ok(0));
        assert_eq!(missing_of(&all, &[1, 2, 2, 3, 3, 3, 1]), Ok(0));
        assert_eq!(missing_of(&all, &[3, 1]), Ok(1));
        assert_eq!(missing_of(&all, &[1]), Ok(2));
        assert_eq!(missing_of(&all, &[]), Ok(3));
        assert_eq!(missing_of(&all, &[1, 1]), Ok(1));
        assert_eq!(missing_of(&all, &[1, 1, 1]), Err(event(1)));
        assert_eq!(missing_of(&all, &[1, 3, 2]), Err(event(2)));
    }

    /// What only may be told does not stand in for what must be, if it need not.
    #[test]
    fn events_are_those_that_must_be_told_if_they_can_be() {
        let all = [
            expected(1, false, true),
            expected(2, true, false),
            expected(1, true, false),
        ];
        assert_eq!(missing_of(&all, &[2, 1]), Ok(0));
        assert_eq!(missing_of(&all, &[1]), Ok(1));
        assert_eq!(missing_of(&all, &[1, 2]), Ok(1));
    }
}
