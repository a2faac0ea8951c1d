// SPDX-License-Identifier: GPL-2.0

//! What must be done with the arena as the current mm: mapping and unmapping. A worker does it, as
//! the caller: with the caller's credentials, and charged to the arena's owner.
//!
//! An arena has one job at a time. All of them want its mmap lock anyhow, and so one whose files
//! take their time to be mapped keeps one worker from others, not all that there may be. Who waits,
//! for the turn or for the job, can be killed: a job that is under way then is undone when it is
//! done, and what was to be unmapped is left to be unmapped when there is nothing else to do.
//!
//! No two mappings touch: to merge one with the next, the kernel would wait, with the mmap lock
//! held, for whoever has a page of it faulted in.
//!
//! Locks: a mutex, under which nothing is done but to look and to note.

use kernel::{
    cred::Credential,
    fs::File,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        List,
        ListArc,
        ListLinks,
        TryNewListArc, //
    },
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

/// What the one job is at, and what is to be done besides.
struct Turn {
    state: State,
    /// Jobs that nobody waits for.
    left: List<Job>,
}

/// The jobs of an arena.
#[pin_data]
pub(crate) struct Jobs {
    #[pin]
    turn: Mutex<Turn>,
    /// Notified when there is no job. Of those who wait for their turn one is woken: a thousand may
    /// wait, and all but one would wait again.
    #[pin]
    idle: CondVar,
    /// Notified when a job is done, for which its caller waits.
    #[pin]
    done: CondVar,
    /// Whether the files may take their time.
    slow: bool,
}

/// A file to be mapped.
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
    /// Whether what is written is written to copies.
    pub(crate) private: bool,
}

