// SPDX-License-Identifier: GPL-2.0

//! The mmu interval notifier of a segment, as a safe type, and looks at its mm that the notifier
//! confirms.
//!
//! The protocol is that of `mm/mmu_notifier.c` and `Documentation/mm/hmm.rst`, with the install
//! lock as the lock: [`Notifier::begin`], [`Look::read`], then under the install lock
//! [`Seen::confirm`]. The callback advances the sequence under the install lock held for writing
//! ([`Event::advance`]).
//!
//! The kernel's own beginning, mmu_interval_read_begin(), waits without an end of its own for what
//! is invalidated there: for whoever changes a file in the case of an arena, and in that of memory
//! that was lent for whatever its owner does. So that is [`Notifier::settle`], with no lock held
//! where that can be. [`Notifier::begin`] does not wait: it knows of which sequence that has
//! returned ([`Settled`]), so that nothing can be under way that was called back with it.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use core::{
    mem::MaybeUninit,
    ptr::null_mut, //
};

use kernel::{
    error::to_result,
    mm::{
        Mm,
        MmWithUser,
        VmaReadGuard, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::*,
            Atomic, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque,
};

use crate::{
    segment::{
        frame::{
            Frame,
            HUGE_ORDER, //
        },
        settled::Settled, //
    },
    sys::{
        bindings,
        mm::Locks,
        rwlock::{
            Held,
            WriteGuard, //
        },
        warn::warn_on_once,
    },
};

/// What is called when the mm is about to change.
pub(crate) trait Watch: Send + Sync + Sized + 'static {
    /// The notifier that watches for it.
    fn notifier(&self) -> &Notifier<Self>;

    /// What is known of the mm in which it watches.
    fn settled(&self) -> &Settled;

    /// The mm is about to map a range differently, or to write-protect it. Called inside the
    /// locks of the task that changes the mm. Answers false where it may not sleep, and would.
    fn invalidate(this: ArcBorrow<'_, Self>, event: &Event<'_, Self>) -> bool;
}

/// An interval notifier in the making or in use.
///
/// # Invariants
///
/// - If `watcher` is not null, it owns a reference to the `Arc` that the notifier is in.
/// - While `live`, which is changed to false under the install lock, the notifier is registered
///   with an mm, and `watcher` is not null.
#[pin_data]
#[repr(C)]
pub(crate) struct Notifier<T> {
    #[pin]
    inner: Opaque<bindings::mmu_interval_notifier>,
    watcher: Atomic<*mut T>,
    live: Atomic<bool>,
}

// SAFETY: The C object is only passed to functions that lock for themselves; the pointer stands
// for an `Arc`, which may be sent where its value may be sent and shared.
unsafe impl<T: Send + Sync> Send for Notifier<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Notifier<T> {}

