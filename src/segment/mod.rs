// SPDX-License-Identifier: GPL-2.0

//! A segment: a run of one file, mapped once in the arena, that the layout can show wherever
//! and however often; or a range of a live process's own memory, which that has lent.
//!
//! Either is mapped in an mm, which has a notifier, and in which pages can be faulted in. The frame
//! table, the layout and revocation know no difference; what differs is what asks for
//! [`Segment::lend`].
//!
//! A segment is made by [`Segment::make`] with no lock held, is in use while its space lists it
//! ([`list`]), and ends with [`Segment::end`]. What shows a byte of it is asked of the layout,
//! which indexes its ranges by segment.
//!
//! A segment does not know the space: what must happen when the arena stops showing pages is
//! behind [`Revoke`].

pub(crate) mod arena;
pub(crate) mod arenas;
mod attendant;
pub(crate) mod frame;
mod frame_entry;
pub(crate) mod frame_ref;
pub(crate) mod frame_slots;
pub(crate) mod frames;
pub(crate) mod invalidation;
mod jobs;
pub(crate) mod lend;
pub(crate) mod list;
mod memory;
pub(crate) mod mm_source;
pub(crate) mod notifier;
mod settled;
pub(crate) mod source;

use core::ops::Range;

use kernel::{
    fs::File,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListLinks,
        TryNewListArc, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    layout::{
        self,
        FilePage,
        Pages,
        Prot,
        SegmentPage, //
    },
    segment::{
        arena::Arena,
        arenas::Home,
        attendant::Attendant,
        frames::Frames,
        invalidation::{
            Hull,
            Invalidation, //
        },
        lend::Lend,
        notifier::{
            Event,
            Notifier,
            Watch, //
        },
        settled::Settled,
        source::Source,
    },
    sys::{
        file,
        rwlock::WriteGuard, //
    },
};

/// What happens when the arena is about to stop showing pages of a segment, or to write-protect
/// them: what shows them must be made unable to reach them.
pub(crate) trait Revoke: Send + Sync {
    /// Called inside the locks of the task that changes the file, so it must not wait for any that
    /// is acquired outside of those. Answers false where it may not sleep, and would.
    fn invalidate(
        self: Arc<Self>,
        segment: ArcBorrow<'_, Segment>,
        event: &Event<'_, Segment>,
    ) -> bool;

    /// The last pin of a segment is gone that kept it from being ended. The install lock may not be
    /// held.
    fn reap(self: Arc<Self>);

    /// Does what is due for a segment, which may take as long as its file does: see
    /// [`Segment::late`] and [`Segment::ending`]. No lock is held.
    fn attend(self: Arc<Self>, segment: &Arc<Segment>);

    /// A segment's memory is no longer lent: nothing shows any of it from here on, when this
    /// returns. No lock is held.
    fn cut_off(self: Arc<Self>, segment: &Arc<Segment>);
}

/// For the list of segments that have deferred invalidations.
pub(crate) const DEFERRED: u64 = 1;
/// For the list of segments of which a change has removed something.
pub(crate) const REMOVED: u64 = 2;
/// For the list of segments that an attendant has something to do for.
pub(crate) const ATTENDED: u64 = 3;
/// For the list of segments that may be unused.
pub(crate) const IDLE: u64 = 4;

