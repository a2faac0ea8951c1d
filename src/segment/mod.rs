// SPDX-License-Identifier: GPL-2.0

//! A segment: a run of one file, mapped once in the arena, that the layout can show wherever
//! and however often.
//!
//! A segment is made by [`Segment::make`] with no lock held, is in use while its space lists it
//! ([`list`]), and ends with [`Segment::end`]. What shows a byte of it is asked of the layout,
//! which indexes its ranges by segment.
//!
//! A segment does not know the space: what must happen when the arena stops showing pages is
//! behind [`Revoke`].

pub(crate) mod arena;
pub(crate) mod frame;
pub(crate) mod frame_ref;
pub(crate) mod frames;
pub(crate) mod invalidation;
pub(crate) mod list;
pub(crate) mod mm_source;
pub(crate) mod notifier;

use core::ops;

use kernel::{
    cred::Credential,
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
        aref::ARef,
        atomic::Atomic,
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    layout::{
        self,
        Prot, //
    },
    segment::{
        arena::Arena,
        frames::Frames,
        invalidation::Invalidation,
        notifier::{
            Event,
            Notifier,
            Watch, //
        },
    },
    sys::{
        file,
        rwsem::WriteGuard, //
    },
};

/// What a segment is of, and with which credentials it was mapped.
#[derive(Clone)]
pub(crate) struct Source {
    /// The file.
    pub(crate) file: ARef<File>,
    /// The credentials with which the checks were made.
    pub(crate) cred: ARef<Credential>,
    /// First page of the file.
    pub(crate) first: usize,
    /// Number of pages.
    pub(crate) pages: usize,
    /// What the checks allowed.
    pub(crate) prot: Prot,
    /// Seals and mount options when they were made.
    limits: u32,
}

impl Source {
    /// `pages` pages of `file` from page `first`, as it stands now.
    pub(crate) fn new(
        file: ARef<File>,
        cred: ARef<Credential>,
        first: usize,
        pages: usize,
        prot: Prot,
    ) -> Source {
        let limits = file::mmap_limits(&file);
        Source {
            file,
            cred,
            first,
            pages,
            prot,
            limits,
        }
    }

    /// Whether everything that `wanted` asks for was allowed to this very file, caller and
    /// protection already.
    ///
    /// A check that passed for another open file, for other credentials, for less, or before the
    /// file was sealed, is no check: then there must be another segment.
    fn covers(&self, wanted: &Source) -> bool {
        self.file.as_ptr() == wanted.file.as_ptr()
            && self.cred.as_ptr() == wanted.cred.as_ptr()
            && self.prot.contains(wanted.prot)
            && self.limits == wanted.limits
            && self.first <= wanted.first
            && wanted.first + wanted.pages <= self.first + self.pages
    }

    /// The same, extended to whole huge pages where the file consists of them: it can only be
    /// mapped so. The layout may show any page of it all the same.
    pub(crate) fn widened(mut self) -> Source {
        let pages = file::huge_page_size(&self.file) >> PAGE_SHIFT;
        if pages > 1 {
            let end = (self.first + self.pages).next_multiple_of(pages);
            self.first -= self.first % pages;
            self.pages = end - self.first;
        }
        self
    }
}

/// What happens when the arena is about to stop showing pages of a segment, or to write-protect
/// them: what shows them must be made unable to reach them.
pub(crate) trait Revoke: Send + Sync {
    /// Called inside the locks of the task that changes the file, so it must not wait for any that is
    /// taken outside of those. Answers false where it would have to sleep and may not.
    fn invalidate(
        self: Arc<Self>,
        segment: ArcBorrow<'_, Segment>,
        event: &Event<'_, Segment>,
    ) -> bool;
}

/// For the list of segments that have deferred invalidations.
pub(crate) const DEFERRED: u64 = 1;
/// For the list of segments of which a change has removed something.
pub(crate) const REMOVED: u64 = 2;

/// A segment.
///
/// It refers to its owner, which lists it: the owner must drop all of its references to segments,
/// those of its layout too, before it can go itself.
#[pin_data]
pub(crate) struct Segment {
    id: u64,
    owner: Arc<dyn Revoke>,
    source: Source,
    /// Address in the arena.
    addr: usize,
    /// Whether it is kept although nothing shows it; guarded by the ops lock.
    pub(crate) registered: Atomic<bool>,
    /// Calls that are about to show it; increased under the ops lock.
    pins: Atomic<u32>,
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
}

impl_list_arc_safe! {
    impl ListArcSafe<DEFERRED> for Segment { tracked_by deferred_tracker: AtomicTracker<DEFERRED>; }
    impl ListArcSafe<REMOVED> for Segment { tracked_by removed_tracker: AtomicTracker<REMOVED>; }
}
impl_list_item! {
    impl ListItem<DEFERRED> for Segment { using ListLinks { self.deferred }; }
    impl ListItem<REMOVED> for Segment { using ListLinks { self.removed }; }
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

    fn invalidate(this: ArcBorrow<'_, Segment>, event: &Event<'_, Segment>) -> bool {
        this.owner.clone().invalidate(this, event)
    }
}

