// SPDX-License-Identifier: GPL-2.0

//! Absorbing: an access that is refused meets the attachment's sink (`terms.rs`), in an entry as
//! for any page.
//!
//! Such an entry must go as soon as the owner changes what is shown there. No range of the layout
//! says that it was installed, so it is noted here, in the same hold of the install lock in which
//! it is made, and a change zaps what is noted of its pages.
//!
//! Where a hole is absorbed, only a change can end that. What a file does not have it may have in a
//! moment, and nobody tells; and an access that the layout does not allow must not hide for long
//! what it does allow. Such entries are brief: they are noted exactly, and zapped within
//! [`BRIEF_MS`]. There can be so many of them at a time and no more, or a holder of a view could
//! have everything zapped all the time; an access that finds no room backs off.
//!
//! Notifiers know nothing of this: a sink is no page of a segment.
//!
//! Locks: that of the notes, a spinlock, inside `install`; nothing is acquired inside it.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        new_spinlock,
        Arc,
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
    workqueue::WorkItem, //
};

use crate::{
    layout::{
        FewRanges,
        Pages,
        Prot,
        RangeSet,
        SpacePage, //
    },
    space::{
        policy::Refusal,
        resolve::{
            find,
            known,
            lookup,
            Miss,
            Resolved, //
        },
        Shown,
        Space,
        EXPIRE, //
    },
    sys::{
        peek::peek,
        rwlock::WriteGuard,
        workers, //
    },
};

/// How long a brief entry may be there, at most, on a machine that is not busy.
const BRIEF_MS: c_uint = 10;

/// After how many jiffies the worker begins to zap. A timer fires up to one jiffy later than it is
/// said to, and the worker needs some time, too: two milliseconds or more, unless a jiffy is longer
/// than four.
fn expiry() -> Jiffies {
    msecs_to_jiffies(BRIEF_MS).saturating_sub(3).max(1)
}

/// How many ranges of brief entries there can be.
const BRIEF: usize = 32;

/// Which pages may be absorbed in some attachment.
#[pin_data]
pub(crate) struct Absorbed {
    /// Whether there are any. Set before the first entry is made, and read with the install lock
    /// held for writing.
    any: Atomic<bool>,
    #[pin]
    notes: SpinLock<Notes>,
}

struct Notes {
    /// Until a change.
    lasting: FewRanges,
    brief: RangeSet<BRIEF>,
    /// Those that the worker is zapping.
    expiring: RangeSet<BRIEF>,
}

impl Absorbed {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            any: Atomic::new(false),
            notes <- new_spinlock!(Notes {
                lasting: FewRanges::none(),
                brief: RangeSet::none(),
                expiring: RangeSet::none(),
            }, "Absorbed"),
        })
    }

    /// The smallest range around those of `pages` that may be absorbed. The install lock must be
    /// held for writing, or have been, and the pages be revoked since.
    pub(super) fn among(&self, pages: &Range<SpacePage>) -> Range<SpacePage> {
        if !peek(&self.any) {
            return Pages::none();
        }
        let notes = self.notes.lock();
        notes
            .lasting
            .among(pages)
            .hull(notes.brief.among(pages))
            .hull(notes.expiring.among(pages))
    }

    /// Of `pages` nothing is absorbed any more: they have been zapped while they were being
    /// revoked, which they are still.
    pub(super) fn forget(&self, pages: &FewRanges, _shown: &mut WriteGuard<'_, Shown>) {
        if !peek(&self.any) || !pages.is_exact() {
            return;
        }
        let mut notes = self.notes.lock();
        for pages in pages.iter() {
            notes.lasting.remove(pages);
            // What cannot be told apart stays noted, and is zapped once more.
            let _ = notes.brief.remove(pages);
        }
        if notes.lasting.is_empty() && notes.brief.is_empty() && notes.expiring.is_empty() {
            self.any.store(false, Relaxed);
        }
    }

    /// Notes a page that is about to be absorbed; false where there is no room for it.
    fn note(&self, page: SpacePage, brief: bool) -> bool {
        let page = page..page + 1;
        let mut notes = self.notes.lock();
        self.any.store(true, Relaxed);
        if brief {
            return notes.brief.add(&page);
        }
        notes.lasting.add(&page);
        true
    }
}

impl Space {
    /// Calls `use_frame` with the sink `pfn` in place of a page, if an access to it is still
    /// refused so; as in [`Space::with_frame`], with the install lock held. `Ok(None)` where it is
    /// not: the access is to be tried again.
    pub(crate) fn with_sink<R>(
        self: &Arc<Self>,
        page: SpacePage,
        access: Prot,
        refusal: Refusal,
        pfn: usize,
        use_frame: impl FnOnce(Resolved<'_>) -> R,
    ) -> Result<Option<R>, Miss> {
        let shown = self.install.read();
        let (met, brief, writable) = match lookup(&shown, page) {
            Err(Miss::Hole) => (Refusal::Hole, false, true),
            Err(miss) => return Err(miss),
            Ok(range) => match find(&shown, range, page, access) {
                Err(Miss::Denied) => (Refusal::Denied, true, true),
                Err(miss) => return Err(miss),
                // The file has it by now.
                Ok(at) if known(range, at, access).is_some() => return Ok(None),
                // What the layout denies is not absorbed for that.
                Ok(_) => (Refusal::PastEnd, true, range.prot.contains(Prot::WRITE)),
            },
        };
        if met != refusal {
            return Ok(None);
        }
        if !self.absorbed.note(page, brief) {
            return Err(Miss::Invalidating);
        }
        if brief {
            // An error says that it is queued already. The fault's file keeps the space from being
            // closed meanwhile.
            let _ = workers::queue().enqueue_delayed::<Arc<Space>, EXPIRE>(self.clone(), expiry());
        }
        let frame = Resolved::of_sink(&shown, pfn, writable);
        Ok(Some(use_frame(frame)))
    }
}

impl WorkItem<EXPIRE> for Space {
    type Pointer = Arc<Space>;

    /// Zaps brief entries. With no lock held but that of the attachments: whoever changes something
    /// meanwhile still finds them noted, and zaps them too.
    fn run(space: Arc<Space>) {
        let expiring = {
            // What is noted by now has its entry.
            let _shown = space.install.write();
            let mut notes = space.absorbed.notes.lock();
            notes.expiring = core::mem::replace(&mut notes.brief, RangeSet::none());
            notes.expiring.clone()
        };
        for pages in expiring.iter() {
            space.zap_beside_owner(&(pages.start.get()..pages.end.get()));
        }
        space.absorbed.notes.lock().expiring = RangeSet::none();
    }
}
