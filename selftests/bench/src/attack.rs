// SPDX-License-Identifier: GPL-2.0

//! What a process without privileges can do to delay others that use the same memory: it
//! enters the kernel there again and again, in tasks that then do not run, since they have
//! little weight on a CPU that is busy, or since they are stopped.

use std::convert::Infallible;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::channel::Channel;
use rig::plain::Plain;
use rig::process::end_with_parent;
use rustix::process::{
    Gid, Pid, Signal, Uid, WaitOptions, getpid, getppid, kill_process, nice, wait, waitpid,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use serde::{Deserialize, Serialize};

use crate::group::{Group, join};
use crate::memory::{PAGE, Random, Touch, touch};

/// The argument that makes a process of this program an attacker.
pub const ARGUMENT: &str = "attacker";

/// Pages of the memory that is attacked. After them there are as many pages of nothing: a
/// hole, or what is beyond the end of the file.
pub const PAGES: usize = 64;
/// What is mapped to get at both, in bytes.
pub const SPAN: usize = 2 * PAGES * PAGE;
/// The page that the owner removes and brings back.
pub const CHANGING: usize = 0;

/// The CPU of the attackers. What they attack runs on another one.
const CPU: usize = 1;
/// Tasks that have little weight.
const TASKS: usize = 16;
/// Busy loops of ordinary priority, which take the CPU from them.
const LOOPS: usize = 4;
/// Tasks of ordinary priority, which are stopped: few, so that what they wait for each
/// other's turns does not look like the effect of a stop.
const STOPPED_TASKS: usize = 4;
/// How long tasks stay stopped, or running, at most, in microseconds: mostly a short time,
/// so that they are stopped in many places,
const SHORT: usize = 2_000;
/// and now and then long enough to be seen if what they hold then is waited for.
const LONG: usize = 200_000;
/// One in so many is long.
const LONG_ONE_IN: usize = 8;
/// Whom the tasks run as: nobody.
const NOBODY: u32 = 65534;

const CGROUP: &str = "/sys/fs/cgroup/address-space-attack";

/// What the tasks do.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Work {
    /// A system call that accesses the hole.
    Holes,
    /// Map, access some pages, unmap.
    Touches,
    /// Map and unmap.
    Mappings,
    /// Half of them holes, half of them touches.
    HolesAndTouches,
}

/// What keeps the tasks from running.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hindrance {
    /// Their nice value is 19, and there are busy loops at 0.
    Nice,
    /// They are SCHED_IDLE, and there are busy loops that are not.
    Idle,
    /// At random they are stopped and continued, by signals.
    Stopped,
    /// At random they are attached to and released, by ptrace.
    Traced,
    /// Their cgroup is frozen and thawed.
    Frozen,
}

impl Hindrance {
    /// Whether the tasks only have little weight.
    fn is_weight(self) -> bool {
        matches!(self, Hindrance::Nice | Hindrance::Idle)
    }
}

/// An attack, which ends when this is dropped.
pub struct Attack {
    group: Group,
    // Dropped after the group, which is in it.
    _cgroup: Option<Cgroup>,
}

impl Attack {
    /// Starts it, on what `memory` maps. When this returns each task has done its work once.
    pub fn start(work: Work, hindrance: Hindrance, memory: BorrowedFd<'_>) -> Result<Attack> {
        let frozen = hindrance == Hindrance::Frozen;
        let cgroup = frozen.then(Cgroup::new).transpose()?;
        let group = Group::start(ARGUMENT)?;
        group.channel.send(&(work, hindrance), &[memory])?;
        let ready = group.channel.receive::<()>()?;
        ready.context("the attack has not begun")?;
        Ok(Attack {
            group,
            _cgroup: cgroup,
        })
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        ensure!(self.group.is_alive()?, "the attack has ended");
        Ok(())
    }
}

/// The cgroup of the tasks.
struct Cgroup;

impl Cgroup {
    fn new() -> Result<Cgroup> {
        // What a run before this has left is as good.
        let _ = std::fs::create_dir(CGROUP);
        freeze(false)?;
        Ok(Cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(CGROUP);
    }
}

fn freeze(frozen: bool) -> Result<()> {
    let value = if frozen { "1" } else { "0" };
    std::fs::write(format!("{CGROUP}/cgroup.freeze"), value).context("cgroup.freeze")
}

/// What the attacker does: it starts the tasks, and hinders them until it is killed.
pub fn live() -> Result<()> {
    let channel = join(CPU)?;
    let order = channel.receive::<(Work, Hindrance)>()?;
    let ((work, hindrance), mut fds) = order.context("nothing to do")?;
    let memory = fds.pop().context("no memory came")?;
    let (ready, theirs) = Channel::pair()?;
    ready.set_timeout(Duration::from_secs(30))?;
    let count = if hindrance.is_weight() {
        TASKS
    } else {
        STOPPED_TASKS
    };
    let tasks = (0..count)
        .map(|number| fork(|| task(work, hindrance, number, &memory, &theirs)))
        .collect::<Result<Vec<Pid>>>()?;
    for _ in &tasks {
        let begun = ready.receive::<()>()?;
        begun.context("the tasks have ended")?;
    }
    if hindrance.is_weight() {
        for _ in 0..LOOPS {
            fork(|| {
                loop {
                    std::hint::spin_loop();
                }
            })?;
        }
    }
    channel.send(&(), &[])?;
    let Err(error) = hinder(hindrance, &tasks);
    Err(error)
}

/// Forks a child that does `work` as nobody, and dies with this process.
fn fork(work: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    let parent = getpid();
    let prepare = || -> Result<()> {
        set_thread_groups(&[])?;
        set_thread_gid(Gid::from_raw(NOBODY))?;
        set_thread_uid(Uid::from_raw(NOBODY))?;
        // After the change of user, which would end it.
        end_with_parent()?;
        ensure!(getppid() == Some(parent), "the parent has ended before");
        Ok(())
    };
    // SAFETY: This is the only thread, so that no lock is held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            let Err(error) = prepare().and_then(|()| work());
            eprintln!("a task of the attack: {error:#}");
            std::process::exit(1);
        }
        pid => Pid::from_raw(pid).context("fork"),
    }
}

