// SPDX-License-Identifier: GPL-2.0

//! The arena of an address space: the mm that no task uses, in which file segments are mapped
//! once.
//!
//! Mapping needs the arena to be the current mm, so a worker does it (`jobs.rs`). Faulting a page
//! in needs no switch.
//!
//! Locks: the arena's mmap lock, and the locks of its VMAs. They are never waited for while another
//! mm's is held; a page fault tries them, and where that fails releases its own first. The mmap
//! lock is not held while a file is waited for, but by a file that takes its time to be mapped or
//! unmapped: so faults do without, and `arenas.rs` keeps such files apart.

use kernel::{
    cred::Credential,
    fs::File,
    mm::{
        MmWithUser,
        VmaReadGuard, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    task::Task,
    time::{
        delay::fsleep,
        Delta, //
    },
};

use crate::{
    layout::FilePage,
    segment::{
        attendant::Attendant,
        frame::HUGE_PAGES,
        jobs::{
            Job,
            Jobs,
            Map, //
        },
        mm_source,
        settled::Settled, //
    },
    sys::{
        bindings,
        file,
        mm::{
            self,
            CurrentMapping,
            Locks,
            NoPage, //
        },
        task::{
            self,
            MemCgroup, //
        },
        wait::nap, //
    },
};

/// How long to sleep before a lock is tried again.
const NAP: Delta = Delta::from_micros(50);
/// How often that is done where somebody else waits for the caller.
const TRIES: usize = 200;

/// Where huge pages can begin.
const HUGE_SIZE: usize = HUGE_PAGES * PAGE_SIZE;

/// An mm of the module's own.
///
/// # Invariants
///
/// - No task runs on `mm`.
/// - `mm->owner` is `owner`, to which a reference is held, until drop sets it to null. (The mm
///   arrives with an owner that is about to exit, and nothing clears that for an mm without
///   tasks; the next charge would use it after free.)
#[pin_data(PinnedDrop)]
pub(crate) struct Arena {
    mm: ARef<MmWithUser>,
    /// Of its notifiers, those of the segments.
    settled: Settled,
    owner: ARef<Task>,
    jobs: Arc<Jobs>,
    /// Of an arena for files that may take their time: what is done when it is dropped, by a worker
    /// and not by whoever drops it.
    take_down: Option<Arc<Job>>,
    /// Of such an arena: who does what is due for its segments.
    attendant: Option<Arc<Attendant>>,
}

impl Arena {
    /// A new, empty arena. What is touched in it is charged to the memory cgroup of the calling
    /// process, also after that has exited.
    pub(crate) fn new() -> Result<Arc<Arena>> {
        let current = current!();
        let owner = current.group_leader().into();
        Self::make(owner, MemCgroup::of(current.mm()), false)
    }

    /// The process that made it, as the current task's PID namespace numbers it; 0 if it is gone.
    pub(crate) fn creator(&self) -> i32 {
        self.owner.tgid_nr_ns(None)
    }

    /// Another one of the same owner, for files that may take their time.
    pub(super) fn new_slow(&self) -> Result<Arc<Arena>> {
        Self::make(self.owner.clone(), MemCgroup::of(Some(&self.mm)), true)
    }

    fn make(owner: ARef<Task>, payer: MemCgroup, slow: bool) -> Result<Arc<Arena>> {
        let mm = mm_source::new_mm(payer)?;
        let jobs = Jobs::new(slow)?;
        // SAFETY: Nothing else has the mm, and `owner` is kept as long as it.
        unsafe { bindings::address_space_helper_adopt_mm(mm.as_raw(), owner.as_ptr()) };
        let end = mm::task_size();
        let (take_down, attendant) = match slow {
            true => (Some(jobs.take_down(&mm, end)?), Some(Attendant::new()?)),
            false => (None, None),
        };
        // INVARIANT: Just set; where this fails, nothing has used the owner.
        let arena = Arc::pin_init(
            pin_init!(Arena {
                mm,
                settled: Settled::new(),
                owner,
                jobs,
                take_down,
                attendant,
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        // There is an arena already: where a signal ends the wait, the worker still uses the mm,
        // and to drop the arena disowns it.
        arena.jobs.clear(&arena.mm, end)?;
        // With no VMA left: for those the kernel asks whether a signal is pending.
        mm::prepare_notifiers(&arena.mm)?;
        Ok(arena)
    }

    /// Whether it is for files that may take their time.
    pub(crate) fn is_slow(&self) -> bool {
        self.take_down.is_some()
    }

    /// Who does what is due for its segments, if it is for such files.
    pub(super) fn attendant(&self) -> Option<&Arc<Attendant>> {
        self.attendant.as_ref()
    }

    /// The mm.
    pub(crate) fn mm(&self) -> &MmWithUser {
        &self.mm
    }

    /// What is known of the mm's notifiers.
    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Maps `length` bytes of a file from `offset`, where there is room; returns the address.
    /// `prot` is as for mmap(), and so are the errors; `EINTR`: a fatal signal came. What is
    /// written is written to the file, or to copies if it is `private`.
    ///
    /// All checks that mmap() makes are made as `cred`.
    pub(crate) fn map(
        &self,
        file: ARef<File>,
        cred: ARef<Credential>,
        offset: usize,
        length: usize,
        prot: u32,
        private: bool,
    ) -> Result<usize> {
        let align = match file::huge_page_size(&file) {
            0 if length < HUGE_SIZE => PAGE_SIZE,
            0 => HUGE_SIZE,
            size => size,
        };
        let what = Map {
            file,
            cred,
            offset,
            length,
            align,
            prot,
            private,
        };
        self.jobs.map(&self.mm, what)
    }

    /// Unmaps `length` bytes at `addr`, which [`Arena::map`] has mapped; later, where a fatal
    /// signal ends the wait. Where memory is lacking even for that, they stay, and go with the
    /// arena.
    pub(crate) fn unmap(&self, addr: usize, length: usize) {
        let _ = self.jobs.unmap(&self.mm, addr, length);
    }

    /// Has nothing present in `length` bytes at `addr`, which are of one mapping: copies go, and
    /// what is of the file is mapped again when it is touched. Says whether that could be done,
    /// which it can unless the VMA's lock is not available for long: nobody holds it for writing.
    /// Calls the notifiers of what is there. (Of huge pages all stays mapped.)
    ///
    /// The mmap lock is not waited for: that is held for as long as a file takes to be mapped.
    pub(crate) fn zap(&self, addr: usize, length: usize) -> bool {
        for _ in 0..TRIES {
            if mm::zap(&self.mm, addr, length) {
                return true;
            }
            fsleep(NAP);
        }
        false
    }

    /// How many pages there are in memory that are copies of its own.
    pub(crate) fn copies(&self) -> usize {
        mm::anonymous_pages(&self.mm)
    }

    /// How many pages it shows that are in memory, but those of hugetlb.
    pub(crate) fn in_memory(&self) -> usize {
        mm::pages_in_memory(&self.mm)
    }

    /// As [`Arena::unmap`], on one of the module's workers, which needs no other.
    pub(crate) fn unmap_here(&self, addr: usize, length: usize) {
        task::with_mm(&self.mm, || drop(CurrentMapping::adopt(addr, length)));
    }

    /// Whether the memory mapped at `addr` is of a kind that frames can be taken from: page
    /// cache, not device memory. `EINTR`.
    pub(crate) fn has_pages(&self, addr: usize) -> Result<bool> {
        const ODD: usize = bindings::VM_IO | bindings::VM_PFNMAP | bindings::VM_MIXEDMAP;
        loop {
            // Not under the mmap lock, which nothing ends the wait for.
            if let Some(vma) = self.try_lock_vma(addr) {
                return Ok(vma.flags() & ODD == 0);
            }
            nap(NAP)?;
        }
    }

    /// Runs `f` so that what it allocates for the space is charged to the creator, whichever task
    /// it is that runs it: it may only be passing by.
    pub(crate) fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        MemCgroup::of(Some(&self.mm)).charge(f)
    }

    /// Acquires the lock of the VMA that has `addr` if it is available at once.
    ///
    /// Not the mmap lock: that is held for as long as a file takes to be mapped.
    pub(crate) fn try_lock_vma(&self, addr: usize) -> Option<VmaReadGuard<'_>> {
        self.mm.lock_vma_under_rcu(addr)
    }

    /// Makes the page at `addr` present, writable if `write`. May wait for as long as the file
    /// takes, so the segment must be pinned; see [`mm::fault_in`].
    pub(crate) fn fault_in(&self, addr: usize, write: bool, locks: Locks) -> Result<(), NoPage> {
        self.charge(|| mm::fault_in(&self.mm, addr, write, locks))
    }

    /// Maps the page at `addr`, which is page `page` of `file`, if that is a matter of a page table
    /// entry: the file is memory, and the page is there. The page's neighbours may be mapped
    /// too, as with any fault for reading: `before` pages before it and, with the page itself,
    /// `after`, as far as they are in the same page table if there is one; as many as the kernel
    /// likes if not. May be called with another mm's lock held: what it waits for is memory at
    /// most.
    ///
    /// Says whether it did.
    pub(crate) fn map_resident(
        &self,
        file: &File,
        page: FilePage,
        addr: usize,
        before: usize,
        after: usize,
    ) -> bool {
        if !file::is_resident(file, page.get() as usize) {
            return false;
        }
        let Some(vma) = self.try_lock_vma(addr) else {
            return false;
        };
        let at = (addr >> PAGE_SHIFT) % HUGE_PAGES;
        // SAFETY: The VMA's lock is held; the helper keeps to one mapping and one page table.
        let mapped = unsafe {
            bindings::address_space_helper_map_pages(
                vma.as_ptr(),
                addr,
                before.min(at),
                after.min(HUGE_PAGES - at),
            )
        };
        drop(vma);
        mapped || self.fault_in(addr, false, Locks::Try).is_ok()
    }
}

#[pinned_drop]
impl PinnedDrop for Arena {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The mm is still this arena's alone; `owner` goes after it.
        unsafe { bindings::address_space_helper_disown_mm(self.mm.as_raw()) };
        // Before the mm is put, which would have to wait for the files.
        let this = self.project();
        if let Some(job) = this.take_down.take() {
            this.jobs.leave(job);
        }
    }
}
