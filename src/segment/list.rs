// SPDX-License-Identifier: GPL-2.0

//! The segments that a space has, found by what they hold; and pins, which keep those in use
//! that a call is about to show.
//!
//! [`Ops`] is what the space's ops lock guards, so a reference to it is proof that the lock is
//! held. The order is: ops, then the install lock.

use kernel::{
    fs::File,
    list::{
        List,
        ListArc, //
    },
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::ordering::*,
        Arc, //
    },
};

use crate::{
    layout::{
        FilePage,
        Pages, //
    },
    segment::{
        source::Source,
        Segment,
        IDLE, //
    },
    sys::small_vec::SmallVec,
};

/// How many segments of a file and a class are looked at, of those that begin near enough to what is
/// wanted. Not to find one again costs a segment more, and nothing else.
const LOOKS: usize = 64;

/// How many segments are looked at with the lock held, of those that may be idle.
const LOOKED_AT: usize = 256;

/// The order of a list: by file, then by class, then by the first page, then by age; apart from
/// those of the file that are private, of which there may be many that serve no other map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Where the file is: it is held as long as the segment is.
    file: usize,
    private: bool,
    class: u32,
    first: FilePage,
    id: u64,
}

/// The class of so many pages: of one class are `1 << class` pages and more, and less than twice as
/// many. One that holds a certain page begins no farther before it than that, however many smaller
/// ones lie in between.
fn class(pages: u64) -> u32 {
    pages.checked_ilog2().unwrap_or(0)
}

impl Key {
    fn of(segment: &Segment) -> Key {
        Key {
            file: segment.file().as_ptr() as usize,
            private: segment.is_private(),
            class: class(segment.part().count()),
            first: segment.part().start,
            id: segment.id(),
        }
    }
}

/// A list of segments, found by file and page.
pub(crate) struct SegmentList {
    segments: RBTree<Key, Arc<Segment>>,
    /// The one that was found last, which the next map often wants too. It is in the list.
    found: Option<Arc<Segment>>,
}

impl SegmentList {
    fn new() -> Self {
        SegmentList {
            segments: RBTree::new(),
            found: None,
        }
    }

    /// Forgets a segment that leaves.
    fn forget(&mut self, segment: &Segment) {
        self.found.take_if(|found| found.id() == segment.id());
    }

