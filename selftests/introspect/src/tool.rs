// SPDX-License-Identifier: GPL-2.0

//! The tool: attaches what a process has lent, a piece at a time where it is looked at, and
//! reads it as its own memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, Holes, Lend, Prot, View, Window};
use anyhow::{Context as _, Result, bail, ensure};
use rig::memfd;
use rig::role::Role;

use crate::list::{Walked, walk};
use crate::roles::{Answer, Order};

/// How much is attached at a time, in bytes: all of a process's memory would not fit in another's.
const PIECE: u64 = 1 << 30;

/// What the process has.
#[derive(Default)]
pub struct Tool {
    memory: Option<Memory>,
}

/// The memory of another process; addresses are that process's.
struct Memory {
    view: View,
    length: u64,
    pieces: HashMap<u64, Window>,
}

impl Memory {
    fn new(lend: &Lend, holes: Holes) -> Result<Memory> {
        let length = lend.length()?;
        let space = AddressSpace::new(length)?;
        space.map(lend).at(0).prot(Prot::READ).commit()?;
        Ok(Memory {
            view: space.view_with(0..length, Prot::READ, holes)?,
            length,
            pieces: HashMap::new(),
        })
    }

    /// The piece that has an address, and where in it.
    fn piece(&mut self, address: u64) -> Result<(&Window, usize)> {
        ensure!(
            address < self.length,
            "no process has anything at {address:#x}"
        );
        let (piece, offset) = (address / PIECE, address % PIECE);
        let window = match self.pieces.entry(piece) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(room) => {
                let start = piece * PIECE;
                let end = (start + PIECE).min(self.length);
                room.insert(self.view.attach(start..end, Prot::READ)?)
            }
        };
        Ok((window, offset as usize))
    }

    /// Loads the word at an address.
    fn word(&mut self, address: u64) -> Result<u64> {
        let (window, offset) = self.piece(address)?;
        Ok(window.read::<u64>(offset)?)
    }

    /// Has the kernel copy the word at an address, which fails where a load would be a signal.
    fn copy(&mut self, address: u64) -> Result<Option<u64>> {
        let (window, offset) = self.piece(address)?;
        let mut bytes = [0; 8];
        ensure!(offset + bytes.len() <= window.len(), "beyond the memory");
        let file: File = memfd::sparse("word", 0)?;
        // SAFETY: The range lies within the window, as was checked, and the kernel only reads
        // it; where it cannot, the call fails.
        let written = unsafe {
            let from = window.as_ptr().add(offset);
            libc::write(file.as_raw_fd(), from.cast(), bytes.len())
        };
        if written < 0 {
            let error = std::io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EFAULT) => Ok(None),
                _ => Err(error).context("write"),
            };
        }
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(u64::from_ne_bytes(bytes)))
    }

    /// Walks the list so often, and each time until a walk meets no change.
    fn walk(&mut self, head: u64, times: u64) -> Result<Answer> {
        // What is attached is attached now.
        self.word(head)?;
        let before = page_faults()?;
        let mut met_change = 0;
        let mut found: Option<(Walked, Walked)> = None;
        for _ in 0..times {
            let walked = loop {
                match walk(head, |address| self.word(address))? {
                    Some(walked) => break walked,
                    None => met_change += 1,
                }
            };
            found = Some((found.map_or(walked, |(first, _)| first), walked));
        }
        let (first, last) = found.context("no walk")?;
        Ok(Answer::Walked {
            first,
            last,
            met_change,
            faults: page_faults()? - before,
        })
    }
}

/// How many page faults this process has taken.
fn page_faults() -> Result<u64> {
    // SAFETY: All zeroes is a valid value, which getrusage() overwrites.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let done = libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        ensure!(done == 0, "getrusage");
        usage
    };
    Ok((usage.ru_minflt + usage.ru_majflt) as u64)
}

impl Role for Tool {
    type Order = Order;
    type Answer = Answer;

    fn obey(&mut self, order: Order, mut fds: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>)> {
        if let Order::Look { ends } = order {
            let lend = Lend::from(fds.pop().context("nothing was lent")?);
            let holes = if ends { Holes::SIGNAL } else { Holes::ABSORB };
            self.memory = Some(Memory::new(&lend, holes)?);
            return Ok((Answer::Done, None));
        }
        let memory = self
            .memory
            .as_mut()
            .context("there is nothing to look at")?;
        let answer = match order {
            Order::Walk { head, times } => memory.walk(head, times)?,
            Order::Load(address) => Answer::Word(memory.word(address)?),
            Order::Copy(address) => memory.copy(address)?.map_or(Answer::Hole, Answer::Word),
            other => bail!("{other:?} is for the target"),
        };
        Ok((answer, None))
    }
}
