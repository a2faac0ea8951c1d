// SPDX-License-Identifier: GPL-2.0

//! The host's directory, as the guest mounts it and looks at it.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};

use crate::dax::{Content, TAG};
use crate::mapping::{Mapping, Stores};
use crate::pattern::{difference, pattern};

const MOUNT: &str = "/mnt";

/// Where something in the directory is.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(MOUNT).join(name)
}

/// Mounts it, with the window.
pub fn mount_share() -> Result<()> {
    let options = Some(c"dax=always");
    mount(TAG, MOUNT, "virtiofs", MountFlags::empty(), options).context("mount")?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let found = mounts.lines().find(|line| line.contains(" virtiofs "));
    let found = found.context("nothing is mounted")?;
    ensure!(found.contains("dax=always"), "mounted without DAX: {found}");
    Ok(())
}

/// Maps one of its files.
pub fn mapped(content: Content, stores: Stores) -> Result<Mapping> {
    let file = match stores {
        Stores::None => File::open(path(content.name)),
        _ => OpenOptions::new()
            .read(true)
            .write(true)
            .open(path(content.name)),
    };
    let file = file.with_context(|| format!("cannot open {}", content.name))?;
    Mapping::new(&file, content.length, stores)
}

/// Compares a part of a mapping with the content that it should have.
pub fn expect(content: Content, mapping: &Mapping, range: Range<usize>) -> Result<()> {
    let should = pattern(content.file, range.start as u64, range.len());
    same(content.name, range.start, &mapping.bytes(range)?, &should)
}

/// Compares what is at `start` of a file with what should be there.
pub fn same(name: &str, start: usize, is: &[u8], should: &[u8]) -> Result<()> {
    if let Some(at) = difference(is, should) {
        let end = |bytes: &[u8]| bytes.len().min(at + 8);
        bail!(
            "{name} has at {:#x} {:x?} and not {:x?}",
            start + at,
            &is[at..end(is)],
            &should[at..end(should)]
        );
    }
    Ok(())
}
