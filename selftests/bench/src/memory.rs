// SPDX-License-Identifier: GPL-2.0

//! Files to map, and touching what is mapped.

use std::fs::File;

use anyhow::Result;
use rig::memfd;

pub const PAGE: usize = 4096;
pub const HUGE: usize = 2 << 20;

/// A memfd of `length` bytes, none of which is in memory.
pub fn sparse(length: usize) -> Result<File> {
    memfd::sparse("bench", length as u64)
}

/// A memfd of `length` bytes, all of which are in memory.
pub fn resident(length: usize) -> Result<File> {
    memfd::resident("bench", length as u64)
}

/// How a page is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Read,
    Write,
}

/// Touches one word.
///
/// # Safety
///
/// There must be memory at `at`, which must be writable for a write.
pub unsafe fn touch(at: *mut u8, how: Touch) {
    let word = at.cast::<u64>();
    // SAFETY: The caller guarantees it.
    unsafe {
        match how {
            Touch::Read => drop(word.read_volatile()),
            Touch::Write => word.write_volatile(1),
        }
    }
}

/// Touches each page of some memory, in the order given.
///
/// # Safety
///
/// As for [`touch()`], at each page.
pub unsafe fn touch_pages(start: *mut u8, pages: &[u32], how: Touch) {
    for &page in pages {
        // SAFETY: The caller guarantees it.
        unsafe { touch(start.add(page as usize * PAGE), how) };
    }
}

/// The numbers below `count`, in their order.
pub fn in_order(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

/// Numbers that the kernel cannot predict; they are the same each time.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    /// The next one, below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        // xorshift64, which is good enough for that.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// The numbers below `count`, in an order that the kernel cannot predict; it is the same
/// each time.
pub fn shuffled(count: usize) -> Vec<u32> {
    let mut numbers = in_order(count);
    let mut random = Random::new();
    for last in (1..count).rev() {
        numbers.swap(last, random.below(last + 1));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_numbers_are_all_there_once() {
        let mut numbers = shuffled(1000);
        assert_ne!(numbers, in_order(1000));
        numbers.sort_unstable();
        assert_eq!(numbers, in_order(1000));
    }
}
