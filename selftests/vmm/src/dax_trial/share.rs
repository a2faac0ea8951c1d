// SPDX-License-Identifier: GPL-2.0

//! The directory that the guest mounts, as its host sees it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rig::folder::Folder;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vmm_guest::dax::{
    CHUNK, Content, HOST, HUGE, LARGE, MADE, NAMED, NAMES, PROGRAM, REGROWN, SHORT, SHRINKING,
    TURNS, chunks, made,
};
use vmm_guest::pattern::{difference, pattern};

pub struct Share {
    folder: Folder,
    /// Where a tmpfs with huge pages is mounted.
    huge: PathBuf,
}

impl Share {
    /// With all that the guest finds in it. `program` is that of the guest itself.
    pub fn new(program: &Path) -> Result<Share> {
        let folder = Folder::new("share")?;
        let huge = folder.path().join("huge");
        fs::create_dir(&huge)?;
        mount(
            "tmpfs",
            &huge,
            "tmpfs",
            MountFlags::empty(),
            Some(c"huge=always"),
        )
        .context("a tmpfs with huge pages")?;
        let share = Share { folder, huge };
        for content in [HOST, HUGE].into_iter().chain(SHRINKING) {
            fs::write(
                share.path(content.name),
                pattern(content.file, 0, content.length),
            )?;
        }
        let large = File::create(share.path(LARGE.name))?;
        large.set_len(LARGE.length as u64)?;
        for at in chunks().map(|start| start as u64) {
            large.write_all_at(&pattern(LARGE.file, at, CHUNK), at)?;
        }
        File::create(share.path(TURNS.name))?.set_len(TURNS.length as u64)?;
        fs::copy(program, share.path(PROGRAM)).context("the guest's program")?;
        Ok(share)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Checks that a file begins with its content; returns what follows.
    pub fn expect(&self, content: Content) -> Result<Vec<u8>> {
        let mut is = fs::read(self.path(content.name))?;
        let rest = is.split_off(content.length.min(is.len()));
        same(content.name, &is, &pattern(content.file, 0, content.length))?;
        Ok(rest)
    }

    /// Checks that a file has this content, and no more.
    pub fn expect_all(&self, content: Content) -> Result<()> {
        let rest = self.expect(content)?;
        ensure!(
            rest.is_empty(),
            "{} has {} bytes more",
            content.name,
            rest.len()
        );
        Ok(())
    }

    pub fn write(&self, content: Content, from: usize, at: u64) -> Result<()> {
        write(self.directory(), content, from, at)
    }

    /// Checks that the guest has made its files, and no others.
    pub fn expect_made(&self, files: u64) -> Result<()> {
        for number in 0..files {
            let text = fs::read_to_string(self.path(&made(number)))?;
            ensure!(text == made(number), "{} has {text:?}", made(number));
        }
        let directory = self.path(MADE);
        let count = fs::read_dir(directory)?.count() as u64;
        ensure!(count == files, "there are {count} files, and not {files}");
        Ok(())
    }

    pub fn expect_names(&self) -> Result<()> {
        let [old, new, removed] = NAMES.map(|name| self.path(name));
        ensure!(!old.exists() && !removed.exists(), "a name is still there");
        let text = fs::read_to_string(&new)?;
        ensure!(text == NAMED, "{} has {text:?}", new.display());
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = unmount(&self.huge, UnmountFlags::DETACH);
    }
}

/// Writes the content of a file, from `from` of it on.
fn write(directory: &Path, content: Content, from: usize, at: u64) -> Result<()> {
    let bytes = pattern(content.file, from as u64, content.length - from);
    let file = OpenOptions::new()
        .write(true)
        .open(directory.join(content.name))?;
    Ok(file.write_all_at(&bytes, at)?)
}

/// Cuts a file to [`SHORT`].
pub fn cut(directory: &Path, content: Content) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(directory.join(content.name))?;
    Ok(file.set_len(SHORT as u64)?)
}

/// Makes a file longer again that was cut, with other content.
pub fn grow(directory: &Path, content: Content) -> Result<()> {
    write(directory, content, REGROWN, REGROWN as u64)
}

/// Checks that two contents are the same.
pub fn same(name: &str, is: &[u8], should: &[u8]) -> Result<()> {
    match difference(is, should) {
        None => Ok(()),
        Some(at) => bail!(
            "{name} of {} bytes is another at {at:#x}; {} are right",
            is.len(),
            should.len()
        ),
    }
}
