// SPDX-License-Identifier: GPL-2.0

//! The files that are shown, and the changes that their owner makes to them directly.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rig::plain::Plain;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::model::{self, is_hot};
use crate::op::*;

const HUGE_POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Pages of files with huge pages: two huge ones.
const HUGE_FILE: u64 = 2 * HUGE;

/// Where files of the different kinds can be made.
pub struct Places {
    hugetlb: bool,
    huge_tmpfs: Option<PathBuf>,
    disk: Option<PathBuf>,
}

impl Places {
    /// Prepares what can be prepared; `skip` gets the reason for each that cannot.
    pub fn prepare(disk: &Path, skip: impl Fn(String)) -> Places {
        let huge_tmpfs = mount_huge()
            .inspect_err(|error| skip(format!("no tmpfs with huge pages: {error:#}")))
            .ok();
        let hugetlb = reserve_huge()
            .inspect_err(|error| skip(format!("no hugetlb pages: {error:#}")))
            .is_ok();
        let disk = temporary(disk)
            .inspect_err(|error| skip(format!("no file on {}: {error}", disk.display())))
            .is_ok()
            .then(|| disk.to_owned());
        Places {
            hugetlb,
            huge_tmpfs,
            disk,
        }
    }

    /// Which files can be made.
    pub fn files(&self) -> Vec<usize> {
        (0..FILES)
            .filter(|file| match kind(*file).0 {
                Kind::Memfd => true,
                Kind::Hugetlb => self.hugetlb,
                Kind::HugeTmpfs => self.huge_tmpfs.is_some(),
                Kind::Ext4 => self.disk.is_some(),
            })
            .collect()
    }
}

/// What a file is, how many pages it has, and how many it may get.
pub fn kind(file: usize) -> (Kind, u64, u64) {
    match file {
        0 | 1 => (Kind::Memfd, 24, 40),
        2 => (Kind::Hugetlb, HUGE_FILE, HUGE_FILE),
        3 => (Kind::HugeTmpfs, HUGE_FILE, HUGE_FILE + 40),
        4 => (Kind::Ext4, 24, 40),
        _ => (Kind::Memfd, HUGE + 40, HUGE + 80),
    }
}

fn mount_huge() -> Result<PathBuf> {
    // SAFETY: A new mount namespace is safe: file descriptors are not unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("mount")?;
    let dir = PathBuf::from("/tmp/fuzz");
    std::fs::create_dir_all(&dir).context("mkdir")?;
    mount(
        "fuzz",
        &dir,
        "tmpfs",
        MountFlags::empty(),
        Some(c"size=64m,huge=always"),
    )
    .context("mount")?;
    Ok(dir)
}

fn reserve_huge() -> Result<()> {
    // For the files of two sequences, since pages are freed with a delay.
    let wanted = 4 * HUGE_FILE / HUGE;
    let have = || -> Result<u64> { Ok(std::fs::read_to_string(HUGE_POOL)?.trim().parse()?) };
    if have()? < wanted {
        std::fs::write(HUGE_POOL, wanted.to_string())?;
    }
    ensure!(have()? >= wanted, "the kernel has not enough memory");
    Ok(())
}

fn temporary(dir: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(dir)
}

/// A file, open twice, and mapped by its owner.
pub struct Shared {
    kind: Kind,
    /// In cells.
    most: u64,
    writable: File,
    readable: File,
    /// In /proc.
    path: PathBuf,
    mapping: Plain,
}

impl Shared {
    /// Makes a file with its first content, and the model of it.
    pub fn make(places: &Places, number: usize) -> Result<(Shared, model::File)> {
        let (kind, pages, most) = kind(number);
        let memfd = |flags| -> Result<File> {
            let name = format!("fuzz{number}");
            Ok(memfd_create(name, MemfdFlags::CLOEXEC | flags)?.into())
        };
        let here = |dir: &Option<PathBuf>| -> Result<File> {
            Ok(temporary(dir.as_deref().context("no such place")?)?)
        };
        let writable = match kind {
            Kind::Memfd => memfd(MemfdFlags::empty())?,
            Kind::Hugetlb => memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?,
            Kind::HugeTmpfs => here(&places.huge_tmpfs)?,
            Kind::Ext4 => here(&places.disk)?,
        };
        writable.set_len(pages * PAGE).context("ftruncate")?;
        let name = format!("/proc/self/fd/{}", writable.as_raw_fd());
        let readable = File::open(&name).context("cannot open it again")?;
        let path = std::fs::read_link(name)?;
        let length = (most * PAGE) as usize;
        let mapping = Plain::of(&writable, 0, length)?;
        mapping.do_not_inherit()?;
        let file = Shared {
            kind,
            most: most * CELLS,
            writable,
            readable,
            path,
            mapping,
        };
        let mut model = model::File::new(kind, pages, most);
        for cell in (0..model.size).filter(|cell| is_hot(cell / CELLS)) {
            let value = model::first_value(number, cell);
            file.write_mapped(cell, value);
            model.cells[cell as usize] = value;
        }
        Ok((file, model))
    }

