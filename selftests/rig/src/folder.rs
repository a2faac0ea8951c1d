// SPDX-License-Identifier: GPL-2.0

//! Temporary directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, Result};

/// A directory that is removed, with all that is in it, when this is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one, with `name` in its name.
    pub fn new(name: &str) -> Result<Folder> {
        // A program may make several with the same name.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (id, number) = (std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(format!("selftest-{id}-{name}-{number}"));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