    /// Adds a segment. O(log n). `ENOMEM`.
    fn add(&mut self, segment: Arc<Segment>) -> Result {
        self.segments
            .try_create_and_insert(Key::of(&segment), segment, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Removes a segment, if it is there. O(log n).
    fn remove(&mut self, segment: &Segment) -> Option<Arc<Segment>> {
        self.forget(segment);
        self.segments.remove(&Key::of(segment))
    }

    /// Moves a segment of this list to another; says whether it was there. O(log n).
    fn pass(&mut self, segment: &Segment, to: &mut SegmentList) -> bool {
        self.forget(segment);
        let node = self.segments.remove_node(&Key::of(segment));
        let was_there = node.is_some();
        if let Some(node) = node {
            to.segments.insert(node);
        }
        was_there
    }

    /// A segment that can serve for `wanted`: that which was found last, or else one of the smallest
    /// class that has one, and of several the one that begins last, and of those the youngest.
    /// O(log n) for each class that the file has segments of.
    fn find(&mut self, wanted: &Source) -> Option<&Arc<Segment>> {
        let served = |found: &Arc<Segment>| found.serves(wanted);
        if !self.found.as_ref().is_some_and(served) {
            self.found = Some(self.search(wanted)?.clone());
        }
        self.found.as_ref()
    }

    fn search(&mut self, wanted: &Source) -> Option<&Arc<Segment>> {
        let part = &wanted.part;
        let mut from = Key {
            file: wanted.file.as_ptr() as usize,
            private: wanted.is_private(),
            class: class(part.count()),
            first: FilePage::FIRST,
            id: 0,
        };
        loop {
            let next = *self.segments.cursor_lower_bound(&from)?.current().0;
            if (next.file, next.private) != (from.file, from.private) {
                return None;
            }
            let behind = Key {
                class: next.class,
                first: part.start + 1,
                ..from
            };
            if let Some(found) = self.find_before(&behind, wanted) {
                return self.segments.get(&found);
            }
            from.class = next.class + 1;
        }
    }

    /// The last before a place, of its file and class, that can serve for `wanted`.
    fn find_before(&mut self, behind: &Key, wanted: &Source) -> Option<Key> {
        let of = |key: &Key| (key.file, key.private, key.class);
        let mut cursor = match self.segments.cursor_lower_bound_mut(behind) {
            Some(cursor) => cursor.move_prev(),
            None => self.segments.cursor_back_mut(),
        };
        for _ in 0..LOOKS {
            let at = cursor?;
            let (key, segment) = at.current();
            // None that begins before it reaches so far.
            if of(key) != of(behind) || key.first + (2 << key.class) < wanted.part.end {
                return None;
            }
            if segment.serves(wanted) {
                return Some(*key);
            }
            cursor = at.move_prev();
        }
        None
    }

    /// Any segment of a file. O(log n).
    fn any_of(&self, file: &File) -> Option<Arc<Segment>> {
        let file = file.as_ptr() as usize;
        let before = Key {
            file,
            private: false,
            class: 0,
            first: FilePage::FIRST,
            id: 0,
        };
        let cursor = self.segments.cursor_lower_bound(&before)?;
        let (key, segment) = cursor.current();
        (key.file == file).then(|| segment.clone())
    }

    /// The first segment after a place in the order, or of all. O(log n).
    fn after(&self, key: Option<Key>) -> Option<(Key, Arc<Segment>)> {
        let first = match key {
            Some(key) => Key {
                id: key.id + 1,
                ..key
            },
            None => Key {
                file: 0,
                private: false,
                class: 0,
                first: FilePage::FIRST,
                id: 0,
            },
        };
        let cursor = self.segments.cursor_lower_bound(&first)?;
        let (key, segment) = cursor.current();
        Some((*key, segment.clone()))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.values()
    }
}

/// What the ops lock guards: the segments in use, and the right to change the layout.
///
/// # Invariants
///
/// Only segments of this space are in `idle`, and they are in no other list for [`IDLE`].
pub(crate) struct Ops {
    /// Those that are kept although nothing may show them. Apart, so that they are found
    /// however many others there are.
    registered: SegmentList,
    others: SegmentList,
    /// Those of the others that something may have left unused, so that nobody has to look at all
    /// to find them; and some that are shown again, or registered.
    idle: List<Segment, IDLE>,
    /// How many there are in `idle`.
    idle_count: usize,
    next_id: u64,
}

/// How far a search for idle segments has got.
#[derive(Default)]
pub(crate) struct Search {
    /// How many it still looks at, once it has begun: those that are kept up are put back behind.
    left: Option<usize>,
}

/// A segment that is not ended, whether or not anything shows it.
///
/// # Invariants
///
/// Counted in the segment's `pins`.
pub(crate) struct Pinned(Arc<Segment>);

/// The segments that a call has pinned, in the order in which it did; most have one.
pub(crate) type Pins = SmallVec<Pinned, 1>;

impl Pinned {
    /// Pins a segment, which must not have ended: it is new, or listed, or the layout shows it.
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        segment.pins.fetch_add(1, Relaxed);
        // INVARIANT: Just counted.
        Pinned(segment)
    }

    /// The segment.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.0
    }
}

impl Clone for Pinned {
    fn clone(&self) -> Self {
        Pinned::new(self.0.clone())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Ordered before the look at `overdue`, as in `take_idle` the other way round.
        if self.0.pins.fetch_sub(1, Full) == 1 && self.0.is_overdue() {
            self.0.owner.clone().reap();
        }
    }
}

impl Ops {
    pub(crate) fn new() -> Self {
        Ops {
            registered: SegmentList::new(),
            others: SegmentList::new(),
            idle: List::new(),
            idle_count: 0,
            next_id: 0,
        }
    }

    /// An id that no segment of the space has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Adds a new segment, which nothing shows yet. O(log n). `ENOMEM`.
    pub(crate) fn add(&mut self, segment: Arc<Segment>) -> Result {
        self.others.add(segment.clone())?;
        self.note_idle(segment);
        Ok(())
    }