impl Segment {
    /// Maps `source` in the arena and watches it, for `owner`.
    ///
    /// Errors are those of mmap(), and `ENODEV` where the memory is of a kind that cannot be
    /// shown. No lock may be held.
    pub(crate) fn make(
        owner: Arc<dyn Revoke>,
        arena: &Arena,
        id: u64,
        source: Source,
    ) -> Result<Arc<Segment>> {
        if file::is_unmappable(&source.file) {
            return Err(ENODEV);
        }
        let length = source.pages << PAGE_SHIFT;
        // HMM takes frames only where reading is allowed; and there is no writing without
        // reading on this architecture anyhow.
        let prot = (source.prot | Prot::READ).bits();
        let addr = arena.map(
            source.file.clone(),
            source.cred.clone(),
            source.first << PAGE_SHIFT,
            length,
            prot,
        )?;
        let made = Self::watch(owner, arena, id, source, addr, length);
        if made.is_err() {
            arena.unmap(addr, length);
        }
        made
    }

    fn watch(
        owner: Arc<dyn Revoke>,
        arena: &Arena,
        id: u64,
        source: Source,
        addr: usize,
        length: usize,
    ) -> Result<Arc<Segment>> {
        if !arena.has_pages(addr) {
            return Err(ENODEV);
        }
        let frames = Frames::new(addr >> PAGE_SHIFT, source.pages)?;
        let segment = Arc::pin_init(
            pin_init!(Segment {
                id,
                owner,
                source,
                addr,
                registered: Atomic::new(false),
                pins: Atomic::new(0),
                frames,
                invalidation: Invalidation::new(),
                notifier <- Notifier::new(),
                deferred <- ListLinks::new(),
                deferred_tracker <- AtomicTracker::new(),
                removed <- ListLinks::new(),
                removed_tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        Notifier::insert(&segment, arena.mm(), addr, length)?;
        Ok(segment)
    }

    /// Ends the watch; to be followed by unmapping it from the arena. Nothing may show the
    /// segment. See [`Notifier::remove`].
    pub(crate) fn end<'a, T: 'a>(&self, install: impl FnOnce() -> WriteGuard<'a, T>) {
        self.notifier.remove(install);
    }

    /// Distinguishes it from the other segments of the space.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.source.file
    }

    /// First page of the file.
    pub(crate) fn first(&self) -> usize {
        self.source.first
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.source.pages
    }

    /// Where it is mapped in the arena, and how many bytes.
    pub(crate) fn area(&self) -> (usize, usize) {
        (self.addr, self.source.pages << PAGE_SHIFT)
    }

    /// Where page `page` of it is in the arena.
    pub(crate) fn addr_of(&self, page: usize) -> usize {
        self.addr + page * PAGE_SIZE
    }

    /// Has the arena map a page that is in memory already, and those in `around` it, without
    /// waiting for anything slow; says whether the page is mapped. See [`Arena::map_resident`].
    pub(crate) fn map_around(
        &self,
        arena: &Arena,
        page: usize,
        around: &ops::Range<usize>,
    ) -> bool {
        let before = page - around.start.min(page);
        let after = around.end.clamp(page + 1, self.pages()) - page;
        arena.map_resident(
            self.file(),
            self.first() + page,
            self.addr_of(page),
            before,
            after,
        )
    }

    /// Whether it can serve for `wanted`.
    pub(crate) fn serves(&self, wanted: &Source) -> bool {
        self.source.covers(wanted)
    }

    /// Has the file write `pages` pages from page `first` of the segment.
    pub(crate) fn sync(&self, first: u64, pages: u64, datasync: bool) -> Result {
        let start = (self.first() as u64 + first) << PAGE_SHIFT;
        let last = start + (pages << PAGE_SHIFT) - 1;
        file::fsync_range(self.file(), start, last, datasync)
    }

    /// Whether it has `pages` pages of the file from page `first`.
    pub(crate) fn has(&self, first: usize, pages: usize) -> bool {
        self.first() <= first && first + pages <= self.first() + self.pages()
    }

    /// Whether its pages may be shown for `prot`.
    pub(crate) fn allows(&self, prot: Prot) -> bool {
        self.source.prot.contains(prot)
    }

    /// Its pages that lie in `start..end` of the arena.
    pub(crate) fn clip(&self, start: usize, end: usize) -> (usize, usize) {
        let (addr, length) = self.area();
        let from = start.clamp(addr, addr + length) - addr;
        let to = end.clamp(addr, addr + length) - addr;
        (from >> PAGE_SHIFT, to.div_ceil(PAGE_SIZE))
    }
}
