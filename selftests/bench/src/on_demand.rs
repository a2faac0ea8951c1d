// SPDX-License-Identifier: GPL-2.0

//! Memory that comes as it is touched: an address space whose holes are waited for, and a
//! mapping with userfaultfd. Both show a memfd, and a manager in a thread of its own provides
//! for whoever touches it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Barrier;

use address_space::{AddressSpace, Device, Errno, EventKind, Events, Holes, Map};
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::plain::Plain;
use rustix::fs::{FallocateFlags, fallocate};

use crate::memory::{resident, sparse};
use crate::uffd::{Mode, Uffd};

/// What a manager works on.
pub trait Provider: Sync {
    /// Waits for a touch, and returns its offset.
    fn next(&self) -> Result<usize>;

    /// Makes what is in the file accessible, and lets go on who waits for it.
    fn show(&self, at: usize, length: usize) -> Result<()>;

    /// As [`show()`](Provider::show), with these bytes in the file first.
    fn fill(&self, at: usize, bytes: &[u8]) -> Result<()>;
}

/// Runs `work`, which touches memory, with a manager that calls `provide` for each touch until
/// that has returned false.
pub fn with_manager<T>(
    provider: &impl Provider,
    provide: impl FnMut(usize) -> Result<bool> + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let begun = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begun.wait();
            if let Err(error) = serve(provider, provide) {
                // Who touches the memory would wait for ever.
                eprintln!("bench: the manager of a memory: {error:#}");
                std::process::exit(1);
            }
        });
        begun.wait();
        work()
    })
}

fn serve(provider: &impl Provider, mut provide: impl FnMut(usize) -> Result<bool>) -> Result<()> {
    while provide(provider.next()?)? {}
    Ok(())
}

/// The file of a memory: resident, or such that its pages come with [`Provider::fill()`].
pub fn file(length: usize, filled: bool) -> Result<File> {
    if filled {
        sparse(length)
    } else {
        resident(length)
    }
}

/// Takes all pages from a file.
fn punch(file: &File, length: usize) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, 0, length as u64).context("fallocate")
}

/// An address space of which nothing is mapped at first.
pub struct Space {
    pub space: AddressSpace,
    file: File,
    length: usize,
    filled: bool,
}

/// It, while it is watched.
pub struct Watched<'a> {
    of: &'a Space,
    events: Events,
}

impl Space {
    pub fn new(length: usize, filled: bool) -> Result<Space> {
        let file = file(length, filled)?;
        let space = Device::open()?.create_with(length as u64, Holes::WAIT)?;
        let register = space.register(&file).prot(READ_WRITE);
        if filled {
            register.commit()?;
        } else {
            register.populate().commit()?;
        }
        Ok(Space {
            space,
            file,
            length,
            filled,
        })
    }

    /// Makes it as it was when it was new.
    pub fn reset(&self) -> Result<()> {
        self.space.unmap(0..self.length as u64)?;
        if self.filled {
            punch(&self.file, self.length)?;
        }
        Ok(())
    }

    pub fn watch(&self) -> Result<Watched<'_>> {
        let events = self.space.watch(0..self.length as u64, None)?;
        Ok(Watched { of: self, events })
    }
}

impl Provider for Watched<'_> {
    fn next(&self) -> Result<usize> {
        loop {
            let event = self.events.try_next()?.context("no event")?;
            if event.kind == EventKind::Wait {
                return Ok(event.offset as usize);
            }
        }
    }

    fn show(&self, at: usize, length: usize) -> Result<()> {
        unless_there(self.map(at, length).commit())
    }

    fn fill(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.of.file.write_all_at(bytes, at as u64)?;
        // So that who waits need not have the page faulted in.
        unless_there(self.map(at, bytes.len()).populate().commit())
    }
}

impl Watched<'_> {
    fn map(&self, at: usize, length: usize) -> Map<'_> {
        let map = self.of.space.map(&self.of.file).offset(at as u64);
        map.length(length as u64).at(at as u64).prot(READ_WRITE)
    }
}

/// It may have been told twice of a page.
fn unless_there(mapped: address_space::Result<u64>) -> Result<()> {
    match mapped {
        Err(error) if error.errno() != Some(Errno::EXIST) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A mapping that is used with userfaultfd.
pub struct Mapping {
    pub memory: Plain,
    file: File,
    filled: bool,
    mode: Mode,
}

/// It, while touches are told.
pub struct Registered<'a> {
    of: &'a Mapping,
    uffd: Uffd<'a>,
}

impl Mapping {
    pub fn new(length: usize, filled: bool, mode: Mode) -> Result<Mapping> {
        Ok(Mapping {
            memory: Plain::reserved_aligned(length)?,
            file: file(length, filled)?,
            filled,
            mode,
        })
    }

    /// Makes it as it was when it was new.
    pub fn reset(&self) -> Result<()> {
        let length = self.memory.length();
        if self.filled {
            punch(&self.file, length)?;
        }
        self.memory.map_at(0, &self.file, 0, length)
    }

    /// Writes to its file.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_all_at(bytes, at as u64)?)
    }

    pub fn register(&self) -> Result<Registered<'_>> {
        let uffd = Uffd::new(&self.memory, self.mode)?;
        Ok(Registered { of: self, uffd })
    }
}

impl Provider for Registered<'_> {
    fn next(&self) -> Result<usize> {
        self.uffd.next()
    }

    fn show(&self, at: usize, length: usize) -> Result<()> {
        self.uffd.proceed(at, length)
    }

    fn fill(&self, at: usize, bytes: &[u8]) -> Result<()> {
        match self.of.mode {
            Mode::Copy => self.uffd.copy(at, bytes),
            Mode::Continue => {
                self.of.write(at, bytes)?;
                self.show(at, bytes.len())
            }
        }
    }
}
