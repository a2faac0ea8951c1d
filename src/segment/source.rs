// SPDX-License-Identifier: GPL-2.0

//! What a segment is of: pages of a file, or of memory that was lent; and which checks have been
//! made for it, so that another map of the same can do without.
//!
//! Pages of a file may be *private*: what is written to them is written to copies, which belong to
//! that segment alone.

use core::ops::Range;

use kernel::{
    cred::Credential,
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

use crate::{
    layout::{
        FilePage,
        Pages,
        Prot, //
    },
    segment::lend::Lend,
    sys::{
        bindings,
        errno::EOPNOTSUPP,
        file,
        mm::CurrentMapping, //
    },
};

/// What can be shown: a file, or memory that was lent, with the file that stands for it.
#[derive(Clone)]
pub(crate) struct Backing {
    pub(crate) file: ARef<File>,
    pub(crate) lend: Option<Arc<Lend>>,
    /// Whether what is written is written to copies.
    pub(crate) private: bool,
}

/// What a segment is of, and with which credentials it was mapped.
#[derive(Clone)]
pub(crate) struct Source {
    /// The file.
    pub(crate) file: ARef<File>,
    /// What was lent, if it stands for that.
    pub(super) lend: Option<Arc<Lend>>,
    /// Whether what is written is written to copies.
    pub(super) private: bool,
    /// The credentials with which the checks were made.
    pub(crate) cred: ARef<Credential>,
    /// Pages of the file.
    pub(crate) part: Range<FilePage>,
    /// What the checks allowed.
    pub(crate) prot: Prot,
    /// Seals and mount options when they were made.
    limits: u32,
}

impl Source {
    /// Pages `part` of what is to be shown, as it stands now.
    pub(crate) fn new(
        Backing {
            file,
            lend,
            private,
        }: Backing,
        cred: ARef<Credential>,
        part: Range<FilePage>,
        prot: Prot,
    ) -> Source {
        let limits = file::mmap_limits(&file);
        Source {
            file,
            lend,
            private,
            cred,
            part,
            prot,
            limits,
        }
    }

    /// Whether it is memory that was lent.
    pub(crate) fn is_lent(&self) -> bool {
        self.lend.is_some()
    }

    /// Whether what is written is written to copies.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// Whether everything that `wanted` asks for was allowed to this very file, caller and
    /// protection already.
    ///
    /// A check that passed for another open file, for other credentials, for less, or before the
    /// file was sealed, is no check: then there must be another segment. (Of memory that was lent
    /// nothing is checked but the protection. And a seal does not forbid private copies, which
    /// would not be shared any more as soon as the file is sealed.)
    pub(super) fn covers(&self, wanted: &Source) -> bool {
        self.file.as_ptr() == wanted.file.as_ptr()
            && self.private == wanted.private
            && (self.is_lent() || self.cred.as_ptr() == wanted.cred.as_ptr())
            && self.prot.contains(wanted.prot)
            && (self.limits == wanted.limits || self.private && !wanted.prot.contains(Prot::EXEC))
            && self.part.start <= wanted.part.start
            && wanted.part.end <= self.part.end
    }

    /// Whether there can be private copies of it, if that is wanted: `EOPNOTSUPP` for memory that
    /// was lent, and for a file of huge pages, of which a copy is a huge page too, that must have
    /// been reserved, and of which no part can be given back.
    pub(crate) fn check_private(&self) -> Result {
        if self.private && (self.is_lent() || file::huge_page_size(&self.file) != 0) {
            return Err(EOPNOTSUPP.into());
        }
        Ok(())
    }

    /// Whether it was lent, if it is memory: `EINVAL` for what is beyond it, `EACCES` for more than
    /// it was lent for, `ESRCH` where it is no longer lent.
    pub(crate) fn check_lend(&self) -> Result {
        match &self.lend {
            Some(lend) if self.part.end.get() > lend.pages() => Err(EINVAL),
            Some(lend) if !lend.prot().contains(self.prot) => Err(EACCES),
            Some(lend) if !lend.is_lent() => Err(ESRCH),
            _ => Ok(()),
        }
    }

    /// The same, extended to whole huge pages where the file consists of them: it can only be
    /// mapped so. The layout may show any page of it all the same.
    ///
    /// And to all of what was lent: it takes nothing more, and one notifier for all of it does not
    /// let the lender wait for many.
    pub(crate) fn widened(mut self) -> Source {
        if let Some(lend) = &self.lend {
            self.part = FilePage::new(0)..FilePage::new(lend.pages());
            return self;
        }
        let pages = (file::huge_page_size(&self.file) >> PAGE_SHIFT) as u64;
        if pages > 1 {
            let (start, end) = (self.part.start.get(), self.part.end.get());
            let start = FilePage::new(start - start % pages);
            self.part = start..FilePage::new(end.next_multiple_of(pages));
        }
        self
    }

    /// Reserves huge pages, which mmap() does for a file that consists of them, on behalf of the
    /// caller: whoever maps a part first is charged for it, and a worker is in no cgroup that has a
    /// limit. Errors of mmap().
    pub(crate) fn reserve(&self) -> Result {
        if file::huge_page_size(&self.file) == 0 {
            return Ok(());
        }
        let bytes = |pages: u64| (pages << PAGE_SHIFT) as usize;
        let (offset, length) = (bytes(self.part.start.get()), bytes(self.part.count()));
        // What is reserved stays with the file when it is unmapped.
        CurrentMapping::new(
            Some(&self.file),
            0,
            offset,
            length,
            (self.prot | Prot::READ).bits(),
            bindings::MAP_SHARED,
        )
        .map(drop)
    }
}