    pub fn fd(&self, writable: bool) -> BorrowedFd<'_> {
        if writable {
            self.writable.as_fd()
        } else {
            self.readable.as_fd()
        }
    }

    /// Whether a path in /proc is this file's.
    pub fn is_at(&self, path: &str) -> bool {
        self.path.to_str() == Some(path)
    }

    /// Writes through the owner's own mapping; within the file.
    pub fn write_mapped(&self, cell: u64, value: u64) {
        assert!(cell < self.most);
        // SAFETY: The cell is within the mapping, as was checked, and aligned; the model
        // makes sure that it is within the file.
        unsafe {
            let word: *mut u64 = self.mapping.as_ptr().add((cell * CELL) as usize).cast();
            word.write_volatile(value);
        }
    }

    pub fn read_mapped(&self, cell: u64) -> u64 {
        assert!(cell < self.most);
        // SAFETY: The cell is within the mapping, as was checked, and aligned; the model
        // makes sure that it is within the file.
        unsafe {
            let word: *const u64 = self.mapping.as_ptr().add((cell * CELL) as usize).cast();
            word.read_volatile()
        }
    }

    pub fn write(&self, cell: u64, value: u64) -> Result<()> {
        let mut bytes = [0; CELL as usize];
        bytes[..8].copy_from_slice(&value.to_ne_bytes());
        self.writable
            .write_all_at(&bytes, cell * CELL)
            .context("write")
    }

    pub fn truncate(&self, cells: u64) -> Result<()> {
        self.writable.set_len(cells * CELL).context("ftruncate")
    }

    pub fn punch(&self, at: Span) -> Result<()> {
        fallocate(
            &self.writable,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            at.start * CELL,
            at.count * CELL,
        )
        .context("fallocate")
    }

    /// Gives the kernel advice, which it may not follow.
    pub fn advise(&self, at: Span, advice: Advice) -> Result<()> {
        let advise = |advice| {
            let start = (at.start * CELL / PAGE * PAGE) as usize;
            let end =
                ((at.end() * CELL).next_multiple_of(PAGE) as usize).min(self.mapping.length());
            if start < end {
                // SAFETY: The range is within the mapping, and no such advice changes its
                // content.
                unsafe {
                    libc::madvise(self.mapping.as_ptr().add(start).cast(), end - start, advice)
                };
            }
        };
        match advice {
            Advice::Sync => self.writable.sync_all().context("fsync")?,
            Advice::PageOut => advise(libc::MADV_PAGEOUT),
            Advice::Collapse => advise(libc::MADV_COLLAPSE),
            Advice::DropCaches => {
                if self.kind == Kind::Ext4 {
                    self.writable.sync_all().context("fsync")?;
                }
                std::fs::write("/proc/sys/vm/drop_caches", "1").context("drop_caches")?;
            }
        }
        Ok(())
    }

    /// The size in cells, and the words that are not 0, with their cells.
    pub fn content(&self) -> Result<Seen> {
        let size = self.writable.metadata().context("fstat")?.len();
        let mut words = Vec::new();
        let mut bytes = vec![0; 1 << 20];
        for start in (0..size).step_by(bytes.len()) {
            let part = (size - start).min(bytes.len() as u64) as usize;
            let part = &mut bytes[..part];
            self.readable.read_exact_at(part, start).context("read")?;
            for (cell, word) in (start / CELL..).zip(part.chunks(CELL as usize)) {
                let word = word
                    .first_chunk()
                    .map_or(0, |word| u64::from_ne_bytes(*word));
                if word != 0 {
                    words.push((cell, word));
                }
            }
        }
        Ok(Seen::Content(size.div_ceil(CELL), words))
    }
}
