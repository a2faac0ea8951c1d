// SPDX-License-Identifier: GPL-2.0

//! Segments, found by what they hold: which of them has these pages of this file?
//!
//! Guarded by the ops lock, as part of what it guards.

use kernel::{
    fs::File,
    prelude::*,
    rbtree::RBTree,
    sync::Arc, //
};

use crate::segment::{
    Segment,
    Source, //
};

/// How many segments of a file are looked at. Not to find one again costs a segment
/// more, and nothing else; to look at all would cost a file that is mapped in many small
/// pieces as much for each of them.
const LOOKS: usize = 64;

/// The order of a list: by file, then by the first page, then by age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Where the file is: it is held as long as the segment is.
    file: usize,
    first: usize,
    id: u64,
}

impl Key {
    fn of(segment: &Segment) -> Key {
        Key {
            file: segment.file().as_ptr() as usize,
            first: segment.first(),
            id: segment.id(),
        }
    }
}

/// A list of segments.
pub(crate) struct Listed(RBTree<Key, Arc<Segment>>);

impl Listed {
    pub(crate) fn new() -> Self {
        Listed(RBTree::new())
    }

    /// Adds a segment. O(log n).
    pub(crate) fn add(&mut self, segment: Arc<Segment>) -> Result {
        self.0
            .try_create_and_insert(Key::of(&segment), segment, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Takes a segment off the list, if it is on it. O(log n).
    pub(crate) fn remove(&mut self, segment: &Segment) -> Option<Arc<Segment>> {
        self.0.remove(&Key::of(segment))
    }

    /// Puts a segment of this list on another. O(log n).
    pub(crate) fn pass(&mut self, segment: &Segment, to: &mut Listed) {
        if let Some(node) = self.0.remove_node(&Key::of(segment)) {
            to.0.insert(node);
        }
    }

    /// The segment that can serve for `wanted`: of several the one that begins last,
    /// and of those the youngest. O(log n).
    pub(crate) fn find(&mut self, wanted: &Source) -> Option<&Arc<Segment>> {
        let file = wanted.file.as_ptr() as usize;
        let behind = Key {
            file,
            first: wanted.first + 1,
            id: 0,
        };
        let mut found = None;
        let mut cursor = match self.0.cursor_lower_bound_mut(&behind) {
            Some(cursor) => cursor.move_prev(),
            None => self.0.cursor_back_mut(),
        };
        for _ in 0..LOOKS {
            let Some(at) = cursor else { break };
            let (key, segment) = at.current();
            if key.file != file {
                break;
            }
            if segment.serves(wanted) {
                found = Some(*key);
                break;
            }
            cursor = at.move_prev();
        }
        self.0.get(&found?)
    }

    /// Any segment of a file. O(log n).
    pub(crate) fn any_of(&self, file: &File) -> Option<Arc<Segment>> {
        let file = file.as_ptr() as usize;
        let before = Key {
            file,
            first: 0,
            id: 0,
        };
        let cursor = self.0.cursor_lower_bound(&before)?;
        let (key, segment) = cursor.current();
        (key.file == file).then(|| segment.clone())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.values()
    }
}