impl<T: Watch> Notifier<T> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// A notifier that is not registered yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::zeroed(),
            watcher: Atomic::new(null_mut()),
            live: Atomic::new(false),
        })
    }

    /// Registers for `length` bytes at `addr` of `mm`, until [`Notifier::remove`]; keeps `watcher`,
    /// which it is in, as long. To be called once. May sleep on the mmap lock. `ENOMEM`.
    pub(crate) fn insert(watcher: &Arc<T>, mm: &MmWithUser, addr: usize, length: usize) -> Result {
        let this = watcher.notifier();
        let pointer = Arc::as_ptr(watcher).cast_mut();
        if warn_on_once!(this.watcher.cmpxchg(null_mut(), pointer, Full).is_err()) {
            return Err(EBUSY);
        }
        // INVARIANT: The pointer owns this reference.
        core::mem::forget(watcher.clone());
        // SAFETY: The mm has users, an `Arc` pins, and the notifier is registered once. What the
        // callback uses is kept by the reference that `watcher` has from now on.
        to_result(unsafe {
            let (inner, mm) = (this.inner.get(), mm.as_raw());
            bindings::mmu_interval_notifier_insert(inner, mm, addr, length, &Self::OPS)
        })
        .inspect_err(|_| this.put_watcher())?;
        // INVARIANT: Just registered.
        this.live.store(true, Release);
        Ok(())
    }

    /// Drops the reference that `watcher` has.
    fn put_watcher(&self) {
        let watcher = self.watcher.xchg(null_mut(), Full);
        if !watcher.is_null() {
            // SAFETY: By the type's invariant, and nothing else has it any more.
            drop(unsafe { Arc::from_raw(watcher) });
        }
    }

    /// Ends the registration, if there is one: what is looked at is no longer confirmed, and no
    /// callback runs afterwards. The caller has a reference to what the notifier is in.
    ///
    /// `install`, which acquires the install lock, is held for a moment, so that a look from
    /// before is not confirmed after the last callback. Then waits for callbacks, so nothing that
    /// they take may be held.
    pub(crate) fn remove<'a, D: 'a>(&self, install: impl FnOnce() -> WriteGuard<'a, D>) {
        let was_live = {
            let _install = install();
            self.live.xchg(false, Full)
        };
        if was_live {
            // SAFETY: The notifier is registered, and only the caller that has made `live` false
            // gets here.
            unsafe { bindings::mmu_interval_notifier_remove(self.inner.get()) };
            self.put_watcher();
        }
    }

    /// # Safety
    ///
    /// Called by the notifier core with a registered notifier of this type.
    unsafe extern "C" fn invalidate(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        // SAFETY: `inner` is the first field of a `Notifier`, which is in a `T` in an `Arc`; the
        // reference that `watcher` has stays until the notifier has been removed, which waits for
        // this callback. The range is valid during the call.
        //
        // INVARIANT: The callback is running.
        let (watcher, event) = unsafe {
            let notifier = &*notifier.cast::<Self>();
            let event = Event {
                notifier,
                seq,
                start: (*range).start,
                end: (*range).end,
                ends: (*range).event == bindings::mmu_notifier_event_MMU_NOTIFY_RELEASE,
                blockable: bindings::address_space_helper_range_blockable(range),
            };
            (ArcBorrow::from_raw(notifier.watcher.load(Acquire)), event)
        };
        T::invalidate(watcher, &event)
    }

    /// Whether it watches.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Acquire)
    }

    /// Begins a look at the mm in which `watcher` watches. [`None`] where an invalidation may be
    /// under way there, until it has settled; and where the notifier does not watch any more.
    pub(crate) fn begin(watcher: &T) -> Option<Look<'_, T>> {
        let notifier = watcher.notifier();
        let seq = notifier.sequence(None)?;
        let is_settled = watcher.settled().includes(seq);
        is_settled.then_some(Look { notifier, seq })
    }

    /// Waits until nothing is under way in `mm`, in which `watcher` watches, that its notifier was
    /// called back for, or inserted into. No signal ends that.
    pub(crate) fn settle(watcher: &T, mm: &Mm) {
        if let Some(seq) = watcher.notifier().sequence(Some(mm)) {
            watcher.settled().note(seq);
        }
    }

    /// The present sequence; if an mm is given, the notifier's, once it has settled there.
    /// [`None`] where it does not watch any more.
    fn sequence(&self, settle: Option<&Mm>) -> Option<usize> {
        let inner = self.inner.get();
        // SAFETY: The notifier was inserted. The mm, without which only a field is read, is held
        // by the caller.
        self.is_live().then(|| unsafe {
            match settle {
                Some(_) => bindings::mmu_interval_read_begin(inner),
                None => bindings::address_space_helper_interval_seq(inner),
            }
        })
    }
}

/// What a callback is called with.
///
/// # Invariants
///
/// The notifier's callback is running, with this sequence number.
pub(crate) struct Event<'a, T> {
    notifier: &'a Notifier<T>,
    seq: usize,
    /// First address that the mm is about to map differently.
    pub(crate) start: usize,
    /// The address after the last.
    pub(crate) end: usize,
    /// Whether the mm ends: it has no users any more.
    pub(crate) ends: bool,
    /// Whether the callback may sleep.
    pub(crate) blockable: bool,
}

