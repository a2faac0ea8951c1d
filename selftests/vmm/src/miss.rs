// SPDX-License-Identifier: GPL-2.0

//! An access to what is not in the guest's memory. KVM does not say where one was: the kernel
//! tells by an event, or, after KVM_RUN has failed, in fdinfo.

use std::fmt;

use address_space::Event;
use anyhow::{Context as _, Result};
use rig::fdinfo;

use crate::guest_memory::GuestMemory;

/// A page of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePage {
    pub path: String,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The guest physical address of the page.
    pub addr: u64,
    /// As `rwx` with dashes.
    pub access: String,
    /// The word of fdinfo.
    pub reason: String,
    /// What was mapped there.
    pub page: Option<FilePage>,
}

impl Miss {
    pub fn of_event(memory: &GuestMemory, event: &Event) -> Result<Miss> {
        let info = fdinfo::read(memory.space())?;
        Ok(Miss {
            addr: event.offset,
            access: event.access.to_string(),
            reason: event.kind.to_string(),
            page: page_at(&info, event.offset)?,
        })
    }

    /// The last one, and how many there have been.
    pub fn last(memory: &GuestMemory) -> Result<(Miss, u64)> {
        let info = fdinfo::read(memory.space())?;
        let last = fdinfo::last_refusal(&info)?.context("nothing was refused")?;
        let miss = Miss {
            addr: last.offset,
            access: last.access,
            reason: last.reason,
            page: page_at(&info, last.offset)?,
        };
        Ok((miss, last.count))
    }

    /// Whether it is past the end of a file with this name.
    pub fn is_past_end_of(&self, name: &str) -> bool {
        let page = self.page.as_ref();
        self.reason == "past-end" && page.is_some_and(|page| page.path.ends_with(name))
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Miss {
            addr,
            access,
            reason,
            page,
        } = self;
        write!(f, "{access} of guest address {addr:#x}: {reason}, at ")?;
        match page {
            Some(FilePage { path, offset }) => write!(f, "{offset:#x} of {path}"),
            None => write!(f, "nothing"),
        }
    }
}

/// What is mapped at an address.
fn page_at(info: &str, addr: u64) -> Result<Option<FilePage>> {
    let mappings = fdinfo::mappings(info)?;
    let found = mappings
        .into_iter()
        .find(|mapping| mapping.range.contains(&addr));
    Ok(found.map(|mapping| FilePage {
        offset: mapping.offset + (addr - mapping.range.start),
        path: mapping.path,
    }))
}
