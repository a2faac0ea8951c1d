// SPDX-License-Identifier: GPL-2.0

//! Which access was refused last, and how many have been: for fdinfo, where a VMM looks after
//! KVM_RUN has failed, since KVM does not say where.
//!
//! Each file has its own, which a holder of another view cannot spoil.
//!
//! Locks: a spinlock, inside which nothing is acquired.

use kernel::{
    prelude::*,
    sync::{
        new_spinlock,
        SpinLock, //
    },
};

use crate::{
    layout::{
        Prot,
        SpacePage, //
    },
    space::policy::Refusal,
};

/// A refused access.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    /// How many there have been, with this one.
    pub(crate) count: u64,
    pub(crate) page: SpacePage,
    pub(crate) access: Prot,
    pub(crate) why: Refusal,
}

/// The last of them.
#[pin_data]
pub(crate) struct Refusals {
    #[pin]
    last: SpinLock<Last>,
}

struct Last {
    refused: Option<Refused>,
    /// Where a hole was last met.
    hole: Option<SpacePage>,
}

impl Refusals {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            last <- new_spinlock!(Last { refused: None, hole: None }, "Refusals"),
        })
    }

    /// An access was refused.
    pub(crate) fn note(&self, page: SpacePage, access: Prot, why: Refusal) {
        let mut last = self.last.lock();
        let count = last.refused.map_or(0, |last| last.count) + 1;
        last.refused = Some(Refused {
            count,
            page,
            access,
            why,
        });
        if why == Refusal::Hole {
            last.hole = Some(page);
        }
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<Refused> {
        self.last.lock().refused
    }

    /// The page at which a hole was last met.
    pub(crate) fn last_hole(&self) -> Option<SpacePage> {
        self.last.lock().hole
    }
}
