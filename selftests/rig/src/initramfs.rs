// SPDX-License-Identifier: GPL-2.0

//! The first file system of a Linux guest: its program, and directories to mount others on.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::ModeFileType;
use cpio::{NewcBuilder, write_cpio};

/// Makes one, of files in `folder`: the program that is started first, and those that it finds
/// beside it.
pub fn initramfs(folder: &Path, program: &str, others: &[&str]) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    for name in ["dev", "mnt", "proc", "sys"] {
        let builder = NewcBuilder::new(name).mode(0o755);
        files.push((
            builder.set_mode_file_type(ModeFileType::Directory),
            Cursor::new(Vec::new()),
        ));
    }
    let others = others.iter().map(|name| (*name, *name));
    for (name, from) in std::iter::once(("init", program)).chain(others) {
        let path = folder.join(from);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let builder = NewcBuilder::new(name).mode(0o755);
        files.push((
            builder.set_mode_file_type(ModeFileType::Regular),
            Cursor::new(bytes),
        ));
    }
    Ok(write_cpio(files.into_iter(), Vec::new())?)
}
