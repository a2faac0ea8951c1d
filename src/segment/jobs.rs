// SPDX-License-Identifier: GPL-2.0

//! What must be done with the arena as the current mm: mapping and unmapping. A worker does it, as
//! the caller: with the caller's credentials, and charged to the arena's owner.
//!
//! An arena has one job at a time. All of them want its mmap lock anyhow, and so one whose files
//! take their time to be mapped keeps one worker from others, not all that there may be. Who waits,
//! for the turn or for the job, can be killed: a job that is under way then is undone when it is
//! done.
//!
//! No two mappings touch: to merge one with the next, the kernel would wait, with the mmap lock
//! held, for whoever has a page of it faulted in.
//!
//! Locks: a mutex, under which nothing is done but to look and to note.

use kernel::{
    cred::Credential,
    fs::File,
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        new_condvar,
        new_mutex,
        Arc,
        CondVar,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

use crate::sys::{
    bindings,
    mm::{
        self,
        CurrentMapping, //
    },
    task::{
        self,
        MemCgroup, //
    },
    wait::wait_killable,
    warn::warn_on_once,
    workers, //
};

/// What the one job is at.
enum State {
    /// There is none.
    Idle,
    Running,
    /// Its caller has not looked yet.
    Done(Result<usize>),
    /// Nobody waits for it any more.
    Abandoned,
}

/// The jobs of an arena.
#[pin_data]
pub(crate) struct Jobs {
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
    /// Whether the files may take their time.
    slow: bool,
}

/// A file to be mapped, shared.
pub(crate) struct Map {
    pub(crate) file: ARef<File>,
    /// All checks that mmap() makes are made as this.
    pub(crate) cred: ARef<Credential>,
    /// Bytes.
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// A multiple of this in the file is one in memory.
    pub(crate) align: usize,
    /// As for mmap().
    pub(crate) prot: u32,
}

impl Jobs {
    /// None yet, of an arena for files that may take their time if `slow`.
    pub(crate) fn new(slow: bool) -> Result<Arc<Jobs>> {
        Arc::pin_init(
            pin_init!(Jobs {
                state <- new_mutex!(State::Idle, "Jobs::state"),
                changed <- new_condvar!("Jobs::changed"),
                slow,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Maps a file; returns the address. The errors are those of mmap(), and `EINTR`.
    pub(crate) fn map(self: &Arc<Self>, mm: &MmWithUser, what: Map) -> Result<usize> {
        self.run(Job::new(self, mm, Kind::Map(what))?)
    }

    /// Unmaps `length` bytes at `addr`.
    pub(crate) fn unmap(
        self: &Arc<Self>,
        mm: &MmWithUser,
        addr: usize,
        length: usize,
    ) -> Result<usize> {
        self.run(Job::new(self, mm, Kind::Unmap(addr, length))?)
    }

    /// Has a worker do a job, when it is its turn, and waits.
    fn run(&self, job: Arc<Job>) -> Result<usize> {
        let is_idle = |state: &mut State| match state {
            State::Idle => {
                *state = State::Running;
                Some(())
            }
            _ => None,
        };
        wait_killable(&self.state, &self.changed, is_idle)?;
        let queue = match job.kind {
            // Before anything is mapped.
            Kind::Unmap(0, _) => workers::jobs(),
            _ if self.slow => workers::files(),
            _ => workers::jobs(),
        };
        if warn_on_once!(queue.enqueue(job).is_err()) {
            // A new job is queued already: nothing would ever complete it.
            return Err(EBUSY);
        }
        let is_done = |state: &mut State| match state {
            State::Done(result) => {
                let result = *result;
                *state = State::Idle;
                Some(result)
            }
            _ => None,
        };
        let result = match wait_killable(&self.state, &self.changed, is_done) {
            Ok(result) => result,
            Err(error) => {
                let mut state = self.state.lock();
                match is_done(&mut state) {
                    Some(result) => result,
                    None => {
                        *state = State::Abandoned;
                        return Err(error);
                    }
                }
            }
        };
        self.changed.notify_all();
        result
    }
}

enum Kind {
    Map(Map),
    /// Address and length.
    Unmap(usize, usize),
}

/// Something to do on a worker.
#[pin_data]
struct Job {
    jobs: Arc<Jobs>,
    mm: ARef<MmWithUser>,
    kind: Kind,
    #[pin]
    work: Work<Job>,
}

impl_has_work! {
    impl HasWork<Self> for Job { self.work }
}

impl WorkItem for Job {
    type Pointer = Arc<Job>;

    fn run(job: Arc<Job>) {
        task::with_mm(&job.mm, || {
            let result = MemCgroup::of(Some(&job.mm)).charge(|| job.kind.perform());
            let mut state = job.jobs.state.lock();
            if !matches!(*state, State::Abandoned) {
                *state = State::Done(result);
                return;
            }
            drop(state);
            if let (Kind::Map(what), Ok(addr)) = (&job.kind, result) {
                drop(CurrentMapping::adopt(addr, what.length));
            }
            *job.jobs.state.lock() = State::Idle;
        });
        job.jobs.changed.notify_all();
    }
}

impl Job {
    fn new(jobs: &Arc<Jobs>, mm: &MmWithUser, kind: Kind) -> Result<Arc<Job>> {
        let (jobs, mm) = (jobs.clone(), mm.into());
        Arc::pin_init(
            pin_init!(Job {
                jobs,
                mm,
                kind,
                work <- new_work!("address_space::Job"),
            }),
            GFP_KERNEL,
        )
    }
}

impl Kind {
    /// To be called with the arena as the current mm, in which nothing else is mapped meanwhile.
    fn perform(&self) -> Result<usize> {
        match self {
            Kind::Map(what) => task::with_cred(&what.cred, || what.perform()),
            Kind::Unmap(addr, length) => CurrentMapping::adopt(*addr, *length).unmap().map(|()| 0),
        }
    }
}

impl Map {
    fn perform(&self) -> Result<usize> {
        // With a page before and one after.
        let room = mm::find_room(self.length + self.align + 2 * PAGE_SIZE)? + PAGE_SIZE;
        let addr = room.next_multiple_of(self.align) + self.offset % self.align;
        let addr = match addr - self.align {
            lower if lower >= room => lower,
            _ => addr,
        };
        CurrentMapping::new(
            Some(&self.file),
            addr,
            self.offset,
            self.length,
            self.prot,
            bindings::MAP_SHARED | bindings::MAP_FIXED_NOREPLACE,
        )
        .map(CurrentMapping::keep)
    }
}
