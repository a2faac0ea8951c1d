// SPDX-License-Identifier: GPL-2.0

//! The directory that the guest mounts, as its host sees it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use rig::folder::Folder;
use vmm_guest::dax::{CHUNK, Content, HOST, LARGE, REPLY, REPLY_AT, chunks};
use vmm_guest::desk::DESK;
use vmm_guest::pattern::{difference, pattern};

/// The directory, which is removed when this is dropped.
pub struct Share(Folder);

impl Share {
    /// With all that the guest finds in it.
    pub fn new() -> Result<Share> {
        let share = Share(Folder::new("share")?);
        let path = |content: Content| share.directory().join(content.name);
        File::create(path(DESK))?.set_len(DESK.length as u64)?;
        fs::write(path(HOST), pattern(HOST.file, 0, HOST.length))?;
        let large = File::create(path(LARGE))?;
        large.set_len(LARGE.length as u64)?;
        for at in chunks().map(|start| start as u64) {
            large.write_all_at(&pattern(LARGE.file, at, CHUNK), at)?;
        }
        Ok(share)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// Opens one of its files, for reading and writing.
    pub fn open(&self, content: Content) -> Result<File> {
        let path = self.directory().join(content.name);
        Ok(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Checks that a file has its content, and no more.
    pub fn expect(&self, content: Content) -> Result<()> {
        let is = fs::read(self.directory().join(content.name))?;
        let should = pattern(content.file, 0, content.length);
        let at = difference(&is, &should);
        ensure!(at.is_none(), "{} is another at {at:#x?}", content.name);
        Ok(())
    }

    /// Writes into the guest's file.
    pub fn reply(&self) -> Result<()> {
        let bytes = pattern(REPLY.file, 0, REPLY.length);
        Ok(self.open(REPLY)?.write_all_at(&bytes, REPLY_AT as u64)?)
    }
}
