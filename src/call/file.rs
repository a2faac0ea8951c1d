// SPDX-License-Identifier: GPL-2.0

//! What the files of an asfd and of a view have in common: they can be mapped, measured and opened
//! again like a memfd, and cannot be read or written.

use core::ops::Range;

use kernel::{
    bindings::{
        VM_SHARED,
        VM_WRITE, //
    },
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

use crate::{
    attachment::attach::attach,
    layout::Prot,
    space::{
        bytes,
        terms::Terms,
        Space, //
    },
    sys::{
        file_operations::{
            Control,
            FileOperations,
            NewVma, //
        },
        mapping::Mapping,
    },
};

/// What an open file shows of a space.
pub(crate) trait SpaceFile: Sync + Send + Sized + 'static {
    /// On what terms it shows the space.
    fn terms(&self) -> &Arc<Terms>;
    /// Number of pages.
    fn pages(&self) -> u64;
    /// What attachments may be made for.
    fn prot(&self) -> Prot;
    /// Whether what is shown can be changed through it.
    fn manages(&self) -> bool;
    /// Whether its holder may choose any terms for what it makes of it.
    const IS_OWNER: bool;
    /// The calls.
    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize>;
    /// What /proc/PID/fdinfo shows.
    fn show(&self, out: &SeqFile);

    /// The space.
    fn space(&self) -> &Arc<Space> {
        self.terms().space()
    }
}

impl<T: SpaceFile> Control for T {
    fn size(&self) -> u64 {
        bytes(self.pages())
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        SpaceFile::ioctl(self, file, cmd, arg)
    }

    fn show_fdinfo(&self, out: &SeqFile) {
        self.show(out);
    }
}

impl<T: SpaceFile> FileOperations for T {
    type Shown = Terms;

    fn is_writable(&self) -> bool {
        self.prot().contains(Prot::WRITE) || self.manages()
    }

    fn shown(&self) -> Result<ArcBorrow<'_, Terms>> {
        Ok(self.terms().as_arc_borrow())
    }

    /// The space's: attachments through a view are linked where those of the asfd are, at the
    /// space's own offsets, so that one zap reaches all.
    fn mapping(&self) -> &Mapping {
        &self.space().mapping
    }

    /// `EACCES` for writing where that is not allowed; `EINVAL` past the end.
    fn mmap(&self, new: &NewVma<'_, Terms>, first: u64) -> Result {
        // Whatever the range: so the kernel answers where a file is open for reading only.
        let writes = new.vma().flags() & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE;
        if writes && !self.prot().contains(Prot::WRITE) {
            return Err(EACCES);
        }
        let pages = ((new.vma().end() - new.vma().start()) >> PAGE_SHIFT) as u64;
        let end = first.checked_add(pages).ok_or(EOVERFLOW)?;
        if end > self.pages() {
            return Err(EINVAL);
        }
        attach(new, self.terms().first + first, self.prot())
    }

    /// Of all of a space what shows something. A view does not count it: its holder could have
    /// that done without an end.
    fn allocated(&self) -> u64 {
        match Self::IS_OWNER {
            true => bytes(self.space().install.read().layout.mapped()),
            false => 0,
        }
    }

    /// The page of the space: a view begins somewhere in it.
    fn huge_page_offset(&self, first: usize) -> usize {
        first.wrapping_add(self.terms().first.get() as usize)
    }

    fn seek(&self, from: u64, hole: bool) -> Result<u64> {
        let first = self.terms().first;
        let range = first + (from >> PAGE_SHIFT)..first + self.pages();
        let space = self.space();
        let page = match hole {
            true => space.next_hole(&range)?,
            false => space.next_shown(&range)?.ok_or(ENXIO)?,
        };
        Ok(from.max(bytes(page - first)))
    }

    fn fsync(&self, bytes: Range<u64>, datasync: bool) -> Result {
        let ours = self.terms().first;
        let first = bytes.start >> PAGE_SHIFT;
        let end = bytes.end.div_ceil(1 << PAGE_SHIFT);
        // Pages of the file: or of the space, from msync(), which takes them from the VMA. Nothing
        // says which, so it is done for both where they differ.
        let [of_space, of_file] = [ours.get(), 0].map(|before| {
            first.saturating_sub(before)..end.saturating_sub(before).min(self.pages())
        });
        let sync = |pages: &Range<u64>| match pages.is_empty() {
            true => Ok(()),
            false => self
                .space()
                .sync(ours + pages.start..ours + pages.end, datasync),
        };
        let synced = sync(&of_space);
        if of_file == of_space {
            return synced;
        }
        synced.and(sync(&of_file))
    }
}
