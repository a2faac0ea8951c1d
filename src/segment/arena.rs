// SPDX-License-Identifier: GPL-2.0

//! The arena of an address space: the mm that no task uses, in which file
//! segments are mapped once.
//!
//! This file alone switches mms, credentials and memory cgroups. Mapping needs
//! the arena to be the current mm, so a kernel worker does it, as the caller: with
//! the caller's credentials, and charged to the arena's owner. Faulting a page in
//! needs no switch.
//!
//! Locks: the arena's mmap lock. It is never waited for while another mm's is
//! held; a page fault tries it, and where that fails lets its own go first.

use kernel::{
    cred::Credential,
    error::to_result,
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
    segment::{
        frames::HUGE_PAGES,
        mm_source, //
    },
    sys::{
        bindings,
        workers, //
    },
};

/// An mm of our own.
///
/// # Invariants
///
/// - No task runs on `mm`.
/// - `mm->owner` is `owner`, to which a reference is held, until drop sets it to
///   null. (The mm arrives with an owner that is about to exit, and nothing clears
///   that for an mm without tasks; the next charge would use it after free.)
pub(crate) struct Arena {
    mm: ARef<MmWithUser>,
    _owner: ARef<Task>,
}

impl Arena {
    /// A new, empty arena, what is touched in which is charged to the memory
    /// cgroup of the calling process, also after that has exited.
    pub(crate) fn new() -> Result<Arena> {
        let mm = mm_source::new_mm()?;
        let owner: ARef<Task> = current!().group_leader().into();
        // SAFETY: The mm is ours alone, and `owner` is kept as long as it.
        unsafe { bindings::address_space_helper_adopt_mm(mm.as_raw(), owner.as_ptr()) };
        // INVARIANT: Just set.
        let arena = Arena { mm, _owner: owner };
        // What exec had put there: the beginnings of a stack.
        //
        // SAFETY: A constant of the machine.
        arena.unmap(0, unsafe { bindings::address_space_helper_task_size() })?;
        Ok(arena)
    }

    /// The mm.
    pub(crate) fn mm(&self) -> &MmWithUser {
        &self.mm
    }

    /// Maps `length` bytes of a file from `offset`, shared, where there is room;
    /// returns the address. `prot` is as for mmap().
    ///
    /// All checks that mmap() makes are made as `cred`.
    pub(crate) fn map(
        &self,
        file: ARef<File>,
        cred: ARef<Credential>,
        offset: usize,
        length: usize,
        prot: usize,
    ) -> Result<usize> {
        self.run(
            What::Map {
                file,
                offset,
                length,
                prot,
            },
            Some(cred),
        )
    }

    /// Unmaps `length` bytes at `addr`.
    pub(crate) fn unmap(&self, addr: usize, length: usize) -> Result {
        self.run(What::Unmap { addr, length }, None).map(|_| ())
    }

    /// Whether the memory mapped at `addr` is of a kind that frames can be taken
    /// from: page cache, not device memory.
    pub(crate) fn has_pages(&self, addr: usize) -> bool {
        const ODD: usize = bindings::VM_IO | bindings::VM_PFNMAP | bindings::VM_MIXEDMAP;
        let guard = self.mm.mmap_read_lock();
        guard
            .vma_lookup(addr)
            .is_some_and(|vma| vma.flags() & ODD == 0)
    }

    /// Until it is dropped, what the current task allocates for the space is charged
    /// to the creator, whoever the task is: it may only be passing by.
    pub(crate) fn charge(&self) -> Charge {
        Charge::to(&self.mm)
    }