    /// Notes that a segment of this space may be unused.
    pub(crate) fn note_idle(&mut self, segment: Arc<Segment>) {
        // INVARIANT: Nothing else makes such a list, and it is in none if it is not in this one.
        if let Ok(segment) = ListArc::try_from_arc(segment) {
            self.idle.push_back(segment);
            self.idle_count += 1;
        }
    }

    /// Pins the segment that can serve for `wanted`, if there is one. O(log n).
    ///
    /// A private one serves no other map than that which it was made for, unless it is registered:
    /// then it serves those that ask for a private one.
    pub(crate) fn find(&mut self, wanted: &Source) -> Option<Pinned> {
        let found = match self.registered.find(wanted) {
            Some(found) => found,
            None if wanted.is_private() => return None,
            None => self.others.find(wanted)?,
        };
        Some(Pinned::new(found.clone()))
    }

    /// Whether a segment is still in use. O(log n).
    pub(crate) fn has(&self, segment: &Segment) -> bool {
        let key = Key::of(segment);
        self.registered.segments.get(&key).is_some() || self.others.segments.get(&key).is_some()
    }

    /// Removes all segments, which the caller ends.
    pub(crate) fn take_all(&mut self) -> [SegmentList; 2] {
        while self.idle.pop_front().is_some() {}
        self.idle_count = 0;
        [&mut self.registered, &mut self.others]
            .map(|list| core::mem::replace(list, SegmentList::new()))
    }

    /// Removes segments that neither a call has pinned nor `is_shown` says are shown, as many as
    /// there are places; says whether to go on with the `search`.
    pub(crate) fn take_idle(
        &mut self,
        search: &mut Search,
        is_shown: impl Fn(&Segment) -> bool,
        taken: &mut [Option<Arc<Segment>>],
    ) -> bool {
        let left = search.left.get_or_insert(self.idle_count);
        let mut places = taken.iter_mut();
        let mut looks = LOOKED_AT;
        while *left != 0 && looks != 0 && places.len() != 0 {
            let Some(segment) = self.idle.pop_front() else {
                *left = 0;
                break;
            };
            *left -= 1;
            looks -= 1;
            if segment.is_registered() || is_shown(&segment) {
                // Whatever changes that notes it again.
                self.idle_count -= 1;
                continue;
            }
            if segment.is_kept_up() {
                self.idle.push_back(segment);
                continue;
            }
            self.idle_count -= 1;
            let segment = segment.into_arc();
            if self.others.remove(&segment).is_none() {
                continue;
            }
            if let Some(place) = places.next() {
                *place = Some(segment);
            }
        }
        *left != 0
    }

    /// Removes a segment that is not shown, unless it is registered, pinned or late; says whether
    /// it did. O(log n).
    pub(crate) fn take(&mut self, segment: &Segment) -> bool {
        if segment.is_registered() || segment.is_kept_up() {
            return false;
        }
        // SAFETY: By the type's invariant it is in no other such list.
        let noted = unsafe { self.idle.remove(segment) };
        self.idle_count -= usize::from(noted.is_some());
        self.others.remove(segment).is_some()
    }

    /// Keeps a segment, whether or not anything shows it, for the file with number `by`; says
    /// whether it was not kept before.
    pub(crate) fn keep(&mut self, segment: &Segment, by: u64) -> bool {
        segment.registrant.store(by, Relaxed);
        self.others.pass(segment, &mut self.registered)
    }

    /// Keeps a segment no longer; says whether it was.
    pub(crate) fn unkeep(&mut self, segment: &Arc<Segment>) -> bool {
        segment.registrant.store(0, Relaxed);
        let was_kept = self.registered.pass(segment, &mut self.others);
        self.note_idle(segment.clone());
        was_kept
    }

    /// Any segment of a file that is registered. O(log n).
    pub(crate) fn registered_of(&self, file: &File) -> Option<Arc<Segment>> {
        self.registered.any_of(file)
    }

    /// The first registered segment after a place in their order, or of all. O(log n).
    pub(crate) fn registered_after(&self, key: Option<Key>) -> Option<(Key, Arc<Segment>)> {
        self.registered.after(key)
    }
}
