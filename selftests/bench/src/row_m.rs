// SPDX-License-Identifier: GPL-2.0

//! Row m: the longest delay that a holder of a view can cause, without any privilege, to a
//! call of the owner and to a page fault of a bystander; against a memfd that the three
//! share and the same attack on it. (A lock that a task holds which does not run is waited
//! for, which is no work, so only time means something here.)

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use address_space::{AddressSpace, View, Window};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::plain::Plain;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::attack::{Attack, CHANGING, Hindrance, PAGES, SPAN, Work, access_hole};
use crate::clock::Clock;
use crate::comparison::{Comparison, Measured, Ratio, Spread};
use crate::group::{Group, join, pin_to};
use crate::memory::{PAGE, Touch, resident, touch};
use crate::rounds::Bench;

/// The argument that makes a process of this program a bystander.
pub const ARGUMENT: &str = "bystander";

/// The CPU of owner and bystander. The attackers have another one.
const CPU: usize = 0;
/// How long an attack is measured in a round.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds are long: so many of the usual ones are one.
const DEARNESS: usize = 25;
/// How long owner and bystander each wait after they have measured once. A lock that is held
/// for long is met all the same.
const PAUSE: Duration = Duration::from_millis(1);
/// The page that the bystander touches: one that stays.
const TOUCHED: usize = PAGES / 2;

const OURS: &str = "address space";
const MEMFD: &str = "memfd";
const LIMIT: &str = "50 ms beyond the memfd";
/// How much longer than with a memfd it should take at most, in milliseconds.
const BEYOND: f64 = 50.0;

const OWNER: &str = "longest call of the owner";
const BYSTANDER: &str = "longest fault of a bystander";

const ATTACKS: [(&str, Option<(Work, Hindrance)>); 9] = {
    use {Hindrance::*, Work::*};
    [
        ("no attack", None),
        ("system calls on a hole, nice 19", Some((Holes, Nice))),
        ("first touches, nice 19", Some((Touches, Nice))),
        ("mmap and munmap, nice 19", Some((Mappings, Nice))),
        ("system calls on a hole, SCHED_IDLE", Some((Holes, Idle))),
        ("first touches, SCHED_IDLE", Some((Touches, Idle))),
        (
            "both, stopped and continued",
            Some((HolesAndTouches, Stopped)),
        ),
        ("both, traced", Some((HolesAndTouches, Traced))),
        ("both, frozen and thawed", Some((HolesAndTouches, Frozen))),
    ]
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    if bench.clock != Clock::Time || cpus < 2 {
        return Ok(());
    }
    let _ungrouped = Ungrouped::new()?;
    let _pinned = Pinned::new()?;
    let bystander = Group::start(ARGUMENT)?;
    let space = Space::new()?;
    let memfd = Memfd::new()?;
    let rounds = (bench.rounds / DEARNESS).max(1);
    for (name, attack) in ATTACKS {
        let [owner, by] = [OWNER, BYSTANDER].map(|what| format!("{what}: {name}"));
        let wanted = |contender| bench.wants(&owner, contender) || bench.wants(&by, contender);
        if !wanted(OURS) && !wanted(MEMFD) {
            continue;
        }
        let sides: [&dyn Shared; 2] = [&space, &memfd];
        let mut longest = [Delays::default(); 2];
        for round in 0..rounds {
            for turn in 0..sides.len() {
                let index = (round + turn) % sides.len();
                let delays = measure(bench.clock, sides[index], attack, &bystander);
                longest[index].add(delays.with_context(|| format!("row m, {name}"))?);
            }
        }
        let [ours, other] = longest;
        add(bench, owner, rounds, ours.owner, other.owner);
        add(bench, by, rounds, ours.bystander, other.bystander);
    }
    Ok(())
}

/// Adds the longest delays of one kind, in nanoseconds.
fn add(bench: &mut Bench, name: String, rounds: usize, ours: f64, other: f64) {
    let [ours, other] = [ours, other].map(|delay| delay / 1e6);
    let limit = other + BEYOND;
    let measured = |name, ours, delay| Measured {
        name,
        ours,
        spread: Spread::of(&[delay]),
    };
    let ratio = |to, delay: f64, goal: Option<f64>| Ratio {
        of: OURS,
        to,
        ratio: ours / delay,
        spread: Spread::of(&[ours / delay]),
        goal,
        met: goal.map(|goal| ours / delay <= goal),
    };
    bench.add(Comparison {
        row: 'm',
        name,
        unit: "ms",
        rounds,
        contenders: vec![
            measured(OURS, true, ours),
            measured(MEMFD, false, other),
            measured(LIMIT, false, limit),
        ],
        ratios: vec![ratio(MEMFD, other, None), ratio(LIMIT, limit, Some(1.0))],
    });
}

/// The longest that anything took, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct Delays {
    owner: f64,
    bystander: f64,
}

impl Delays {
    fn add(&mut self, other: Delays) {
        self.owner = self.owner.max(other.owner);
        self.bystander = self.bystander.max(other.bystander);
    }
}

