// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ranges that calls take: `..`, `4096..` and the like, up to the end of what they are of.

use std::ops::{Bound, Range, RangeBounds};
use std::os::fd::BorrowedFd;

use crate::{Result, space};

/// The bytes that a range means of an address space or view, whose length is asked for only
/// where the range has no end of its own.
pub(crate) fn bytes_of(fd: BorrowedFd<'_>, range: impl RangeBounds<u64>) -> Result<Range<u64>> {
    // A bound that does not fit is beyond every end, and the kernel refuses the range.
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => space::length(fd)?,
    };
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::AsFd as _;

    #[test]
    fn range_without_an_end_goes_to_the_end() {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 0x3000).unwrap();
        let fd = file.as_fd();
        assert_eq!(bytes_of(fd, ..), Ok(0..0x3000));
        assert_eq!(bytes_of(fd, 0x1000..), Ok(0x1000..0x3000));
        assert_eq!(bytes_of(fd, ..0x1000), Ok(0..0x1000));
        assert_eq!(bytes_of(fd, 0x1000..=0x1fff), Ok(0x1000..0x2000));
        assert_eq!(bytes_of(fd, ..=u64::MAX), Ok(0..u64::MAX));
        // Also beyond the end, which is for the kernel to say.
        #[allow(clippy::reversed_empty_ranges)]
        let beyond = 0x4000..0x3000;
        assert_eq!(bytes_of(fd, 0x4000..), Ok(beyond));
        assert_eq!(bytes_of(fd, 0x1000..0x9000), Ok(0x1000..0x9000));
    }
}
