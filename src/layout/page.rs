// SPDX-License-Identifier: GPL-2.0

//! Page numbers: a type for each thing that has pages, and what ranges of them have in common.
//!
//! A space, a segment and a file each number their pages from 0. Their types keep one from being
//! used as another; at run time they are plain numbers. The unit is pages, never bytes. A number
//! of pages is a `u64`, whatever the pages are of.
//!
//! All costs are O(1).

use core::ops::{
    Add,
    Range,
    Sub, //
};

macro_rules! page_number {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(u64);

        #[allow(dead_code)] // Not every type needs all of them.
        impl $name {
            /// The first page.
            pub(crate) const FIRST: Self = Self(0);

            /// The end of a range that is to have every page from its start on.
            pub(crate) const END: Self = Self(u64::MAX);

            /// The page with this number.
            #[inline]
            pub(crate) const fn new(page: u64) -> Self {
                Self(page)
            }

            /// The number.
            #[inline]
            pub(crate) const fn get(self) -> u64 {
                self.0
            }

            /// The page that has this index in a table with an entry for each page.
            #[inline]
            pub(crate) const fn from_usize(index: usize) -> Self {
                Self(index as u64)
            }

            /// The index in a table with an entry for each page.
            #[inline]
            pub(crate) const fn as_usize(self) -> usize {
                self.0 as usize
            }

            /// The page `pages` pages after this one; [`None`] if its number does not fit.
            #[inline]
            pub(crate) const fn checked_add(self, pages: u64) -> Option<Self> {
                match self.0.checked_add(pages) {
                    Some(page) => Some(Self(page)),
                    None => None,
                }
            }
        }

        impl Page for $name {
            const FIRST: Self = Self::FIRST;
        }

        /// The page so many pages after this one, whose number must fit. As with all arithmetic
        /// here, a result that does not fit panics where debug assertions are on, and wraps
        /// elsewhere: in the kernel a panic would be a `BUG()`.
        impl Add<u64> for $name {
            type Output = Self;

            #[inline]
            fn add(self, pages: u64) -> Self {
                debug_assert!(self.0.checked_add(pages).is_some());
                Self(self.0.wrapping_add(pages))
            }
        }

        /// The page so many pages before this one; there must be as many.
        impl Sub<u64> for $name {
            type Output = Self;

            #[inline]
            fn sub(self, pages: u64) -> Self {
                debug_assert!(self.0 >= pages);
                Self(self.0.wrapping_sub(pages))
            }
        }

        /// The number of pages from another page, which must not be after this one, to this one.
        impl Sub for $name {
            type Output = u64;

            #[inline]
            fn sub(self, from: Self) -> u64 {
                debug_assert!(self.0 >= from.0);
                self.0.wrapping_sub(from.0)
            }
        }
    };
}

/// What the page numbers have in common.
pub(crate) trait Page: Copy + Ord + Sub<Output = u64> {
    /// The first page.
    const FIRST: Self;
}

page_number! {
    /// A page of an address space.
    SpacePage
}

page_number! {
    /// A page of a segment.
    SegmentPage
}

page_number! {
    /// A page of a file.
    FilePage
}

/// A range of pages; any whose end is not after its start is empty.
pub(crate) trait Pages: Sized {
    /// The number of pages; 0 if it is empty.
    fn count(&self) -> u64;

    /// The smallest range that contains both, of which any may be empty.
    fn hull(self, other: Self) -> Self;

    /// The pages that are in both; an empty range if there are none.
    fn intersect(&self, other: &Self) -> Self;

    /// Whether any page is in both.
    fn overlaps(&self, other: &Self) -> bool;

    /// No pages.
    fn none() -> Self;
}

impl<P: Page> Pages for Range<P> {
    #[inline]
    fn count(&self) -> u64 {
        if self.start < self.end {
            self.end - self.start
        } else {
            0
        }
    }

    #[inline]
    fn hull(self, other: Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => self.start.min(other.start)..self.end.max(other.end),
        }
    }

    #[inline]
    fn intersect(&self, other: &Self) -> Self {
        self.start.max(other.start)..self.end.min(other.end)
    }

    #[inline]
    fn overlaps(&self, other: &Self) -> bool {
        !self.intersect(other).is_empty()
    }

    #[inline]
    fn none() -> Self {
        P::FIRST..P::FIRST
    }
}
