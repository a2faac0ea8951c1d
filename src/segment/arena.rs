// SPDX-License-Identifier: GPL-2.0

//! The arena of an address space: the mm that no task uses, in which file segments are mapped
//! once.
//!
//! Mapping needs the arena to be the current mm, so a kernel worker does it, as the caller: with
//! the caller's credentials, and charged to the arena's owner. Faulting a page in needs no
//! switch.
//!
//! Locks: the arena's mmap lock. It is never waited for while another mm's is held; a page fault
//! tries it, and where that fails releases its own first.

use kernel::{
    cred::Credential,
    fs::File,
    mm::{
        MmWithUser,
        MmapReadGuard, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        new_mutex,
        Arc,
        Completion,
        Mutex, //
    },
    task::Task,
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

use crate::{
    layout::FilePage,
    segment::{
        frames::HUGE_PAGES,
        mm_source, //
    },
    sys::{
        bindings,
        file,
        mm::{
            self,
            CurrentMapping, //
        },
        task::{
            self,
            MemCgroup, //
        },
        warn::warn_on_once,
        workers, //
    },
};

/// An mm of the module's own.
///
/// # Invariants
///
/// - No task runs on `mm`.
/// - `mm->owner` is `owner`, to which a reference is held, until drop sets it to null. (The mm
///   arrives with an owner that is about to exit, and nothing clears that for an mm without
///   tasks; the next charge would use it after free.)
pub(crate) struct Arena {
    mm: ARef<MmWithUser>,
    _owner: ARef<Task>,
}

impl Arena {
    /// A new, empty arena. What is touched in it is charged to the memory cgroup of the calling
    /// process, also after that has exited.
    pub(crate) fn new() -> Result<Arena> {
        let mm = mm_source::new_mm()?;
        let owner: ARef<Task> = current!().group_leader().into();
        // SAFETY: Nothing else has the mm, and `owner` is kept as long as it.
        let end = unsafe {
            bindings::address_space_helper_adopt_mm(mm.as_raw(), owner.as_ptr());
            bindings::address_space_helper_task_size()
        };
        // INVARIANT: Just set.
        let arena = Arena { mm, _owner: owner };
        // What exec had put there: the beginnings of a stack.
        arena.run(JobKind::Unmap(0, end), None)?;
        Ok(arena)
    }

    /// The mm.
    pub(crate) fn mm(&self) -> &MmWithUser {
        &self.mm
    }

    /// Maps `length` bytes of a file from `offset`, shared, where there is room; returns the
    /// address. `prot` is as for mmap(), and so are the errors.
    ///
    /// All checks that mmap() makes are made as `cred`.
    pub(crate) fn map(
        &self,
        file: ARef<File>,
        cred: ARef<Credential>,
        offset: usize,
        length: usize,
        prot: u32,
    ) -> Result<usize> {
        self.run(
            JobKind::Map {
                file,
                offset,
                length,
                prot,
            },
            Some(cred),
        )
    }

    /// Unmaps `length` bytes at `addr`. Where memory is lacking even for that, they stay, and go
    /// with the arena.
    pub(crate) fn unmap(&self, addr: usize, length: usize) {
        let _ = self.run(JobKind::Unmap(addr, length), None);
    }

    /// As [`Arena::unmap`], on one of the module's workers, which needs no other.
    pub(crate) fn unmap_here(&self, addr: usize, length: usize) {
        task::with_mm(&self.mm, || drop(CurrentMapping::adopt(addr, length)));
    }

    /// Whether the memory mapped at `addr` is of a kind that frames can be taken from: page
    /// cache, not device memory.
    pub(crate) fn has_pages(&self, addr: usize) -> bool {
        const ODD: usize = bindings::VM_IO | bindings::VM_PFNMAP | bindings::VM_MIXEDMAP;
        let guard = self.mm.mmap_read_lock();
        guard
            .vma_lookup(addr)
            .is_some_and(|vma| vma.flags() & ODD == 0)
    }

    /// Runs `f` so that what it allocates for the space is charged to the creator, whichever task
    /// it is that runs it: it may only be passing by.
    pub(crate) fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        MemCgroup::of(Some(&self.mm)).charge(f)
    }

    /// Acquires the mmap lock for reading if it is available at once.
    pub(crate) fn try_read(&self) -> Option<MmapReadGuard<'_>> {
        self.mm.mmap_read_trylock()
    }

    /// Makes the page at `addr` present, writable if `write`. May wait for as long as the file
    /// takes, without holding the arena's lock meanwhile; a fatal signal ends the wait
    /// (`EINTR`). No mm's lock may be held.
    ///
    /// `EFAULT` where the file has no such page.
    pub(crate) fn fault_in(&self, addr: usize, write: bool) -> Result {
        self.charge(|| mm::fault_in(&self.mm, addr, write))
    }

    /// As [`Arena::fault_in`], with the arena's lock held throughout: for a fault that may not
    /// release its own lock.
    pub(crate) fn fault_in_locked(
        &self,
        held: &MmapReadGuard<'_>,
        addr: usize,
        write: bool,
    ) -> Result {
        self.charge(|| mm::fault_in_locked(&self.mm, held, addr, write))
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
        let Some(held) = self.try_read() else {
            return false;
        };
        let at = (addr >> PAGE_SHIFT) % HUGE_PAGES;
        // SAFETY: The mmap lock is held for reading; the helper keeps to one mapping and one page
        // table.
        let mapped = unsafe {
            bindings::address_space_helper_map_pages(
                self.mm.as_raw(),
                addr,
                before.min(at),
                after.min(HUGE_PAGES - at),
            )
        };
        mapped || self.fault_in_locked(&held, addr, false).is_ok()
    }

    /// Has a worker do something with the arena as its current mm, and waits.
    fn run(&self, kind: JobKind, cred: Option<ARef<Credential>>) -> Result<usize> {
        let job = Arc::pin_init(
            pin_init!(Job {
                mm: self.mm.clone(),
                kind,
                cred,
                result <- new_mutex!(Ok(0)),
                done <- Completion::new(),
                work <- new_work!("address_space::Job"),
            }),
            GFP_KERNEL,
        )?;
        let queued = workers::queue().enqueue(job.clone());
        if warn_on_once!(queued.is_err()) {
            // A new job is queued already: nothing would ever complete it.
            return Err(EBUSY);
        }
        job.done.wait_for_completion();
        let result = *job.result.lock();
        result
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: The mm is still this arena's alone; `owner` goes after it.
        unsafe { bindings::address_space_helper_disown_mm(self.mm.as_raw()) };
    }
}