impl<T> Event<'_, T> {
    /// Has what was looked at so far no longer confirmed. The lock must be the one with which
    /// looks are confirmed.
    pub(crate) fn advance<D>(&self, _install: &mut WriteGuard<'_, D>) {
        // SAFETY: The callback is running with this sequence by the type's invariant; the lock
        // that is held for writing keeps readers out.
        unsafe {
            bindings::address_space_helper_interval_set_seq(self.notifier.inner.get(), self.seq)
        };
    }
}

/// What a look is at.
pub(crate) enum From<'a> {
    /// A VMA, which has the address, and all of which can be shown.
    Vma(&'a VmaReadGuard<'a>),
    /// Memory that its owner has lent: the VMA that has the page at this address, if that can be
    /// shown now. Other VMAs are not looked at, as if nothing were present there.
    Lent(usize, Locks),
}

/// The beginning of a look.
pub(crate) struct Look<'a, T> {
    notifier: &'a Notifier<T>,
    seq: usize,
}

/// What the mm has for one page.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The page frame, writable if the mm's own entry is.
    pub(crate) frame: Frame,
    /// The entry maps an aligned run of `1 << order` pages.
    pub(crate) order: u32,
}

impl<'a, T> Look<'a, T> {
    /// What is present from `addr` on, a page for each of `words`; never faults anything in and
    /// does no I/O. `from` is of the notifier's mm.
    ///
    /// Page tables are read directly, as HMM would, at a small part of its cost: its fixed cost
    /// alone is that of some hundred pages. HMM is asked about what is left, those of hugetlb; it
    /// wants the mmap lock, which is only tried.
    ///
    /// `EBUSY` where the mm was changing, `EFAULT` where nothing is mapped, `EAGAIN` where a lock
    /// is not available; of lent memory `EACCES` where it may not be read, `EINTR`.
    pub(crate) fn read(
        self,
        mm: &MmWithUser,
        from: From<'_>,
        addr: usize,
        words: &'a mut [MaybeUninit<usize>],
    ) -> Result<Seen<'a, T>> {
        let count = words.len();
        let first = words.as_mut_ptr().cast::<usize>();
        let page = match from {
            From::Vma(_) => None,
            From::Lent(page, _) => Some(page),
        };
        // SAFETY: The VMA's lock is held for reading, or the mm has users; there is room for
        // `count` words, all of which have been written then: by the helper, or 0.
        let (seen, words) = unsafe {
            let seen = match from {
                From::Vma(vma) => {
                    let vma = vma.as_ptr();
                    bindings::address_space_helper_read_page_table(vma, addr, first, count)
                }
                From::Lent(page, locks) => {
                    let (mm, wait) = (mm.as_raw(), locks == Locks::Wait);
                    let seen = bindings::address_space_helper_look_at_lent(
                        mm, page, addr, first, count, wait,
                    );
                    to_result(seen)?;
                    seen as bindings::address_space_seen
                }
            };
            if seen == NOTHING {
                first.write_bytes(0, count);
            }
            (seen, core::slice::from_raw_parts_mut(first, count))
        };
        if seen != NOTHING {
            let source = if seen == SINGLES {
                SeenBy::Singles
            } else {
                SeenBy::PageTable
            };
            return Ok(Seen {
                look: self,
                words,
                source,
            });
        }
        let _mmap_lock = mm.mmap_read_trylock().ok_or(EAGAIN)?;
        // Of what was lent the page alone: what is around it was not checked.
        let index = page.map_or(0, |page| (page - addr) / PAGE_SIZE);
        let pages = page.map_or(count, |_| 1);
        let source = match page {
            Some(_) if cfg!(CONFIG_PAGE_TABLE_CHECK) => SeenBy::HmmOfSingles,
            _ => SeenBy::Hmm,
        };
        let mut range = bindings::hmm_range {
            notifier: self.notifier.inner.get(),
            notifier_seq: self.seq,
            start: addr + index * PAGE_SIZE,
            end: addr + (index + pages) * PAGE_SIZE,
            hmm_pfns: words[index..].as_mut_ptr(),
            // No flags: report, do not fault.
            default_flags: 0,
            pfn_flags_mask: 0,
            dev_private_owner: core::ptr::null_mut(),
        };
        // SAFETY: The mmap lock is held for reading, `hmm_pfns` has room for the pages asked
        // for, and the notifier covers them.
        to_result(unsafe { bindings::hmm_range_fault(&mut range) })?;
        Ok(Seen {
            look: self,
            words,
            source,
        })
    }
}