/// A segment.
///
/// It refers to its owner, which lists it: the owner must drop all of its references to segments,
/// those of its layout too, before it can go itself.
#[pin_data]
pub(crate) struct Segment {
    id: u64,
    owner: Arc<dyn Revoke>,
    source: Source,
    /// In which it is mapped, unless it is lent; who is charged for its frame table, in any case.
    arena: Arc<Arena>,
    /// Who does what may wait for its file. None for memory, which nothing waits for.
    attendant: Option<Arc<Attendant>>,
    /// Address in the arena, or in the lender's memory.
    addr: usize,
    /// The asfd or view by which it was registered last, as the number of its inode; then it is
    /// kept although nothing shows it. 0 for none. Guarded by the ops lock.
    registrant: Atomic<u64>,
    /// Calls that are about to show it, and whoever waits for its file; increased under the ops
    /// lock, or under the install lock while it is shown.
    pins: Atomic<u32>,
    /// Of a private one, the pages that something showed and may show no longer, since they were
    /// looked at last. Guarded by the ops lock.
    removed_pages: Hull,
    /// Whether it would be ended if it were not pinned or late.
    overdue: Atomic<bool>,
    /// Whether the worker has zapped what was deferred, and frames of it are to be written and put:
    /// it is neither drained again nor ended before that is done. Changed under the install lock.
    pub(crate) late: Atomic<bool>,
    /// Whether it is on no list any more, and to be ended.
    pub(crate) ending: Atomic<bool>,
    /// Whether the arena has lacked a page of it.
    lacked: Atomic<bool>,
    pub(crate) frames: Frames,
    pub(crate) invalidation: Invalidation,
    #[pin]
    pub(crate) notifier: Notifier<Segment>,
    #[pin]
    deferred: ListLinks<DEFERRED>,
    #[pin]
    deferred_tracker: AtomicTracker<DEFERRED>,
    #[pin]
    removed: ListLinks<REMOVED>,
    #[pin]
    removed_tracker: AtomicTracker<REMOVED>,
    #[pin]
    attended: ListLinks<ATTENDED>,
    #[pin]
    attended_tracker: AtomicTracker<ATTENDED>,
    #[pin]
    idle: ListLinks<IDLE>,
    #[pin]
    idle_tracker: AtomicTracker<IDLE>,
}

impl_list_arc_safe! {
    impl ListArcSafe<DEFERRED> for Segment { tracked_by deferred_tracker: AtomicTracker<DEFERRED>; }
    impl ListArcSafe<REMOVED> for Segment { tracked_by removed_tracker: AtomicTracker<REMOVED>; }
    impl ListArcSafe<ATTENDED> for Segment { tracked_by attended_tracker: AtomicTracker<ATTENDED>; }
    impl ListArcSafe<IDLE> for Segment { tracked_by idle_tracker: AtomicTracker<IDLE>; }
}
impl_list_item! {
    impl ListItem<DEFERRED> for Segment { using ListLinks { self.deferred }; }
    impl ListItem<REMOVED> for Segment { using ListLinks { self.removed }; }
    impl ListItem<ATTENDED> for Segment { using ListLinks { self.attended }; }
    impl ListItem<IDLE> for Segment { using ListLinks { self.idle }; }
}

impl layout::Segment for Arc<Segment> {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Watch for Segment {
    fn notifier(&self) -> &Notifier<Segment> {
        &self.notifier
    }

    fn settled(&self) -> &Settled {
        match self.lend() {
            Some(lend) => lend.settled(),
            None => self.arena.settled(),
        }
    }

    fn invalidate(this: ArcBorrow<'_, Segment>, event: &Event<'_, Segment>) -> bool {
        let done = this.owner.clone().invalidate(this, event);
        if let Some(lend) = this.lend().filter(|_| event.ends) {
            lend.end_later();
        }
        done
    }
}

impl Segment {
    /// Maps `source` in the arena and watches it, for `owner`.
    ///
    /// Errors are those of mmap(), and `ENODEV` where the memory is of a kind that cannot be
    /// shown; for what was lent, which [`Source::check_lend`] has allowed, those of
    /// [`Lend::enter`]. No lock may be held.
    pub(crate) fn make(
        owner: Arc<dyn Revoke>,
        home: &Home,
        id: u64,
        source: Source,
    ) -> Result<Arc<Segment>> {
        if let Some(lend) = source.lend.clone() {
            return Self::borrow(owner, home, id, source, &lend);
        }
        if file::is_unmappable(&source.file) {
            return Err(ENODEV);
        }
        let length = (source.part.count() << PAGE_SHIFT) as usize;
        // HMM takes frames only where reading is allowed; and there is no writing without
        // reading on this architecture anyhow.
        let prot = (source.prot | Prot::READ).bits();
        let addr = home.arena.map(
            source.file.clone(),
            source.cred.clone(),
            (source.part.start.get() << PAGE_SHIFT) as usize,
            length,
            prot,
            source.is_private(),
        )?;
        let made = Self::watch(owner, home, id, source, addr, length);
        if made.is_err() {
            home.arena.unmap(addr, length);
        }
        made
    }

