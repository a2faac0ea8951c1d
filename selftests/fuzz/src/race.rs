// SPDX-License-Identifier: GPL-2.0

//! The owner that races with readers (`reader.rs`): it revokes pages, and as soon as the call
//! has returned it marks them as revoked, through the file itself. A reader that finds such
//! a mark has reached a revoked page; so has a writer that changes a word after the mark.

mod holes;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use address_space::{AddressSpace, Events, Holes, Prot, View};
use anyhow::{Context as _, Result, bail, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rig::{READ_WRITE, fdinfo};

use self::holes::{Look, Patient, fork_and_kill};
use crate::files::{Places, Shared};
use crate::guest::Guest;
use crate::op::*;
use crate::probe;
use crate::reader::{
    CHANGED, Control, PAGES, READERS, REVOKED, Reader, SWITCHED, TAKEN, read_and_check,
};
use crate::region::Region;

/// Pages of a file that are shown one set at a time.
const SETS: u64 = 4;
const SET: u64 = SWITCHED.end - SWITCHED.start;

/// Where in the region what absorbs is attached, and that through which accesses wait.
const ABSORBS: u64 = 2 * HUGE;
const WAITS: u64 = 3 * HUGE;

/// An attachment of this process, or of the parent it was forked from.
struct Attachment {
    /// First page, in the region.
    place: u64,
}

impl Reader for Attachment {
    fn load(&mut self, page: u64) -> Option<u64> {
        match probe::load(Region::address(self.place + page)) {
            Touched::Value(value) => Some(value),
            _ => None,
        }
    }

    fn store(&mut self, page: u64, value: u64) {
        // SAFETY: Within the region, where nothing is used but by probes.
        unsafe { probe::store(Region::address(self.place + page) + CELL, value) };
    }
}

/// A guest with the space in its first slot.
struct Inside<'a> {
    guest: Guest,
    control: &'a Control,
}

impl Inside<'_> {
    fn touch(&mut self, page: u64, cell: u64, store: Option<u64>) -> Option<u64> {
        let touch = GuestTouch {
            slot: 0,
            page,
            cell,
            store,
        };
        match self.guest.touch(&[touch]).ok()?[..] {
            [Touched::Value(value)] => Some(value),
            _ => None,
        }
    }
}

impl Reader for Inside<'_> {
    fn load(&mut self, page: u64) -> Option<u64> {
        let first = self.touch(page, 0, None);
        if first.is_some() || !SWITCHED.contains(&page) {
            return first;
        }
        // KVM looks for a page twice and then calls it a hole, though both times there may
        // only have been a revocation at the same time.
        self.control.spurious.fetch_add(1, SeqCst);
        (0..100).find_map(|_| self.touch(page, 0, None))
    }

    fn store(&mut self, page: u64, value: u64) {
        self.touch(page, 1, Some(value));
    }
}

/// A page of the taken part's file that is not shown, and the value of its second cell when
/// it was revoked.
struct Free {
    page: u64,
    left: u64,
}

struct Owner {
    control: &'static Control,
    space: AddressSpace,
    random: ChaCha8Rng,
    taken: Shared,
    switched: Shared,
    changed: Shared,
    /// What each page of the taken part shows.
    shows: Vec<Option<u64>>,
    free: Vec<Free>,
    /// Which set the switched part shows.
    set: Option<u64>,
    /// The value that is written next; it only grows.
    version: u64,
    /// Who waits at a hole of the taken part.
    events: Option<Events>,
    looks: [Option<Look>; READERS.len()],
}

/// How much was done.
pub struct Done {
    pub changes: u64,
    pub rounds: String,
}

