// SPDX-License-Identifier: GPL-2.0

//! The process that composes the device's memory: it has the path, and nothing else of QEMU's.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use address_space::AddressSpace;
use anyhow::{Context as _, Result};
use rig::READ_WRITE;
use rig::memfd;
use rig::role::Role;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use serde::{Deserialize, Serialize};

use crate::spaces;

/// A page's length in bytes.
pub const PAGE: u64 = 4096;

/// What it is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Become a user without privilege.
    Become(u32),
    /// Open an address space.
    Open { path: PathBuf, write: bool },
    /// Map a new page there, all of whose words are so, in the place of what is mapped.
    Compose { at: u64, value: u64 },
    /// Take away the page there.
    TakeAway { at: u64 },
    /// The first word of the page that was mapped there.
    Word { at: u64 },
}

/// What it has.
#[derive(Default)]
pub struct Composer {
    space: Option<AddressSpace>,
    pages: HashMap<u64, File>,
}

impl Role for Composer {
    type Order = Order;
    /// The word that was asked for.
    type Answer = Option<u64>;

    fn obey(&mut self, order: Order, _: Vec<OwnedFd>) -> Result<(Self::Answer, Option<OwnedFd>)> {
        let space = || self.space.as_ref().context("nothing is open");
        let word = match order {
            Order::Become(id) => {
                set_thread_gid(Gid::from_raw(id))?;
                set_thread_uid(Uid::from_raw(id))?;
                None
            }
            Order::Open { path, write } => {
                self.space = Some(spaces::open(&path, write)?);
                None
            }
            Order::Compose { at, value } => {
                let file = memfd::resident("page", PAGE)?;
                file.write_all_at(&value.to_le_bytes().repeat(PAGE as usize / 8), 0)?;
                let map = space()?.map(&file).at(at).prot(READ_WRITE);
                map.replace().commit()?;
                self.pages.insert(at, file);
                None
            }
            Order::TakeAway { at } => {
                space()?.unmap(at..at + PAGE)?;
                None
            }
            Order::Word { at } => {
                let mut bytes = [0; 8];
                let file = self.pages.get(&at).context("nothing was mapped")?;
                file.read_exact_at(&mut bytes, 0)?;
                Some(u64::from_le_bytes(bytes))
            }
        };
        Ok((word, None))
    }
}

/// Lets everybody read a file, and only its owner write it.
pub fn everybody_may_read(path: &std::path::Path) -> Result<()> {
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o644))?)
}
