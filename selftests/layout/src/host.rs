// SPDX-License-Identifier: GPL-2.0

//! What a layout needs on the host: boxes from the heap, and segments that only have an id.

use crate::layout::{self, SegmentPage, SpacePage};
use std::{array, convert::Infallible, ops, rc::Rc};

/// A handle as large as the kernel's, and reference counted like it.
pub(crate) type Segment = Rc<u64>;

impl layout::Segment for Segment {
    fn id(&self) -> u64 {
        **self
    }
}

/// A store whose memory never runs out.
pub(crate) struct Heap;

impl layout::Store for Heap {
    type Segment = Segment;
    type Chunk = Box<layout::Chunk<Segment>>;
    type Directory = Vec<Self::Chunk>;
    type Error = Infallible;

    fn chunk() -> Result<Self::Chunk, Infallible> {
        Ok(Box::new(array::from_fn(|_| layout::Node::vacant())))
    }

    fn directory(slots: usize) -> Result<Self::Directory, Infallible> {
        Ok(Vec::with_capacity(slots))
    }

    fn slots(directory: &Self::Directory) -> usize {
        directory.capacity()
    }

    fn push(directory: &mut Self::Directory, chunk: Self::Chunk) {
        assert!(
            directory.len() < directory.capacity(),
            "this would allocate"
        );
        directory.push(chunk);
    }

    fn pop(directory: &mut Self::Directory) -> Option<Self::Chunk> {
        directory.pop()
    }
}

pub(crate) type Layout = layout::Layout<Heap>;
pub(crate) type Range = layout::Range<Segment>;

/// Gives `layout` memory for so many nodes.
pub(crate) fn refill(layout: &mut Layout, nodes: usize) {
    let Ok(mut spare) = layout::Spare::new(layout.need(nodes));
    layout.refill(&mut spare);
    assert!(layout.need(nodes).is_none());
}

/// A space with memory for so many nodes.
pub(crate) fn space(pages: u64, nodes: usize) -> Layout {
    let mut layout = Layout::new(pages, 0x5eed);
    refill(&mut layout, nodes);
    layout
}

/// The page of a space of this number.
pub(crate) fn page(number: u64) -> SpacePage {
    SpacePage::new(number)
}

/// Pages `start..end` of a space.
pub(crate) fn span(start: u64, end: u64) -> ops::Range<SpacePage> {
    page(start)..page(end)
}

/// The page of a segment of this number.
pub(crate) fn segment_page(number: u64) -> SegmentPage {
    SegmentPage::new(number)
}

/// Pages of a segment.
pub(crate) fn segment_span(pages: ops::Range<u64>) -> ops::Range<SegmentPage> {
    segment_page(pages.start)..segment_page(pages.end)
}

/// The numbers of pages of a space.
pub(crate) fn numbers(pages: &ops::Range<SpacePage>) -> ops::Range<u64> {
    pages.start.get()..pages.end.get()
}

/// Pages `start..end`, which show `segment` from its page `offset` on, for reading.
pub(crate) fn range(start: u64, end: u64, segment: &Segment, offset: u64) -> Range {
    Range {
        start: page(start),
        end: page(end),
        segment: segment.clone(),
        offset: segment_page(offset),
        prot: layout::Prot::READ,
        installed: layout::Installed::new(),
    }
}

/// The most nodes that [`insert()`] takes.
pub(crate) const INSERT_NODES: usize = 1;

/// Shows `range`, where nothing is shown yet.
pub(crate) fn insert(layout: &mut Layout, range: Range) -> Result<(), layout::Error> {
    layout.replace(range, false, 0, |_| panic!("something was shown there"))
}

/// Shows nothing in `start..end` any more.
pub(crate) fn clear(layout: &mut Layout, start: u64, end: u64) -> Result<(), layout::Error> {
    layout.remove(span(start, end), usize::MAX, drop)
}

/// The ranges of the layout, each as (start, end, segment id, offset).
pub(crate) fn listed(layout: &Layout) -> Vec<(u64, u64, u64, u64)> {
    layout
        .ranges(span(0, layout.pages()))
        .map(|range| {
            let Range { start, end, .. } = range;
            (start.get(), end.get(), *range.segment, range.offset.get())
        })
        .collect()
}