    /// Takes the mmap lock for reading if it can be had at once.
    pub(crate) fn try_read(&self) -> Option<MmapReadGuard<'_>> {
        self.mm.mmap_read_trylock()
    }

    /// Makes the page at `addr` present, writable if `write`. May wait for as long
    /// as the file takes, without holding the arena's lock meanwhile; a fatal
    /// signal ends the wait (`EINTR`). No mm's lock may be held.
    ///
    /// `EFAULT` where the file has no such page.
    pub(crate) fn fault_in(&self, addr: usize, write: bool) -> Result {
        let _charge = Charge::to(&self.mm);
        // SAFETY: The mm has users.
        to_result(unsafe {
            bindings::address_space_helper_mmap_read_lock_killable(self.mm.as_raw())
        })?;
        let mut unlocked = false;
        // SAFETY: The mmap lock is held for reading, and again on return.
        let ret = unsafe {
            bindings::fixup_user_fault(self.mm.as_raw(), addr, fault_flags(write), &mut unlocked)
        };
        // SAFETY: As above.
        unsafe { bindings::mmap_read_unlock(self.mm.as_raw()) };
        to_result(ret)
    }

    /// As [`Arena::fault_in`], with the arena's lock held throughout: for a fault
    /// that may not let its own lock go.
    pub(crate) fn fault_in_locked(
        &self,
        _held: &MmapReadGuard<'_>,
        addr: usize,
        write: bool,
    ) -> Result {
        let _charge = Charge::to(&self.mm);
        // SAFETY: The mmap lock is held for reading; without `unlocked` it is not
        // let go of.
        to_result(unsafe {
            bindings::fixup_user_fault(
                self.mm.as_raw(),
                addr,
                fault_flags(write),
                core::ptr::null_mut(),
            )
        })
    }

    /// Makes the page at `addr`, page `index` of `file`, present, if that is a matter of a
    /// page table entry: the file is memory, and the page is there. Then the page's
    /// neighbours may become present too, as with any fault for reading: so do as many
    /// before and, with the page itself, `after` as are in the same page table, if there
    /// is one, and as many as the kernel likes else. May be called with another mm's lock
    /// held: what it waits for is memory at most.
    ///
    /// Says whether it did.
    pub(crate) fn fault_in_resident(
        &self,
        file: &File,
        index: usize,
        addr: usize,
        before: usize,
        after: usize,
    ) -> bool {
        // SAFETY: The file is held.
        if !unsafe { bindings::address_space_helper_in_memory(file.as_ptr(), index) } {
            return false;
        }
        let Some(held) = self.try_read() else {
            return false;
        };
        let at = (addr >> PAGE_SHIFT) % HUGE_PAGES;
        // SAFETY: The mmap lock is held for reading; the pages lie in one mapping, by our
        // caller, and in one page table.
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
    fn run(&self, what: What, cred: Option<ARef<Credential>>) -> Result<usize> {
        let job = Arc::pin_init(
            pin_init!(Job {
                mm: self.mm.clone(),
                what,
                cred,
                result <- new_mutex!(Ok(0)),
                done <- Completion::new(),
                work <- new_work!("address_space::Job"),
            }),
            GFP_KERNEL,
        )?;
        // A new job cannot be queued already.
        let _ = workers::queue().enqueue(job.clone());
        job.done.wait_for_completion();
        let result = *job.result.lock();
        result
    }

    /// As [`Arena::unmap`], on a worker of ours, which needs no other.
    pub(crate) fn unmap_here(&self, addr: usize, length: usize) {
        let _current = Current::switch_to(&self.mm);
        // SAFETY: The current mm is the arena's. Fails only where a mapping would
        // have to be split beyond the limit; a segment is unmapped whole.
        unsafe { bindings::vm_munmap(addr, length) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: The mm is still ours; `owner` goes after it.
        unsafe { bindings::address_space_helper_disown_mm(self.mm.as_raw()) };
    }
}

fn fault_flags(write: bool) -> u32 {
    bindings::fault_flag_FAULT_FLAG_REMOTE
        | if write {
            bindings::fault_flag_FAULT_FLAG_WRITE
        } else {
            0
        }
}

enum What {
    Map {
        file: ARef<File>,
        offset: usize,
        length: usize,
        prot: usize,
    },
    Unmap {
        addr: usize,
        length: usize,
    },
}

/// Something to do on a worker.
#[pin_data]
struct Job {
    mm: ARef<MmWithUser>,
    what: What,
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
        let result = {
            let _current = Current::switch_to(&job.mm);
            let _charge = Charge::to(&job.mm);
            let _identity = job.cred.as_deref().map(Identity::assume);
            job.what.perform()
        };
        *job.result.lock() = result;
        job.done.complete_all();
    }
}

impl What {
    /// To be called with the arena as the current mm.
    fn perform(&self) -> Result<usize> {
        match self {
            What::Map {
                file,
                offset,
                length,
                prot,
            } => {
                // SAFETY: Acts on the current mm; the file is held.
                let addr = unsafe {
                    bindings::vm_mmap(
                        file.as_ptr(),
                        0,
                        *length,
                        *prot,
                        bindings::MAP_SHARED as usize,
                        *offset,
                    )
                };
                if addr as isize >= -(bindings::MAX_ERRNO as isize) && (addr as isize) < 0 {
                    return Err(Error::from_errno(addr as isize as c_int));
                }
                Ok(addr)
            }
            What::Unmap { addr, length } => {
                // SAFETY: Acts on the current mm.
                to_result(unsafe { bindings::vm_munmap(*addr, *length) }).map(|()| 0)
            }
        }
    }
}

/// The current mm of a kernel thread, changed for a while.
struct Current<'a>(&'a MmWithUser);

impl<'a> Current<'a> {
    /// To be called on a worker only.
    fn switch_to(mm: &'a MmWithUser) -> Self {
        // SAFETY: Workers are kernel threads and have no mm of their own; `mm` has
        // users for as long as it is borrowed.
        unsafe { bindings::kthread_use_mm(mm.as_raw()) };
        Current(mm)
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        // SAFETY: Undoes `switch_to`.
        unsafe { bindings::kthread_unuse_mm(self.0.as_raw()) };
    }
}

/// The credentials of the current task, changed for a while.
struct Identity<'a> {
    old: *const bindings::cred,
    _new: &'a Credential,
}

impl<'a> Identity<'a> {
    fn assume(cred: &'a Credential) -> Self {
        Identity {
            // SAFETY: `cred` outlives the override, since it is borrowed.
            old: unsafe { bindings::address_space_helper_override_creds(cred.as_ptr()) },
            _new: cred,
        }
    }
}

impl Drop for Identity<'_> {
    fn drop(&mut self) {
        // SAFETY: Puts back what `assume` found.
        unsafe { bindings::address_space_helper_revert_creds(self.old) };
    }
}

/// The memory cgroup that the current task charges, changed for a while.
pub(crate) struct Charge {
    old: *mut bindings::mem_cgroup,
    new: *mut bindings::mem_cgroup,
}

impl Charge {
    /// Charges the cgroup of the mm's owner: pages of the page cache, which the
    /// kernel would charge to whoever happens to fault, as well as shmem.
    pub(crate) fn to(mm: &MmWithUser) -> Self {
        // SAFETY: The mm's owner is alive or null by the arena's invariant; a
        // reference to the cgroup is returned, or null where there are none.
        let new = unsafe { bindings::address_space_helper_mm_memcg(mm.as_raw()) };
        Charge {
            // SAFETY: The reference is held until drop.
            old: unsafe { bindings::address_space_helper_set_active_memcg(new) },
            new,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: Puts back what `to` found, and the reference that it took.
        unsafe {
            bindings::address_space_helper_set_active_memcg(self.old);
            bindings::address_space_helper_mem_cgroup_put(self.new);
        }
    }
}
