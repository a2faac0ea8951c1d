// SPDX-License-Identifier: GPL-2.0

//! Which arena a file is mapped in, and who waits for it.
//!
//! Some file systems wait for whoever serves them when a file is mapped or unmapped, with the mmap
//! lock held: FUSE writes back what is dirty, network file systems ask whether it is still true. So
//! what is mapped of one such file system does not share an mm with anything else: where it hangs,
//! it keeps nothing from being mapped but more of the same.
//!
//! Local disks share the main arena with memory, but are attended to apart.
//!
//! Locks: two mutexes, of which neither is acquired inside the other; under one an mm may be made.

use kernel::{
    fs::File,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    },
};

use crate::{
    segment::{
        arena::Arena,
        attendant::Attendant, //
    },
    sys::file,
};

/// How many arenas for such file systems there are at most, each with an mm, and how many
/// attendants of disks: more file systems share.
const MOST: usize = 16;

/// Where a segment is at home.
pub(crate) struct Home {
    /// In which it is mapped, unless it is lent; who is charged for its frame table, in any case.
    pub(crate) arena: Arc<Arena>,
    /// Who does what may wait for its file. None for memory, which nothing waits for.
    pub(super) attendant: Option<Arc<Attendant>>,
}

/// What there is of each of some file systems: where the file system is, which is compared only.
type OfEach<T> = KVec<(usize, Arc<T>)>;

/// That of a file's file system, which is made where there is none yet.
fn of_filesystem<T>(
    all: &Mutex<OfEach<T>>,
    file: &File,
    make: impl FnOnce() -> Result<Arc<T>>,
) -> Result<Arc<T>> {
    let filesystem = file::filesystem(file);
    let mut all = all.lock();
    if let Some((_, found)) = all.iter().find(|(of, _)| *of == filesystem) {
        return Ok(found.clone());
    }
    if all.len() >= MOST {
        // Any of them, but always the same.
        let index = (filesystem >> 10) % MOST;
        return all
            .get(index)
            .map(|(_, shared)| shared.clone())
            .ok_or(ENOMEM);
    }
    let made = make()?;
    all.push((filesystem, made.clone()), GFP_KERNEL_ACCOUNT)?;
    Ok(made)
}

/// The arenas of a space.
#[pin_data]
pub(crate) struct Arenas {
    /// For memory and local disks.
    main: Arc<Arena>,
    /// For other file systems.
    #[pin]
    others: Mutex<OfEach<Arena>>,
    /// Who waits for local disks, and for lenders.
    #[pin]
    attendants: Mutex<OfEach<Attendant>>,
}

impl Arenas {
    /// The main one, and no others yet.
    pub(crate) fn new(main: Arc<Arena>) -> impl PinInit<Self> {
        pin_init!(Self {
            main,
            others <- new_mutex!(KVec::new(), "Arenas::others"),
            attendants <- new_mutex!(KVec::new(), "Arenas::attendants"),
        })
    }

    /// The main one.
    pub(crate) fn main(&self) -> &Arc<Arena> {
        &self.main
    }

    /// The sum of a count over all of them.
    fn sum(&self, count: impl Fn(&Arena) -> usize) -> usize {
        let others = self.others.lock();
        let of_others: usize = others.iter().map(|(_, arena)| count(arena)).sum();
        count(&self.main) + of_others
    }

    /// How many pages there are in memory that are copies which belong to the space.
    pub(crate) fn copies(&self) -> usize {
        self.sum(Arena::copies)
    }

    /// How many pages they show that are in memory, copies among them.
    pub(crate) fn in_memory(&self) -> usize {
        self.sum(Arena::in_memory)
    }

    /// That of a segment of a file, or of what was `lent` with it. Errors as for making an mm.
    pub(crate) fn home(&self, file: &File, lent: bool) -> Result<Home> {
        if !lent && !file::is_mapped_at_once(file) {
            let arena = of_filesystem(&self.others, file, || self.main.new_slow())?;
            let attendant = arena.attendant().cloned();
            return Ok(Home { arena, attendant });
        }
        let attendant = match lent || file::is_written_back(file) {
            true => Some(of_filesystem(&self.attendants, file, Attendant::new)?),
            false => None,
        };
        Ok(Home {
            arena: self.main.clone(),
            attendant,
        })
    }
}
