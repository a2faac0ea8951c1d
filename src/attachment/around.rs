// SPDX-License-Identifier: GPL-2.0

//! The pages around a fault: which are installed with the one that is touched.
//!
//! What is known of them is installed in the same page table: that makes a neighbour cost a
//! hundredth of a fault's own page.
//!
//! Locks: under the fault's own; entries are made under the install lock, and memory for the page
//! table is there before.

use core::ops::{
    ControlFlow,
    Range, //
};

use kernel::page::PAGE_SHIFT;

use crate::{
    attachment::{
        install::{
            self,
            PageTable, //
        },
        vma::{
            FaultContext,
            HUGE_SIZE, //
        },
    },
    layout::{
        Pages,
        Prot,
        SpacePage, //
    },
    space::{
        readahead::{
            AROUND,
            MOST, //
        },
        resolve::{
            Caution,
            Miss, //
        },
        retry::{
            Reach,
            Retry, //
        },
        Space, //
    },
    sys::bindings,
};

/// The pages that a fault may install.
pub(crate) struct Around {
    /// Those, if they are known: no more than what lies in the VMA, and in one page table.
    pub(crate) pages: Range<SpacePage>,
    /// With how many readahead would go on but for that.
    pub(crate) count: u64,
    /// What of them is not to be installed.
    pub(crate) caution: Caution,
}

impl Around {
    /// Those of a fault.
    pub(crate) fn of(context: &FaultContext<'_>, access: Prot, denied: bool) -> Self {
        let page = context.page();
        let count = context.space().readahead.count(page);
        // For a write too: where a page is known that may be written, it counts as written already.
        let near = aligned(page, AROUND);
        Around {
            pages: clip(context, near.start..near.end.max(page + count)),
            count,
            caution: caution(context, access, denied),
        }
    }
}

/// The pages to be installed instead where readahead does not go on, and the arena lacks pages of
/// this segment again and again: as with accesses at random to a file that is in memory.
pub(crate) fn wider(context: &FaultContext<'_>) -> Range<SpacePage> {
    clip(context, aligned(context.page(), MOST as u64))
}

/// The aligned run of so many pages that has `page`.
fn aligned(page: SpacePage, pages: u64) -> Range<SpacePage> {
    let first = page - page.get() % pages;
    first..first + pages
}

/// What of `pages` lies in the VMA of a fault, and in the page table.
fn clip(context: &FaultContext<'_>, pages: Range<SpacePage>) -> Range<SpacePage> {
    let (page, addr) = (context.page(), context.address());
    let shown = context.attachment().pages();
    let in_table = (addr % HUGE_SIZE >> PAGE_SHIFT) as u64;
    let start = pages.start.max(shown.start);
    let end = pages.end.min(shown.end);
    start.max(page - in_table.min(page.get()))..end.min(page + install::pages_to_end_of_table(addr))
}

/// What is not to be installed for an access: neighbours might be to be written, and then there must
/// be no entry for reading; see `fault_for_vm.rs`. Nor the page itself, if writing was `denied` and
/// is not any more.
pub(crate) fn caution(context: &FaultContext<'_>, access: Prot, denied: bool) -> Caution {
    let attachment = context.attachment();
    if access.contains(Prot::WRITE)
        || !attachment.has_secondary_mmu()
        || attachment.vma().flags() & bindings::VM_WRITE == 0
    {
        Caution::None
    } else if denied {
        Caution::Writable
    } else {
        Caution::Neighbours
    }
}

/// Installs what is known of the pages `around`, if `page` is; returns how many from that on have
/// been installed without a gap.
pub(crate) fn install_run(
    space: &Space,
    table: &PageTable<'_>,
    page: SpacePage,
    around: &Range<SpacePage>,
    access: Prot,
    caution: Caution,
) -> Result<u64, Miss> {
    space.with_run::<MOST, _>(page, around, access, caution, |run| {
        table.insert(run);
        run.ahead()
    })
}

/// Installs the pages of `rest`, as far as that needs no waiting; returns how many.
///
/// In pieces: others want the install lock too.
pub(crate) fn install_ahead(
    space: &Space,
    table: &PageTable<'_>,
    rest: &Range<SpacePage>,
    access: Prot,
) -> u64 {
    let mut page = rest.start;
    let mut missing = false;
    while page < rest.end {
        let piece = page..rest.end.min(page + MOST as u64);
        let installed = install_piece(space, table, &piece, access, &mut missing);
        if installed == 0 {
            break;
        }
        page = page + installed;
    }
    page - rest.start
}

/// Installs what comes first of `piece`; returns how many pages. What the arena lacks is mapped
/// there; then it is `missing`, and what comes next is expected to be so too.
fn install_piece(
    space: &Space,
    table: &PageTable<'_>,
    piece: &Range<SpacePage>,
    access: Prot,
    missing: &mut bool,
) -> u64 {
    let write = access.contains(Prot::WRITE);
    // Once to find it unknown, and once more for each way to know it.
    let mut retry = Retry::new(write, Reach::ahead(piece.count())).tries(3);
    retry.missing = *missing;
    let installed = retry.run(
        space,
        |_| install_run(space, table, piece.start, piece, access, Caution::None),
        |_| ControlFlow::Break(()),
    );
    *missing = retry.missing;
    installed.ok().flatten().unwrap_or(0)
}