/// Races for so long. An error says what went wrong.
pub fn race(places: &Places, guest: bool, seed: u64, time: Duration) -> Result<Done> {
    let control = Control::new()?;
    let mut owner = Owner::new(places, control, seed)?;
    let region = Region::new()?;
    let all = Span::new(0, PAGES);
    let view: View = owner.space.view(all.bytes(), READ_WRITE)?;
    let with = |holes| owner.space.view_with(all.bytes(), READ_WRITE, holes);
    let (absorbs, waits) = (with(Holes::ABSORB)?, with(Holes::WAIT)?);
    // The calls of an asfd, too, can be made on a view.
    let waits = AddressSpace::from(OwnedFd::from(waits));
    region.attach(owner.space.as_fd(), all, RW, 0)?;
    region.attach(view.as_fd(), all, RW, HUGE)?;
    region.attach(absorbs.as_fd(), all, RW, ABSORBS)?;
    region.attach(waits.as_fd(), all, RW, WAITS)?;
    for (reader, place) in [(1, 0), (2, HUGE), (4, ABSORBS), (5, WAITS), (8, WAITS)] {
        // SAFETY: This is the only thread, so that no lock is held in the child.
        match unsafe { libc::fork() } {
            -1 => bail!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                // One of them gets the CPU when nobody else wants it, and loses it anywhere.
                let nice = if reader == 2 { 19 } else { 0 };
                // SAFETY: The calls only ask for a signal when the parent ends, and set what
                // becomes of children and a priority.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::signal(libc::SIGCHLD, libc::SIG_DFL);
                    libc::setpriority(libc::PRIO_PROCESS, 0, nice);
                }
                let mut attachment = Attachment { place };
                match reader {
                    5 => {
                        let mut patient = Patient {
                            reader: attachment,
                            control,
                            index: reader,
                            accesses: 0,
                        };
                        read_and_check(control, reader, &mut patient, seed);
                    }
                    8 => fork_and_kill(control, reader, place, seed),
                    _ => read_and_check(control, reader, &mut attachment, seed),
                }
                std::process::exit(0);
            }
            _ => (),
        }
    }
    owner.watch_again()?;
    let asfd = owner.space.as_fd().try_clone_to_owned()?;
    let asfd = AddressSpace::from(asfd);
    let changed = owner.changed.fd(true).try_clone_to_owned()?;
    let mut changes = 0;
    let result = std::thread::scope(|scope| {
        scope.spawn(|| read_and_check(control, 0, &mut Attachment { place: 0 }, seed));
        scope.spawn(|| {
            let mut patient = Patient {
                reader: Attachment { place: WAITS },
                control,
                index: 6,
                accesses: 0,
            };
            read_and_check(control, 6, &mut patient, seed);
        });
        let mapper = scope.spawn(|| map_again_and_again(control, &asfd, &changed));
        let guests: Vec<_> = [(3, &asfd), (7, &waits)]
            .into_iter()
            .filter(|_| guest)
            .map(|(index, of)| {
                scope.spawn(move || -> Result<()> {
                    let mut guest = Guest::boot()?;
                    let plugged = guest.plug(of, 0, all, false, false, 0);
                    ensure!(plugged == Seen::Done, "no slot: {plugged:?}");
                    let mut reader = Patient {
                        reader: Inside { guest, control },
                        control,
                        index,
                        accesses: 0,
                    };
                    read_and_check(control, index, &mut reader, seed);
                    Ok(())
                })
            })
            .collect();
        // There are fewer CPUs than readers, and the changes are what matters.
        //
        // SAFETY: The call changes the priority of this thread, and no memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -19) };
        let end = Instant::now() + time;
        let mut result = Ok(());
        while result.is_ok() && Instant::now() < end && !control.stop.load(SeqCst) {
            result = owner.change();
            changes += 1;
        }
        control.stop.store(true, SeqCst);
        // Whoever waits goes on.
        owner.events = None;
        // SAFETY: As above.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
        match mapper.join() {
            Ok(mapped) => mapped.context("the second owner")?,
            Err(_) => bail!("the second owner has panicked"),
        }
        for guest in guests {
            match guest.join() {
                Ok(Err(error)) => return Err(error.context("a guest")),
                Err(_) => bail!("a guest's thread has panicked"),
                _ => (),
            }
        }
        result
    });
    // SAFETY: The call waits for the children, which are ending, and writes no status.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } >= 0 {}
    if let Some(why) = control.failure() {
        bail!("{why}, after {changes} changes");
    }
    result?;
    owner.nobody_waits()?;
    let rounds: Vec<_> = READERS
        .iter()
        .zip(&control.rounds)
        .map(|(reader, rounds)| format!("{reader} {}", rounds.load(SeqCst)))
        .collect();
    let spurious = control.spurious.load(SeqCst);
    let told = control.told.load(SeqCst);
    Ok(Done {
        changes,
        rounds: format!(
            "{}, holes that were none {spurious}, waits that were told {told}",
            rounds.join(", ")
        ),
    })
}