enum JobKind {
    Map {
        file: ARef<File>,
        offset: usize,
        length: usize,
        prot: u32,
    },
    /// Address and length.
    Unmap(usize, usize),
}

/// Something to do on a worker.
#[pin_data]
struct Job {
    mm: ARef<MmWithUser>,
    kind: JobKind,
    cred: Option<ARef<Credential>>,
    #[pin]
    result: Mutex<Result<usize>>,
    #[pin]
    done: Completion,
    #[pin]
    work: Work<Job>,
}

impl_has_work! {
    impl HasWork<Self> for Job { self.work }
}

impl WorkItem for Job {
    type Pointer = Arc<Job>;

    fn run(job: Arc<Job>) {
        let perform = || match &job.cred {
            Some(cred) => task::with_cred(cred, || job.kind.perform()),
            None => job.kind.perform(),
        };
        let result = task::with_mm(&job.mm, || MemCgroup::of(Some(&job.mm)).charge(perform));
        *job.result.lock() = result;
        job.done.complete_all();
    }
}

impl JobKind {
    /// To be called with the arena as the current mm.
    fn perform(&self) -> Result<usize> {
        match self {
            JobKind::Map {
                file,
                offset,
                length,
                prot,
            } => {
                let shared = bindings::MAP_SHARED;
                CurrentMapping::new(Some(file), *offset, *length, *prot, shared)
                    .map(CurrentMapping::keep)
            }
            JobKind::Unmap(addr, length) => {
                CurrentMapping::adopt(*addr, *length).unmap().map(|()| 0)
            }
        }
    }
}