impl Jobs {
    /// None yet, of an arena for files that may take their time if `slow`.
    pub(crate) fn new(slow: bool) -> Result<Arc<Jobs>> {
        Arc::pin_init(
            pin_init!(Jobs {
                turn <- new_mutex!(
                    Turn {
                        state: State::Idle,
                        left: List::new(),
                    },
                    "Jobs::turn"
                ),
                idle <- new_condvar!("Jobs::idle"),
                done <- new_condvar!("Jobs::done"),
                slow,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Maps a file; returns the address. The errors are those of mmap(), and `EINTR`.
    pub(crate) fn map(self: &Arc<Self>, mm: &MmWithUser, what: Map) -> Result<usize> {
        self.run(Job::new(self, mm, Kind::Map(what), self.slow)?)
    }

    /// Unmaps `length` bytes at `addr`: later, where a fatal signal ends the wait with `EINTR`.
    pub(crate) fn unmap(
        self: &Arc<Self>,
        mm: &MmWithUser,
        addr: usize,
        length: usize,
    ) -> Result<usize> {
        self.run(Job::new(self, mm, Kind::Unmap(addr, length), self.slow)?)
    }

    /// Takes out of a new arena, up to `end`, what exec had put there: the beginnings of a stack.
    pub(crate) fn clear(self: &Arc<Self>, mm: &MmWithUser, end: usize) -> Result {
        self.run(Job::new(self, mm, Kind::Unmap(0, end), false)?)?;
        Ok(())
    }

    /// A job that takes down all there is up to `end`, to be left at the end of the arena.
    pub(crate) fn take_down(self: &Arc<Self>, mm: &MmWithUser, end: usize) -> Result<Arc<Job>> {
        Job::new(self, mm, Kind::Unmap(0, end), self.slow)
    }

    /// Has a worker do a job, when it is its turn, and waits.
    fn run(&self, job: Arc<Job>) -> Result<usize> {
        let is_idle = |turn: &mut Turn| match turn.state {
            State::Idle => {
                turn.state = State::Running;
                Some(())
            }
            _ => None,
        };
        if let Err(error) = wait_killable(&self.turn, &self.idle, is_idle) {
            match job.kind {
                Kind::Unmap(..) => self.leave(job),
                // It may have been woken for its turn, which is the next one's then.
                Kind::Map(_) => self.go_on(),
            }
            return Err(error);
        }
        self.start(job);
        let is_done = |turn: &mut Turn| match turn.state {
            State::Done(result) => {
                turn.state = State::Idle;
                Some(result)
            }
            _ => None,
        };
        let result = match wait_killable(&self.turn, &self.done, is_done) {
            Ok(result) => result,
            Err(error) => {
                let mut turn = self.turn.lock();
                match is_done(&mut turn) {
                    Some(result) => result,
                    None => {
                        turn.state = State::Abandoned;
                        return Err(error);
                    }
                }
            }
        };
        self.go_on();
        result
    }

    /// Has a job done, for which nobody waits.
    pub(crate) fn leave(&self, job: Arc<Job>) {
        if let Ok(job) = ListArc::try_from_arc(job) {
            self.turn.lock().left.push_back(job);
        }
        self.go_on();
    }

    /// Something has become of the turn, or of what was left: whoever it is for hears of it.
    fn go_on(&self) {
        let mut turn = self.turn.lock();
        match turn.state {
            State::Idle => match turn.left.pop_front() {
                Some(job) => {
                    turn.state = State::Abandoned;
                    drop(turn);
                    self.start(job.into_arc());
                }
                None => self.idle.notify_one(),
            },
            State::Done(_) => self.done.notify_one(),
            State::Running | State::Abandoned => (),
        }
    }

    /// Queues the job whose turn it is.
    fn start(&self, job: Arc<Job>) {
        let queue = match job.slow {
            true => workers::files(),
            false => workers::jobs(),
        };
        // An error would say that it is queued already, which a job is but once.
        let _ = warn_on_once!(queue.enqueue(job).is_err());
    }
}

enum Kind {
    Map(Map),
    /// Address and length.
    Unmap(usize, usize),
}

/// Something to do on a worker.
#[pin_data]
pub(crate) struct Job {
    jobs: Arc<Jobs>,
    mm: ARef<MmWithUser>,
    kind: Kind,
    /// Whether a file may take its time for it.
    slow: bool,
    #[pin]
    work: Work<Job>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
}

impl_has_work! {
    impl HasWork<Self> for Job { self.work }
}
impl_list_arc_safe! {
    impl ListArcSafe<0> for Job { tracked_by tracker: AtomicTracker; }
}
impl_list_item! {
    impl ListItem<0> for Job { using ListLinks { self.links }; }
}

impl WorkItem for Job {
    type Pointer = Arc<Job>;

    fn run(job: Arc<Job>) {
        task::with_mm(&job.mm, || {
            let result = MemCgroup::of(Some(&job.mm)).charge(|| job.kind.perform());
            let mut turn = job.jobs.turn.lock();
            if !matches!(turn.state, State::Abandoned) {
                turn.state = State::Done(result);
                return;
            }
            drop(turn);
            if let (Kind::Map(what), Ok(addr)) = (&job.kind, result) {
                drop(CurrentMapping::adopt(addr, what.length));
            }
            job.jobs.turn.lock().state = State::Idle;
        });
        job.jobs.go_on();
    }
}

impl Job {
    fn new(jobs: &Arc<Jobs>, mm: &MmWithUser, kind: Kind, slow: bool) -> Result<Arc<Job>> {
        let (jobs, mm) = (jobs.clone(), mm.into());
        Arc::pin_init(
            pin_init!(Job {
                jobs,
                mm,
                kind,
                slow,
                work <- new_work!("address_space::Job"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
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
        let around = self.align + 2 * PAGE_SIZE;
        let room = self.length.checked_add(around).ok_or(ENOMEM)?;
        let room = mm::find_room(room)? + PAGE_SIZE;
        let addr = room.next_multiple_of(self.align) + self.offset % self.align;
        let addr = match addr - self.align {
            lower if lower >= room => lower,
            _ => addr,
        };
        let sharing = match self.private {
            true => bindings::MAP_PRIVATE,
            false => bindings::MAP_SHARED,
        };
        CurrentMapping::new(
            Some(&self.file),
            addr,
            self.offset,
            self.length,
            self.prot,
            sharing | bindings::MAP_FIXED_NOREPLACE,
        )
        .map(CurrentMapping::keep)
    }
}
