// SPDX-License-Identifier: GPL-2.0

//! The host's side of a layout: boxes from the heap, and segments that only have an id.

use crate::layout::{self, FilePage, SegmentPage, SpacePage};
use std::{
    array,
    cell::Cell,
    convert::Infallible,
    ops::{self, Deref, DerefMut},
    rc::Rc,
};

/// A handle as large as the kernel's, and counted as it is.
pub(crate) type Segment = Rc<u64>;

impl layout::Segment for Segment {
    fn id(&self) -> u64 {
        **self
    }
}

thread_local! {
    /// How many defects of layouts were reported, in a test that counts them.
    pub(crate) static REPORTS: Cell<Option<usize>> = const { Cell::new(None) };
    /// How often a node was looked up.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// How often nodes are looked up by `work`: what it costs, in a measure that repeats.
pub(crate) fn looks(work: impl FnOnce()) -> u64 {
    let before = LOOKS.get();
    work();
    LOOKS.get() - before
}

/// A chunk that counts the looks at it, of which each is for a node.
pub(crate) struct Counted(Box<layout::Chunk<Heap>>);

impl Deref for Counted {
    type Target = layout::Chunk<Heap>;

    fn deref(&self) -> &Self::Target {
        LOOKS.set(LOOKS.get() + 1);
        &self.0
    }
}

impl DerefMut for Counted {
    fn deref_mut(&mut self) -> &mut Self::Target {
        LOOKS.set(LOOKS.get() + 1);
        &mut self.0
    }
}

/// Memory that never runs out. A defect ends the test, unless that counts them.
pub(crate) struct Heap;

impl layout::Client for Heap {
    type Segment = Segment;

    fn corrupt(what: &'static str) {
        match REPORTS.get() {
            Some(reports) => REPORTS.set(Some(reports + 1)),
            None => panic!("the layout is corrupt: {what}"),
        }
    }
}

impl layout::Store for Heap {
    type Chunk = Counted;
    type Directory = Vec<layout::Slot<Self::Chunk>>;
    type Error = Infallible;

    fn chunk() -> Result<Self::Chunk, Infallible> {
        let nodes = array::from_fn(|_| layout::Node::vacant());
        Ok(Counted(Box::new(nodes)))
    }

    fn directory(slots: usize) -> Result<Self::Directory, Infallible> {
        Ok(Vec::with_capacity(slots))
    }

    fn slots(directory: &Self::Directory) -> usize {
        directory.capacity()
    }

    fn push(directory: &mut Self::Directory, slot: layout::Slot<Self::Chunk>) {
        assert!(
            directory.len() < directory.capacity(),
            "this would allocate"
        );
        directory.push(slot);
    }

    fn pop(directory: &mut Self::Directory) -> Option<layout::Slot<Self::Chunk>> {
        directory.pop()
    }
}

pub(crate) type Layout = layout::Layout<Heap>;
pub(crate) type Range = layout::Range<Segment>;

/// A page of the space.
pub(crate) fn page(page: u64) -> SpacePage {
    SpacePage::new(page)
}

/// Pages of the space.
pub(crate) fn pages(start: u64, end: u64) -> ops::Range<SpacePage> {
    page(start)..page(end)
}

/// All pages that a space can have.
pub(crate) fn all() -> ops::Range<SpacePage> {
    SpacePage::FIRST..SpacePage::END
}

/// Pages of a segment.
pub(crate) fn of_segment(pages: ops::Range<u64>) -> ops::Range<SegmentPage> {
    SegmentPage::new(pages.start)..SegmentPage::new(pages.end)
}

/// The numbers of pages of the space.
pub(crate) fn numbers(pages: ops::Range<SpacePage>) -> ops::Range<u64> {
    pages.start.get()..pages.end.get()
}

/// Makes sure that `layout` can take so many nodes.
pub(crate) fn refill(layout: &mut Layout, nodes: usize) {
    let Ok(mut spare) = layout::Spare::new(layout.need(nodes));
    layout.refill(&mut spare);
    assert!(layout.need(nodes).is_none());
}

/// Has `layout` give back what it does not need, and returns how many nodes there is memory for.
pub(crate) fn shed(layout: &mut Layout) -> usize {
    if layout.has_surplus() {
        let mut surplus = layout::Surplus::new();
        while layout.shed(&mut surplus) {
            surplus.free();
        }
    }
    let room = (0..)
        .step_by(32)
        .take_while(|&nodes| layout.need(nodes).is_none());
    layout.len() + room.last().unwrap_or(0)
}

/// A space with memory for so many nodes.
pub(crate) fn space(length: u64, nodes: usize) -> Layout {
    let mut layout = Layout::new(length, 0x5eed);
    refill(&mut layout, nodes);
    layout
}

/// Pages `start..end`, which show `segment` from its page `offset` on, for reading.
pub(crate) fn range(start: u64, end: u64, segment: &Segment, offset: u64) -> Range {
    Range {
        start: page(start),
        end: page(end),
        segment: segment.clone(),
        offset: SegmentPage::new(offset),
        prot: layout::Prot::READ,
        installed: layout::Installed::new(),
    }
}

/// Nodes that [`insert()`] takes at most.
pub(crate) const INSERT_NODES: usize = 1;

/// Shows `range`, where nothing may be shown yet.
pub(crate) fn insert(layout: &mut Layout, range: Range) -> Result<(), layout::Error> {
    layout.replace(range, false, 0, |_| panic!("something was shown there"))
}

/// Shows nothing in `start..end` any more.
pub(crate) fn clear(layout: &mut Layout, start: u64, end: u64) -> Result<(), layout::Error> {
    layout.remove(pages(start, end), usize::MAX, drop)
}

/// The ranges of the layout, each as (start, end, segment id, offset).
pub(crate) fn listed(layout: &Layout) -> Vec<(u64, u64, u64, u64)> {
    layout
        .ranges(all())
        .map(|range| {
            let ops::Range { start, end } = numbers(range.start..range.end);
            (start, end, *range.segment, range.offset.get())
        })
        .collect()
}

/// What [`Layout::remove()`] removes.
pub(crate) fn removed(layout: &mut Layout, start: u64, end: u64) -> Vec<(u64, u64, u64)> {
    let mut all = Vec::new();
    let each = |old: Range| all.push((old.start.get(), old.end.get(), old.offset.get()));
    layout.remove(pages(start, end), usize::MAX, each).unwrap();
    layout.check(true);
    all
}

/// Where the pieces are that show these pages.
pub(crate) fn shown(layout: &Layout, id: u64, wanted: ops::Range<u64>) -> Vec<(u64, u64, u64)> {
    layout
        .showing(id, of_segment(wanted))
        .map(|piece| (piece.start.get(), piece.end.get(), piece.offset.get()))
        .collect()
}

/// As [`Layout::find_hole()`], in as many steps as it takes, and every few holes a step.
pub(crate) fn find_hole(
    layout: &mut Layout,
    pages: u64,
    align: u64,
    first: FilePage,
) -> Option<SpacePage> {
    loop {
        if let Ok(found) = layout.find_hole(pages, align, first, 3) {
            return found;
        }
    }
}
