// SPDX-License-Identifier: GPL-2.0

//! Pages by number: of a space, of a segment, of a file. A type for each, so that one is not taken
//! for another; numbers and counts of pages are plain integers, and never bytes.

use core::ops::{
    Add,
    Range,
    Sub, //
};

/// What the page types have in common. Arithmetic wraps: what does not fit is refused where a
/// range is checked (`call/request.rs`, [`Layout::replace()`](super::Layout::replace)).
pub(crate) trait Page:
    Copy + Ord + Add<u64, Output = Self> + Sub<Self, Output = u64>
{
    /// Page 0.
    const ZERO: Self;
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(u64);

        impl $name {
            /// The page of this number.
            #[inline]
            pub(crate) const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Its number.
            #[inline]
            pub(crate) const fn get(self) -> u64 {
                self.0
            }
        }

        impl Page for $name {
            const ZERO: Self = Self(0);
        }

        impl Add<u64> for $name {
            type Output = Self;

            #[inline]
            fn add(self, pages: u64) -> Self {
                Self(self.0.wrapping_add(pages))
            }
        }

        impl Sub<u64> for $name {
            type Output = Self;

            #[inline]
            fn sub(self, pages: u64) -> Self {
                Self(self.0.wrapping_sub(pages))
            }
        }

        impl Sub for $name {
            type Output = u64;

            #[inline]
            fn sub(self, other: Self) -> u64 {
                self.0.wrapping_sub(other.0)
            }
        }
    )*};
}

pages! {
    /// A page of a space.
    SpacePage;
    /// A page of a segment, counted from its first.
    SegmentPage;
    /// A page of a file.
    FilePage;
}

impl SegmentPage {
    /// The page of this number.
    #[inline]
    pub(crate) const fn from_index(index: usize) -> Self {
        Self(index as u64)
    }

    /// Its number, for what is kept by page in memory.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A range of pages; any whose end is not after its start is empty.
pub(crate) trait Pages: Sized {
    /// How many pages it has, if it is not empty.
    fn count(&self) -> u64;

    /// Whether any page is in both.
    fn overlaps(&self, other: &Self) -> bool;

    /// The smallest range around both.
    fn hull(self, other: Self) -> Self;

    /// The pages that are in both.
    fn intersect(&self, other: &Self) -> Self;

    /// No pages.
    fn none() -> Self;
}

impl<P: Page> Pages for Range<P> {
    #[inline]
    fn count(&self) -> u64 {
        self.end - self.start
    }

    #[inline]
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn hull(self, other: Self) -> Self {
        if self.is_empty() {
            other
        } else if other.is_empty() {
            self
        } else {
            self.start.min(other.start)..self.end.max(other.end)
        }
    }

    fn intersect(&self, other: &Self) -> Self {
        self.start.max(other.start)..self.end.min(other.end)
    }

    fn none() -> Self {
        P::ZERO..P::ZERO
    }
}