/// A second owner, which populates the changed part in all attachments while its file is
/// changed: it maps there again what is mapped already.
fn map_again_and_again(control: &Control, space: &AddressSpace, file: &impl AsFd) -> Result<()> {
    let at = CHANGED.start * PAGE..CHANGED.end * PAGE;
    while !control.stop.load(SeqCst) {
        space
            .batch()
            .replace(file, 0, at.clone(), READ_WRITE)
            .populate()
            .commit()?;
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(())
}

impl Owner {
    fn new(places: &Places, control: &'static Control, seed: u64) -> Result<Owner> {
        let file = |number| Shared::make(places, number).map(|(file, _)| file);
        let (taken, switched, changed) = (file(0)?, file(1)?, file(0)?);
        switched.truncate(SETS * SET * CELLS)?;
        let mut owner = Owner {
            control,
            space: AddressSpace::new(PAGES * PAGE)?,
            random: ChaCha8Rng::seed_from_u64(seed),
            taken,
            switched,
            changed,
            shows: vec![None; (TAKEN.end - TAKEN.start) as usize],
            free: Vec::new(),
            set: None,
            version: 0,
            events: None,
            looks: [None; READERS.len()],
        };
        for page in 0..24 {
            let left = owner.taken.read_mapped(page * CELLS + 1);
            owner.free.push(Free { page, left });
        }
        owner.switch()?;
        for at in 0..CHANGED.end - CHANGED.start {
            owner.version += 1;
            owner.changed.write_mapped(at * CELLS, owner.version);
        }
        let at = CHANGED.start * PAGE..CHANGED.end * PAGE;
        let file = owner.changed.fd(true);
        owner.space.batch().map(&file, 0, at, READ_WRITE).commit()?;
        Ok(owner)
    }

    fn change(&mut self) -> Result<()> {
        match self.random.random_range(0..200) {
            0..=109 => self.take(),
            110..=144 => self.switch(),
            145..=164 => self.change_file(),
            165..=189 => self.answer(),
            190..=195 => self.look_after(),
            196 => self.watch_again(),
            _ => self.poison(),
        }
    }

    /// A page that may be shown. Fails if it was written to after it was revoked.
    fn fresh(&mut self) -> Result<Option<u64>> {
        if self.free.is_empty() {
            return Ok(None);
        }
        let at = self.random.random_range(0..self.free.len());
        let Free { page, left } = self.free.swap_remove(at);
        let now = self.taken.read_mapped(page * CELLS + 1);
        ensure!(
            now == left,
            "page {page} of the file was written to after it was revoked: \
             {left:#x} became {now:#x}"
        );
        self.version += 1;
        self.taken.write_mapped(page * CELLS, self.version);
        Ok(Some(page))
    }

    /// The call that took the page away has returned.
    fn revoked(&mut self, page: u64) {
        self.version += 1;
        self.taken
            .write_mapped(page * CELLS, self.version | REVOKED);
        let left = self.taken.read_mapped(page * CELLS + 1);
        self.free.push(Free { page, left });
    }

    /// Maps something at a page of the taken part, if nothing is.
    fn show(&mut self, page: u64) -> Result<()> {
        let place = (page - TAKEN.start) as usize;
        if self.shows[place].is_some() {
            return Ok(());
        }
        let Some(fresh) = self.fresh()? else {
            return Ok(());
        };
        let file = self.taken.fd(true);
        let map = self
            .space
            .map(&file)
            .offset(fresh * PAGE)
            .length(PAGE)
            .at(page * PAGE)
            .prot(READ_WRITE);
        if self.random.random() {
            map.populate().commit()?;
        } else {
            map.commit()?;
        }
        self.shows[place] = Some(fresh);
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let page = self.random.random_range(TAKEN);
        let at = page * PAGE..(page + 1) * PAGE;
        let place = (page - TAKEN.start) as usize;
        let rw = READ_WRITE;
        let Some(shown) = self.shows[place] else {
            return self.show(page);
        };
        match self.random.random_range(0..10) {
            0..=3 => {
                self.space.unmap(at)?;
                self.shows[place] = None;
                self.revoked(shown);
            }
            4..=6 => {
                let Some(fresh) = self.fresh()? else {
                    return Ok(());
                };
                let file = self.taken.fd(true);
                let batch = self.space.batch().replace(&file, fresh * PAGE, at, rw);
                if self.random.random() {
                    batch.populate().commit()?;
                } else {
                    batch.commit()?;
                }
                self.shows[place] = Some(fresh);
                self.revoked(shown);
            }
            7 => {
                self.space.protect(at.clone(), Prot::empty())?;
                self.revoked(shown);
                self.space.unmap(at)?;
                self.shows[place] = None;
            }
            8 => {
                // It can only be read now.
                self.space.protect(at.clone(), Prot::READ)?;
                let left = self.taken.read_mapped(shown * CELLS + 1);
                std::thread::yield_now();
                let now = self.taken.read_mapped(shown * CELLS + 1);
                ensure!(
                    left == now,
                    "page {page}, which is read-only, was written to"
                );
                self.space.protect(at, rw)?;
            }
            _ => {
                let hole = self.random.random_range(TAKEN);
                let target = (hole - TAKEN.start) as usize;
                if self.shows[target].is_none() {
                    self.space.move_to(at, hole * PAGE)?;
                    self.shows[target] = self.shows[place].take();
                }
            }
        }
        Ok(())
    }

    /// Shows the next set of pages instead of the one before, one map for each page.
    fn switch(&mut self) -> Result<()> {
        let before = self.set;
        let set = before.map_or(0, |set| (set + 1) % SETS);
        self.version += 1;
        for page in set * SET..(set + 1) * SET {
            self.switched.write_mapped(page * CELLS, self.version);
        }
        let file = self.switched.fd(true);
        let mut batch = self.space.batch();
        for page in 0..SET {
            let at = (SWITCHED.start + page) * PAGE;
            batch = batch.replace(&file, (set * SET + page) * PAGE, at..at + PAGE, READ_WRITE);
            if self.random.random() {
                batch = batch.populate();
            }
        }
        batch.commit()?;
        self.set = Some(set);
        if let Some(before) = before {
            for page in before * SET..(before + 1) * SET {
                self.switched.write_mapped(page * CELLS, REVOKED);
            }
        }
        Ok(())
    }

    /// Punches a page, or truncates the file there, without a call on the space.
    fn change_file(&mut self) -> Result<()> {
        let count = CHANGED.end - CHANGED.start;
        let first = self.random.random_range(0..count);
        let deferred = self.deferred()?;
        let last = if self.random.random_bool(0.7) {
            self.changed.punch(Span::new(first * CELLS, CELLS))?;
            first + 1
        } else {
            self.changed.truncate(first * CELLS)?;
            self.changed.truncate(count * CELLS)?;
            count
        };
        // If a worker does the rest, it may take a while.
        let gone = self.deferred()? == deferred;
        self.version += 1;
        for page in first..last {
            if gone {
                self.control.floors[page as usize].store(self.version, SeqCst);
            }
            self.changed.write_mapped(page * CELLS, self.version);
        }
        Ok(())
    }

    fn deferred(&self) -> Result<u64> {
        fdinfo::number(&fdinfo::read(&self.space)?, "deferred")
    }
}
