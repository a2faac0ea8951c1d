// SPDX-License-Identifier: GPL-2.0

//! A segment: a run of one file, mapped once in the arena, that the layout can
//! show wherever and however often.
//!
//! A segment is made by [`Segment::make`] with no lock held, is in use while its
//! space lists it, and ends with [`Segment::end`]. What shows a byte of it is
//! asked of the layout, which indexes its ranges by segment.

pub(crate) mod arena;
pub(crate) mod frame;
pub(crate) mod frames;
pub(crate) mod invalidation;
pub(crate) mod list;
pub(crate) mod mm_source;
pub(crate) mod notifier;

use core::ops;

use kernel::{
    cred::Credential,
    error::to_result,
    fs::File,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::*,
            Atomic, //
        },
        Arc, //
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
        notifier::Notifier, //
    },
    space::{
        revoke,
        Space, //
    },
    sys::bindings, //
};

/// What a segment is of, and as whom it was mapped.
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
        // SAFETY: The file is held.
        let limits = unsafe { bindings::address_space_helper_limits(file.as_ptr()) };
        Source {
            file,
            cred,
            first,
            pages,
            prot,
            limits,
        }
    }

    /// Whether everything that `wanted` asks for was allowed to this very file,
    /// caller and protection already.
    ///
    /// A check that passed for another open file, for other credentials, for less,
    /// or before the file was sealed, is no check: then there must be another
    /// segment.
    fn covers(&self, wanted: &Source) -> bool {
        self.file.as_ptr() == wanted.file.as_ptr()
            && self.cred.as_ptr() == wanted.cred.as_ptr()
            && self.prot.contains(wanted.prot)
            && self.limits == wanted.limits
            && self.first <= wanted.first
            && wanted.first + wanted.pages <= self.first + self.pages
    }

    /// The same, made larger to whole huge pages where the file consists of them:
    /// only so can it be mapped. The layout may show any page of it all the same.
    pub(crate) fn widened(mut self) -> Source {
        // SAFETY: The file is held.
        let huge = unsafe { bindings::address_space_helper_huge_page_size(self.file.as_ptr()) };
        let pages = huge >> PAGE_SHIFT;
        if pages > 1 {
            let end = (self.first + self.pages).next_multiple_of(pages);
            self.first -= self.first % pages;
            self.pages = end - self.first;
        }
        self
    }
}

/// A segment.
///
/// # Invariants
///
/// From a successful [`Segment::make`] to [`Segment::end`] the notifier is
/// registered and `space` is valid; `live` says so, and changes with the space's
/// install lock held exclusively.
#[pin_data]
pub(crate) struct Segment {
    id: u64,
    space: *const Space,
    source: Source,
    /// Address in the arena.
    addr: usize,
    live: Atomic<bool>,
    /// Whether a range that showed it was removed since it was last looked at.
    /// The space's ops lock guards it.
    pub(crate) suspect: Atomic<bool>,
    /// Whether it is kept although nothing shows it.
    pub(crate) registered: Atomic<bool>,
    /// Calls that are about to show it.
    pub(crate) pins: Atomic<u32>,
    pub(crate) frames: Frames,
    #[pin]
    pub(crate) notifier: Notifier,
}

// SAFETY: `space` is only used as the type's invariant allows, from any thread.
unsafe impl Send for Segment {}
// SAFETY: As above; everything else is `Sync`.
unsafe impl Sync for Segment {}

impl layout::Segment for Arc<Segment> {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Segment {
    /// Maps `source` in the arena of `space` and watches it.
    ///
    /// Errors are those of mmap(), and `ENODEV` where the memory is of a kind that
    /// cannot be shown. No lock may be held.
    ///
    /// # Safety
    ///
    /// `space` must be valid until [`Segment::end`] was called on the result.
    pub(crate) unsafe fn make(
        space: *const Space,
        arena: &Arena,
        id: u64,
        source: Source,
    ) -> Result<Arc<Segment>> {
        // SAFETY: The file is held.
        if unsafe { bindings::address_space_helper_unshowable(source.file.as_ptr()) } {
            return Err(ENODEV);
        }
        let length = source.pages << PAGE_SHIFT;
        // HMM takes frames only where reading is allowed; and there is no writing
        // without reading on this architecture anyhow.
        let prot = (source.prot | Prot::READ).bits() as usize;
        let addr = arena.map(
            source.file.clone(),
            source.cred.clone(),
            source.first << PAGE_SHIFT,
            length,
            prot,
        )?;
        let made = Self::watch(space, arena, id, source, addr, length);
        if made.is_err() {
            // The address goes unused if even this fails; it goes with the arena.
            let _ = arena.unmap(addr, length);
        }
        made
    }

    fn watch(
        space: *const Space,
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
                space,
                source,
                addr,
                live: Atomic::new(true),
                suspect: Atomic::new(false),
                registered: Atomic::new(false),
                pins: Atomic::new(0),
                frames,
                notifier <- Notifier::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: Called once; an `Arc` pins, and what the callback uses is valid
        // until `end` by the promise made to `make`.
        unsafe {
            segment
                .notifier
                .insert(arena.mm(), addr, length, &revoke::NOTIFIER_OPS)?
        };
        Ok(segment)
    }

    /// Ends the watch; to be followed by unmapping it from the arena.
    ///
    /// Nothing may show the segment. Waits for the notifier's callbacks: no lock
    /// that they take may be held.
    pub(crate) fn end(&self, space: &Space) {
        {
            // Under the lock, so that a fault which looked at the arena before
            // does not take a frame that the notifier would not tell of.
            let _shown = space.install.write();
            if !self.live.xchg(false, Relaxed) {
                return;
            }
        }
        // SAFETY: `live` was true, so the notifier is registered, and nobody else
        // gets here.
        unsafe { self.notifier.remove() };
    }

    /// Whether the notifier still watches. To be asked with the install lock held.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// Tells it from the other segments of the space.
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

    /// Has the arena make a page present that is in memory already, and those around it
    /// in `window`; says whether the page is. See [`Arena::fault_in_resident`].
    pub(crate) fn bring_resident(
        &self,
        arena: &Arena,
        page: usize,
        window: &ops::Range<usize>,
    ) -> bool {
        let before = page - window.start.min(page);
        let after = window.end.clamp(page + 1, self.pages()) - page;
        arena.fault_in_resident(
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
        // SAFETY: The file is held.
        let ret = unsafe {
            bindings::vfs_fsync_range(
                self.file().as_ptr(),
                start as bindings::loff_t,
                last as bindings::loff_t,
                c_int::from(datasync),
            )
        };
        // A file that has nothing to write to has nothing to write.
        if ret == EINVAL.to_errno() {
            return Ok(());
        }
        to_result(ret)
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

    /// The space.
    ///
    /// # Safety
    ///
    /// The segment must not have ended: the caller is its notifier's callback.
    pub(crate) unsafe fn space(&self) -> &Space {
        // SAFETY: By the type's invariant.
        unsafe { &*self.space }
    }
}