/// One attack, for one round. It goes on until owner and bystander both have their results,
/// so that a delay counts in full.
fn measure(
    clock: Clock,
    memory: &dyn Shared,
    attack: Option<(Work, Hindrance)>,
    bystander: &Group,
) -> Result<Delays> {
    let start = |(work, hindrance)| Attack::start(work, hindrance, memory.fd());
    let mut attack = attack.map(start).transpose()?;
    bystander.channel.send(&(), &[memory.fd()])?;
    let owner = longest(|| {
        let remove = clock.time(|| memory.remove())?;
        let bring_back = clock.time(|| memory.bring_back())?;
        // So that there is something to revoke.
        //
        // SAFETY: The page has just been brought back, and it is this process that removes it.
        unsafe { touch(memory.changing(), Touch::Read) };
        Ok(remove.max(bring_back))
    })?;
    let (bystander, _) = bystander
        .channel
        .receive()?
        .context("the bystander has ended")?;
    if let Some(attack) = &mut attack {
        attack.check()?;
    }
    Ok(Delays { owner, bystander })
}

/// The longest of what `work` gives in a round.
fn longest(mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
    let start = Instant::now();
    let mut longest = 0f64;
    while start.elapsed() < ROUND {
        longest = longest.max(work()?);
        sleep(PAUSE);
    }
    Ok(longest)
}

/// What a bystander does: for each round it gets memory, and answers with its longest fault.
pub fn live() -> Result<()> {
    let channel = join(CPU)?;
    while let Some(((), mut fds)) = channel.receive()? {
        let memory = fds.pop().context("no memory came")?;
        let longest = longest(|| {
            let all = Plain::of(&memory, 0, SPAN)?;
            let page = all.as_ptr().wrapping_add(TOUCHED * PAGE);
            let touched = Clock::Time.time(|| {
                // SAFETY: In the mapping, and the owner leaves this page alone.
                unsafe { touch(page, Touch::Read) };
                Ok(())
            })?;
            Ok(touched.max(Clock::Time.time(|| access_hole(&all))?))
        })?;
        channel.send(&longest, &[])?;
    }
    Ok(())
}

/// Memory of which an owner removes a page and brings it back, while others use it.
trait Shared {
    /// What the others map.
    fn fd(&self) -> BorrowedFd<'_>;
    fn remove(&self) -> Result<()>;
    fn bring_back(&self) -> Result<()>;
    /// Where the owner has the page.
    fn changing(&self) -> *mut u8;
}

/// An address space that shows a memfd, with a view for the others.
struct Space {
    space: AddressSpace,
    view: View,
    window: Window,
    file: File,
}

impl Space {
    fn new() -> Result<Space> {
        let file = resident(PAGES * PAGE)?;
        let space = AddressSpace::new(SPAN as u64)?;
        space.register(&file).prot(READ_WRITE).populate().commit()?;
        let map = space.map(&file).length((PAGES * PAGE) as u64);
        map.at(0).prot(READ_WRITE).commit()?;
        let all = 0..SPAN as u64;
        Ok(Space {
            view: space.view(all.clone(), READ_WRITE)?,
            window: space.attach(all, READ_WRITE)?,
            space,
            file,
        })
    }
}

impl Shared for Space {
    fn fd(&self) -> BorrowedFd<'_> {
        self.view.as_fd()
    }

    fn remove(&self) -> Result<()> {
        let at = (CHANGING * PAGE) as u64;
        Ok(self.space.unmap(at..at + PAGE as u64)?)
    }

    fn bring_back(&self) -> Result<()> {
        let at = (CHANGING * PAGE) as u64;
        let map = self.space.map(&self.file).offset(at).length(PAGE as u64);
        map.at(at).prot(READ_WRITE).commit()?;
        Ok(())
    }

    fn changing(&self) -> *mut u8 {
        self.window.as_ptr().wrapping_add(CHANGING * PAGE)
    }
}

/// A memfd that the others have themselves.
struct Memfd {
    file: File,
    mapping: Plain,
}

impl Memfd {
    fn new() -> Result<Memfd> {
        let file = resident(PAGES * PAGE)?;
        let mapping = Plain::of(&file, 0, PAGES * PAGE)?;
        Ok(Memfd { file, mapping })
    }
}

impl Shared for Memfd {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn remove(&self) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let at = (CHANGING * PAGE) as u64;
        fallocate(&self.file, flags, at, PAGE as u64).context("fallocate")
    }

    fn bring_back(&self) -> Result<()> {
        let at = (CHANGING * PAGE) as u64;
        self.file.write_all_at(&[0; PAGE], at).context("pwrite")
    }

    fn changing(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(CHANGING * PAGE)
    }
}

/// This thread on one CPU, until this is dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn new() -> Result<Pinned> {
        let before = Pinned(sched_getaffinity(None)?);
        pin_to(CPU)?;
        Ok(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Switches off that each session gets a share of the CPU, until this is dropped: a nice
/// value counts only within one, so that results would depend on who has started the bench.
struct Ungrouped(Option<String>);

impl Ungrouped {
    const PATH: &str = "/proc/sys/kernel/sched_autogroup_enabled";

    fn new() -> Result<Ungrouped> {
        if !Path::new(Self::PATH).exists() {
            return Ok(Ungrouped(None));
        }
        let before = std::fs::read_to_string(Self::PATH)?;
        std::fs::write(Self::PATH, "0").context("sched_autogroup_enabled")?;
        Ok(Ungrouped(Some(before)))
    }
}

impl Drop for Ungrouped {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::PATH, before);
        }
    }
}