const NOTHING: bindings::address_space_seen =
    bindings::address_space_seen_ADDRESS_SPACE_SEEN_NOTHING;
const SINGLES: bindings::address_space_seen =
    bindings::address_space_seen_ADDRESS_SPACE_SEEN_SINGLES;

/// Where something was seen, and so how it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SeenBy {
    /// A page table, single pages only: packed frames, or 0.
    Singles,
    /// A page table, with huge pages too.
    PageTable,
    /// HMM: as `hmm_range_fault()` has them.
    Hmm,
    /// The same, of which no entry is to be huge; see `may_be_huge` in `sys/page_table.c`.
    HmmOfSingles,
}

/// What was seen of pages that follow one another, which may be out of date.
///
/// # Invariants
///
/// The mm mapped the frames, with these rights, at some moment since the look began.
pub(crate) struct Seen<'a, T> {
    look: Look<'a, T>,
    /// A word each.
    words: &'a [usize],
    source: SeenBy,
}

impl<T> Seen<'_, T> {
    /// How many pages were looked at.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// What was seen of the page at `index`; [`None`] where nothing is present.
    pub(crate) fn at(&self, index: usize) -> Option<Entry> {
        let word = *self.words.get(index)?;
        match self.source {
            SeenBy::Hmm => return Entry::from_hmm(word),
            SeenBy::HmmOfSingles => {
                return Entry::from_hmm(word).map(|entry| Entry { order: 0, ..entry })
            }
            SeenBy::Singles | SeenBy::PageTable => (),
        }
        let order = if Frame::is_part_of_huge(word) {
            HUGE_ORDER
        } else {
            0
        };
        let frame = Frame::unpack(word)?;
        Some(Entry { frame, order })
    }

    /// What was seen as packed frames or 0, where all entries are for single pages.
    pub(crate) fn singles(&self) -> Option<&[usize]> {
        (self.source == SeenBy::Singles).then_some(self.words)
    }

    /// Whether it is still true; the install lock must be held.
    pub(crate) fn confirm<'g>(&'g self, _install: &'g impl Held) -> Option<Confirmed<'g, T>> {
        let notifier = self.look.notifier;
        // SAFETY: The notifier was inserted, or there would have been no look.
        let changed = unsafe {
            let inner = notifier.inner.get();
            bindings::address_space_helper_interval_read_retry(inner, self.look.seq)
        };
        // INVARIANT: If the sequence is the same, and the notifier still watches, no callback has
        // advanced it since the look began, and none can while the lock is held.
        (!changed && notifier.live.load(Acquire)).then_some(Confirmed(self))
    }
}

/// What was seen, and is still true.
///
/// # Invariants
///
/// The mm maps the frames, with these rights, as long as the install lock is held, which is for
/// the lifetime: a task that is about to unmap them must advance the notifier's sequence first.
pub(crate) struct Confirmed<'g, T>(&'g Seen<'g, T>);

impl<'g, T> Confirmed<'g, T> {
    /// What is confirmed.
    pub(crate) fn seen(&self) -> &'g Seen<'g, T> {
        self.0
    }
}

impl Entry {
    /// What HMM says of a page; [`None`] where nothing is present.
    fn from_hmm(pfn: usize) -> Option<Entry> {
        if pfn & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
            return None;
        }
        Some(Entry {
            frame: Frame {
                pfn: pfn & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS,
                writable: pfn & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0,
            },
            order: (pfn >> bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT) as u32 & 0x1f,
        })
    }
}
