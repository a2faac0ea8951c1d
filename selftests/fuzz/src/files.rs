// SPDX-License-Identifier: GPL-2.0

//! The files that are shown, and the changes that their owner makes to them directly. What is
//! lent is a file here, too.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rig::plain::Plain;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fstat, major, memfd_create, minor};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::model::{self, is_hot};
use crate::op::*;
use crate::own_memory::OwnMemory;

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
                Kind::Memfd | Kind::Lent => true,
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
        6 => (Kind::Lent, 24, 40),
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

/// A file, mapped by its owner; or what is one to others.
pub struct Shared {
    /// In cells.
    most: u64,
    content: Content,
    /// In /proc.
    path: PathBuf,
}

enum Content {
    /// A file, open twice, and whether it is on a disk.
    File {
        writable: File,
        readable: File,
        mapping: Plain,
        disk: bool,
    },
    Lent(OwnMemory),
}

impl Shared {
    /// Makes a file with its first content, and the model of it.
    pub fn make(places: &Places, number: usize) -> Result<(Shared, model::File)> {
        let (kind, pages, most) = kind(number);
        let content = match kind {
            Kind::Lent => Content::Lent(OwnMemory::new(pages, most)?),
            _ => Content::file(places, number)?,
        };
        let name = format!("/proc/self/fd/{}", content.fd(true).as_raw_fd());
        let file = Shared {
            most: most * CELLS,
            content,
            path: std::fs::read_link(name)?,
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
        self.content.fd(writable)
    }

    /// Whether a path in /proc is this file's.
    pub fn is_at(&self, path: &str) -> bool {
        self.path.to_str() == Some(path)
    }

    /// Whether it is this file that a mapping shows.
    pub fn is_shown(&self, source: &address_space::Source) -> bool {
        use address_space::Source;
        match (source, &self.content) {
            (Source::Lent, Content::Lent(_)) => true,
            (Source::File { device, inode }, Content::File { readable, .. }) => fstat(readable)
                .is_ok_and(|file| {
                    (major(file.st_dev), minor(file.st_dev), file.st_ino)
                        == (device.0, device.1, *inode)
                }),
            _ => false,
        }
    }

    /// Writes through the owner's own mapping; within the file.
    pub fn write_mapped(&self, cell: u64, value: u64) {
        assert!(cell < self.most);
        // SAFETY: The cell is within the mapping, as was checked, and aligned; the model
        // makes sure that it is within the file.
        unsafe {
            let word: *mut u64 = self
                .content
                .mapping()
                .as_ptr()
                .add((cell * CELL) as usize)
                .cast();
            word.write_volatile(value);
        }
    }

    pub fn read_mapped(&self, cell: u64) -> u64 {
        assert!(cell < self.most);
        // SAFETY: The cell is within the mapping, as was checked, and aligned; the model
        // makes sure that it is within the file.
        unsafe {
            let word: *const u64 = self
                .content
                .mapping()
                .as_ptr()
                .add((cell * CELL) as usize)
                .cast();
            word.read_volatile()
        }
    }

    pub fn write(&self, cell: u64, value: u64) -> Result<()> {
        let mut bytes = [0; CELL as usize];
        bytes[..8].copy_from_slice(&value.to_ne_bytes());
        match &self.content {
            Content::File { writable, .. } => {
                writable.write_all_at(&bytes, cell * CELL).context("write")
            }
            Content::Lent(own) => own.write(cell * CELL, &bytes),
        }
    }

    pub fn truncate(&self, cells: u64) -> Result<()> {
        match &self.content {
            Content::File { writable, .. } => writable.set_len(cells * CELL).context("ftruncate"),
            Content::Lent(own) => own.resize(cells / CELLS),
        }
    }

    pub fn punch(&self, at: Span) -> Result<()> {
        match &self.content {
            Content::File { writable, .. } => fallocate(
                writable,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                at.start * CELL,
                at.count * CELL,
            )
            .context("fallocate"),
            Content::Lent(own) => own.drop_pages(Span::new(at.start / CELLS, at.count / CELLS)),
        }
    }

    /// Takes back what was lent.
    pub fn take_back(&self) -> Result<()> {
        match &self.content {
            Content::File { .. } => bail!("a file is not lent"),
            Content::Lent(own) => own.take_back(),
        }
    }

    /// Gives the kernel advice, which it may not follow.
    pub fn advise(&self, at: Span, advice: Advice) -> Result<()> {
        let mapping = self.content.mapping();
        let advise = |advice| {
            let start = (at.start * CELL / PAGE * PAGE) as usize;
            let end = ((at.end() * CELL).next_multiple_of(PAGE) as usize).min(mapping.length());
            if start < end {
                // SAFETY: The range is within the mapping, and no such advice changes its
                // content.
                unsafe { libc::madvise(mapping.as_ptr().add(start).cast(), end - start, advice) };
            }
        };
        match advice {
            Advice::Sync => self.content.sync()?,
            Advice::PageOut => advise(libc::MADV_PAGEOUT),
            Advice::Collapse => advise(libc::MADV_COLLAPSE),
            Advice::DropCaches => {
                if matches!(self.content, Content::File { disk: true, .. }) {
                    self.content.sync()?;
                }
                std::fs::write("/proc/sys/vm/drop_caches", "1").context("drop_caches")?;
            }
        }
        Ok(())
    }

    /// The size in cells, and the words that are not 0, with their cells.
    pub fn content(&self) -> Result<Seen> {
        let readable = match &self.content {
            Content::File { readable, .. } => readable,
            Content::Lent(own) => {
                let cells = own.pages() * CELLS;
                let words = (0..cells).map(|cell| (cell, self.read_mapped(cell)));
                return Ok(Seen::Content(cells, words.filter(|it| it.1 != 0).collect()));
            }
        };
        let size = readable.metadata().context("fstat")?.len();
        let mut words = Vec::new();
        let mut bytes = vec![0; 1 << 20];
        for start in (0..size).step_by(bytes.len()) {
            let part = (size - start).min(bytes.len() as u64) as usize;
            let part = &mut bytes[..part];
            readable.read_exact_at(part, start).context("read")?;
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

impl Content {
    /// A file, which is as long as its kind is at first.
    fn file(places: &Places, number: usize) -> Result<Content> {
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
            Kind::Lent => bail!("what is lent is no file"),
        };
        writable.set_len(pages * PAGE).context("ftruncate")?;
        let name = format!("/proc/self/fd/{}", writable.as_raw_fd());
        let readable = File::open(name).context("cannot open it again")?;
        let mapping = Plain::of(&writable, 0, (most * PAGE) as usize)?;
        mapping.do_not_inherit()?;
        Ok(Content::File {
            writable,
            readable,
            mapping,
            disk: kind == Kind::Ext4,
        })
    }

    fn fd(&self, writable: bool) -> BorrowedFd<'_> {
        match self {
            Content::File { writable: file, .. } if writable => file.as_fd(),
            Content::File { readable, .. } => readable.as_fd(),
            Content::Lent(own) => own.fd(writable),
        }
    }

    fn mapping(&self) -> &Plain {
        match self {
            Content::File { mapping, .. } => mapping,
            Content::Lent(own) => own.mapping(),
        }
    }

    fn sync(&self) -> Result<()> {
        match self {
            Content::File { writable, .. } => writable.sync_all().context("fsync"),
            Content::Lent(_) => Ok(()),
        }
    }
}
