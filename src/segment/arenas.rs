// SPDX-License-Identifier: GPL-2.0

//! Which arena a file is mapped in.
//!
//! Some file systems wait for whoever serves them when a file is mapped or unmapped, with the mmap
//! lock held: FUSE writes back what is dirty, network file systems ask whether it is still true. So
//! what is mapped of one such file system does not share an mm with anything else: where it hangs,
//! it keeps nothing from being mapped but more of the same.
//!
//! Locks: a mutex, under which an mm may be made.

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
    segment::arena::Arena,
    sys::file, //
};

/// How many arenas for such file systems there are at most, each with an mm: more file systems
/// share.
const MOST: usize = 16;

/// The arenas of a space.
#[pin_data]
pub(crate) struct Arenas {
    /// For memory and local disks.
    main: Arc<Arena>,
    /// For other file systems: where the file system is, which is compared only, and its arena.
    #[pin]
    others: Mutex<KVec<(usize, Arc<Arena>)>>,
}

impl Arenas {
    /// The main one, and no others yet.
    pub(crate) fn new(main: Arc<Arena>) -> impl PinInit<Self> {
        pin_init!(Self {
            main,
            others <- new_mutex!(KVec::new(), "Arenas::others"),
        })
    }

    /// The main one.
    pub(crate) fn main(&self) -> &Arc<Arena> {
        &self.main
    }

    /// How many pages there are in memory that are copies which belong to the space.
    pub(crate) fn copies(&self) -> usize {
        let others = self.others.lock();
        let of_others: usize = others.iter().map(|(_, arena)| arena.copies()).sum();
        self.main.copies() + of_others
    }

    /// That in which a file is mapped. Errors as for making an mm.
    pub(crate) fn of(&self, file: &File) -> Result<Arc<Arena>> {
        if file::is_mapped_at_once(file) {
            return Ok(self.main.clone());
        }
        let filesystem = file::filesystem(file);
        let mut others = self.others.lock();
        if let Some((_, arena)) = others.iter().find(|(of, _)| *of == filesystem) {
            return Ok(arena.clone());
        }
        if others.len() >= MOST {
            // Any of them, but always the same.
            let index = (filesystem >> 10) % MOST;
            return others
                .get(index)
                .map(|(_, arena)| arena.clone())
                .ok_or(ENOMEM);
        }
        let arena = self.main.new_slow()?;
        others.push((filesystem, arena.clone()), GFP_KERNEL_ACCOUNT)?;
        Ok(arena)
    }
}