fn task(
    work: Work,
    hindrance: Hindrance,
    number: usize,
    memory: &OwnedFd,
    ready: &Channel,
) -> Result<Infallible> {
    match hindrance {
        Hindrance::Nice => _ = nice(19)?,
        Hindrance::Idle => idle()?,
        Hindrance::Stopped | Hindrance::Traced | Hindrance::Frozen => {}
    }
    let holes = match work {
        Work::Holes => true,
        Work::Touches | Work::Mappings => false,
        Work::HolesAndTouches => number % 2 == 0,
    };
    let all = Plain::of(memory, 0, SPAN)?;
    let once = || {
        if holes {
            access_hole(&all)
        } else {
            let all = Plain::of(memory, 0, SPAN)?;
            if !matches!(work, Work::Mappings) {
                touch_some(&all);
            }
            Ok(())
        }
    };
    once()?;
    ready.send(&(), &[])?;
    loop {
        once()?;
    }
}

/// Makes this process SCHED_IDLE.
fn idle() -> Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: The kernel reads the struct.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    ensure!(done == 0, "SCHED_IDLE: {}", io::Error::last_os_error());
    Ok(())
}

/// Lets the kernel access the first page of nothing, so that there is no signal.
pub fn access_hole(all: &Plain) -> Result<()> {
    let errno = access(all, PAGES);
    ensure!(errno == Some(libc::EFAULT), "the hole: {errno:?}");
    Ok(())
}

/// Lets the kernel read a path at the start of a page. Returns the errno.
fn access(all: &Plain, page: usize) -> Option<i32> {
    let path = all.as_ptr().wrapping_add(page * PAGE).cast();
    // SAFETY: The kernel reads it, and returns EFAULT if it cannot. A page that is there is
    // zero, an empty path.
    let done = unsafe { libc::access(path, libc::F_OK) };
    (done != 0).then(|| io::Error::last_os_error().raw_os_error())?
}

/// Touches pages that are too far apart to be installed together.
fn touch_some(all: &Plain) {
    // This one may be a hole at the moment, or not.
    access(all, CHANGING);
    for page in (1..PAGES).step_by(16) {
        // SAFETY: In the mapping, and the owner leaves these pages alone.
        unsafe { touch(all.as_ptr().add(page * PAGE), Touch::Read) };
    }
}

/// Keeps the tasks from running, again and again.
fn hinder(hindrance: Hindrance, tasks: &[Pid]) -> Result<Infallible> {
    let mut random = Random::new();
    match hindrance {
        Hindrance::Nice | Hindrance::Idle => {
            let ended = wait(WaitOptions::empty())?;
            anyhow::bail!("a task has ended: {ended:?}")
        }
        Hindrance::Stopped => stop(tasks, &mut random),
        Hindrance::Traced => trace(tasks, &mut random),
        Hindrance::Frozen => {
            for task in tasks {
                let task = task.as_raw_nonzero().to_string();
                std::fs::write(format!("{CGROUP}/cgroup.procs"), task).context("cgroup.procs")?;
            }
            loop {
                freeze(true)?;
                some_time(&mut random)?;
                freeze(false)?;
                some_time(&mut random)?;
            }
        }
    }
}

/// At any time about half of them are stopped.
fn stop(tasks: &[Pid], random: &mut Random) -> Result<Infallible> {
    let mut stopped = vec![false; tasks.len()];
    loop {
        let index = random.below(tasks.len());
        let signal = if stopped[index] {
            Signal::CONT
        } else {
            Signal::STOP
        };
        kill_process(tasks[index], signal)?;
        stopped[index] = !stopped[index];
        some_time(random)?;
    }
}

fn trace(tasks: &[Pid], random: &mut Random) -> Result<Infallible> {
    loop {
        let task = tasks[random.below(tasks.len())];
        if random.below(2) == 0 {
            ptrace(libc::PTRACE_ATTACH, task)?;
        } else {
            ptrace(libc::PTRACE_SEIZE, task)?;
            ptrace(libc::PTRACE_INTERRUPT, task)?;
        }
        let status = waitpid(Some(task), WaitOptions::empty())?;
        let stopped = status.is_some_and(|(_, status)| status.stopped());
        ensure!(stopped, "a task has ended: {status:?}");
        some_time(random)?;
        ptrace(libc::PTRACE_DETACH, task)?;
        some_time(random)?;
    }
}

fn ptrace(request: libc::c_uint, task: Pid) -> Result<()> {
    // SAFETY: These requests use neither an address nor data of this process.
    let done = unsafe { libc::ptrace(request, task.as_raw_nonzero().get(), 0, 0) };
    let error = || io::Error::last_os_error();
    ensure!(done == 0, "ptrace request {request:#x}: {}", error());
    Ok(())
}

/// Waits for a random time. Fails if a task has ended.
fn some_time(random: &mut Random) -> Result<()> {
    let most = if random.below(LONG_ONE_IN) == 0 {
        LONG
    } else {
        SHORT
    };
    sleep(Duration::from_micros(random.below(most) as u64));
    let ended = wait(WaitOptions::NOHANG)?;
    ensure!(ended.is_none(), "a task has ended: {ended:?}");
    Ok(())
}