    fn watch(
        owner: Arc<dyn Revoke>,
        home: &Home,
        id: u64,
        source: Source,
        addr: usize,
        length: usize,
    ) -> Result<Arc<Segment>> {
        if !home.arena.has_pages(addr)? {
            return Err(ENODEV);
        }
        let segment = Self::new(owner, home, id, source, addr)?;
        Notifier::insert(&segment, home.arena.mm(), addr, length)?;
        if !home.arena.settled().is_known() {
            // It is the first: there is nothing else there to wait for, unless the file is being
            // changed just now. Those that follow have the same sequence, until something is
            // invalidated.
            segment.settle();
        }
        Ok(segment)
    }

    /// The same for memory that was lent.
    fn borrow(
        owner: Arc<dyn Revoke>,
        home: &Home,
        id: u64,
        source: Source,
        lend: &Lend,
    ) -> Result<Arc<Segment>> {
        let addr = lend.addr_of(source.part.start);
        let segment = Self::new(owner, home, id, source, addr)?;
        lend.enter(&segment)?;
        Ok(segment)
    }

    fn new(
        owner: Arc<dyn Revoke>,
        home: &Home,
        id: u64,
        source: Source,
        addr: usize,
    ) -> Result<Arc<Segment>> {
        let frames = Frames::new(addr >> PAGE_SHIFT, source.part.count() as usize);
        Arc::pin_init(
            pin_init!(Segment {
                id,
                owner,
                source,
                arena: home.arena.clone(),
                attendant: home.attendant.clone(),
                addr,
                registrant: Atomic::new(0),
                pins: Atomic::new(0),
                removed_pages: Hull::new(),
                overdue: Atomic::new(false),
                late: Atomic::new(false),
                ending: Atomic::new(false),
                lacked: Atomic::new(false),
                frames,
                invalidation: Invalidation::new(),
                notifier <- Notifier::new(),
                deferred <- ListLinks::new(),
                deferred_tracker <- AtomicTracker::new(),
                removed <- ListLinks::new(),
                removed_tracker <- AtomicTracker::new(),
                attended <- ListLinks::new(),
                attended_tracker <- AtomicTracker::new(),
                idle <- ListLinks::new(),
                idle_tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Ends the watch; to be followed by unmapping it from the arena. Nothing may show the
    /// segment, unless it is lent. See [`Notifier::remove`].
    pub(crate) fn end<'a, T: 'a>(&self, install: impl FnOnce() -> WriteGuard<'a, T>) {
        self.notifier.remove(install);
    }

    /// What was lent, if it is of that.
    pub(crate) fn lend(&self) -> Option<&Arc<Lend>> {
        self.source.lend.as_ref()
    }

    /// Whether it is of memory that was lent.
    pub(crate) fn is_lent(&self) -> bool {
        self.lend().is_some()
    }

    /// Whether what is written is written to copies, which are its own.
    pub(crate) fn is_private(&self) -> bool {
        self.source.is_private()
    }

    /// Pages of it are shown in one place less. The ops lock is held.
    pub(crate) fn note_removed(&self, pages: &Range<SegmentPage>) {
        if self.is_private() {
            self.removed_pages.extend(pages);
        }
    }

    /// What was noted so, around which there may be more. The ops lock is held.
    pub(crate) fn take_removed(&self) -> Range<SegmentPage> {
        let pages = self.removed_pages.pages();
        self.removed_pages.set(Pages::none());
        pages
    }

    /// See [`Revoke::cut_off`].
    fn cut_off(self: &Arc<Self>) {
        self.owner.clone().cut_off(self);
    }

    /// Has what is due be done: at once, or on a worker that others do not wait for where the file
    /// may have to be waited for, as a disk whose file system is frozen has what is late wait; or a
    /// lender, by the end of what it has lent.
    pub(crate) fn have_attended(self: &Arc<Self>) {
        if let Some(lend) = self.lend().filter(|_| self.ending.load(Relaxed)) {
            lend.attend(self);
            return;
        }
        match &self.attendant {
            Some(attendant) if self.arena.is_slow() || self.late.load(Relaxed) => {
                attendant.attend(self);
            }
            _ => self.attend(),
        }
    }

    /// Does what is due; see [`Revoke::attend`].
    fn attend(self: &Arc<Self>) {
        self.owner.clone().attend(self);
    }

    /// Whether it is kept although nothing may show it. The ops lock is held.
    pub(crate) fn is_registered(&self) -> bool {
        self.registrant.load(Relaxed) != 0
    }

    /// Whether it is by the asfd or view with this number. The ops lock is held.
    pub(crate) fn is_registered_by(&self, by: u64) -> bool {
        self.registrant.load(Relaxed) == by
    }

    /// Whether it may not be ended now, being pinned or late: it is looked at again when it is not
    /// any more. The ops lock is held.
    fn is_kept_up(&self) -> bool {
        // Before the look at the pins, or whoever drops the last one might not see it.
        self.overdue.xchg(true, Full);
        self.pins.load(Relaxed) != 0 || self.late.load(Relaxed)
    }

    /// Whether whoever wanted to end it found it pinned or late.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }

    /// The arena.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Distinguishes it from the other segments of the space.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.source.file
    }

    /// Pages of the file.
    pub(crate) fn part(&self) -> &Range<FilePage> {
        &self.source.part
    }

    /// All of its pages.
    pub(crate) fn pages(&self) -> Range<SegmentPage> {
        SegmentPage::new(0)..SegmentPage::new(self.source.part.count())
    }

    /// Which of its pages are pages `part` of the file, all of which it has.
    pub(crate) fn pages_of(&self, part: &Range<FilePage>) -> Range<SegmentPage> {
        let first = SegmentPage::new(part.start - self.part().start);
        first..first + part.count()
    }

    /// Which page of the file one of its pages is.
    pub(crate) fn file_page(&self, page: SegmentPage) -> FilePage {
        self.part().start + page.get()
    }

    /// Whether the file ends before that page now. (What is lent does not end.)
    pub(crate) fn ends_before(&self, page: SegmentPage) -> bool {
        file::size(self.file()) <= self.file_page(page).get() << PAGE_SHIFT
    }

    /// Where it is mapped, in the arena or by the lender, and how many bytes.
    pub(crate) fn area(&self) -> (usize, usize) {
        (self.addr, (self.part().count() << PAGE_SHIFT) as usize)
    }

    /// Where page `page` of it is mapped.
    fn addr_of(&self, page: SegmentPage) -> usize {
        self.addr + page.as_usize() * PAGE_SIZE
    }

    /// Whether it can serve for `wanted`.
    pub(crate) fn serves(&self, wanted: &Source) -> bool {
        self.source.covers(wanted)
    }

    /// Whether it has all of the pages `part` of the file.
    pub(crate) fn has(&self, part: &Range<FilePage>) -> bool {
        self.part().start <= part.start && part.end <= self.part().end
    }

    /// Whether its pages may be shown for `prot`.
    pub(crate) fn allows(&self, prot: Prot) -> bool {
        self.source.prot.contains(prot)
    }

    /// For what accesses its pages are populated that may be accessed for `prot`: not for those
    /// that make copies.
    pub(crate) fn populates(&self, prot: Prot) -> Prot {
        match self.is_private() {
            true => prot & (Prot::READ | Prot::EXEC),
            false => prot,
        }
    }

    /// Its pages that lie in bytes `start..end` of the arena.
    pub(crate) fn clip(&self, start: usize, end: usize) -> Range<SegmentPage> {
        let (addr, length) = self.area();
        let from = start.clamp(addr, addr + length) - addr;
        let to = end.clamp(addr, addr + length) - addr;
        SegmentPage::from_usize(from >> PAGE_SHIFT)..SegmentPage::from_usize(to.div_ceil(PAGE_SIZE))
    }
}
