// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a call was refused, where its arguments show it: EINVAL alone may be of any of them.

use std::ops::Range;

use super::Error;
use crate::{Errno, Prot, page_size};

const MISALIGNED: &str = "the range does not start and end at multiples of the page size";
const BEYOND: &str = "the range ends beyond the address space";
const WRITE_ONLY: &str = "a protection with WRITE or EXEC must have READ";

impl Error {
    /// The one cause of an EINVAL, if the arguments of the call tell which.
    pub(super) fn cause(&self) -> Option<&'static str> {
        if self.errno() != Some(Errno::INVAL) {
            return None;
        }
        match self {
            Error::Create { length, .. } => of_create(*length),
            Error::Map {
                addr,
                offset,
                length,
                ..
            } => {
                let addr = addr.unwrap_or(0);
                of_file(*offset, Some(*length)).or(misaligned(
                    addr,
                    "the address is not a multiple of the page size",
                ))
            }
            Error::Register { offset, length, .. } => of_file(*offset, *length),
            Error::Layout { range, .. }
            | Error::Unmap { range, .. }
            | Error::Watch { range, .. }
            | Error::Poison { range, .. } => of_range(range).or(Some(BEYOND)),
            Error::Advise { range, .. } => of_range(range),
            Error::Protect { range, prot, .. } => {
                of_range(range).or(write_only(*prot)).or(Some(BEYOND))
            }
            Error::View { range, prot, .. } => of_range(range).or(without_read(*prot)),
            Error::Move {
                range, new_addr, ..
            } => of_range(range).or_else(|| of_destination(range, *new_addr)),
            Error::Attach { range, .. } => {
                if range.is_empty() {
                    return Some("the range is empty");
                }
                misaligned(
                    range.start,
                    "the range does not start at a multiple of the page size",
                )
                .or(Some("the range ends beyond the address space or view"))
            }
            Error::KvmMap {
                guest_phys_addr,
                range,
                ..
            } => of_range(range).or(misaligned(
                *guest_phys_addr,
                "the guest address is not a multiple of the page size",
            )),
            _ => None,
        }
    }
}

fn misaligned(number: u64, text: &'static str) -> Option<&'static str> {
    (number % page_size() != 0).then_some(text)
}

fn of_range(range: &Range<u64>) -> Option<&'static str> {
    if range.is_empty() {
        return Some("the range is empty");
    }
    misaligned(range.start | range.end, MISALIGNED)
}

fn of_create(length: u64) -> Option<&'static str> {
    match length {
        0 => Some("the length is 0"),
        length if length % page_size() != 0 => {
            Some("the length is not a multiple of the page size")
        }
        length if length > 1 << 47 => Some("the length is more than 2^47"),
        _ => Some("the name has more than 200 bytes, or a NUL; or the hole flags contradict"),
    }
}

fn of_file(offset: u64, length: Option<u64>) -> Option<&'static str> {
    match length {
        Some(0) => Some("the length is 0: the file ends at the offset or before"),
        length => misaligned(
            offset | length.unwrap_or(0),
            "offset and length are not multiples of the page size",
        ),
    }
}

fn of_destination(range: &Range<u64>, new_addr: u64) -> Option<&'static str> {
    let end = new_addr.saturating_add(range.end - range.start);
    if range.start < end && new_addr < range.end {
        return Some("the two ranges overlap");
    }
    misaligned(
        new_addr,
        "the destination is not a multiple of the page size",
    )
    .or(Some("one of the two ranges ends beyond the address space"))
}

fn write_only(prot: Prot) -> Option<&'static str> {
    (!prot.is_empty() && !prot.contains(Prot::READ)).then_some(WRITE_ONLY)
}

fn without_read(prot: Prot) -> Option<&'static str> {
    (!prot.contains(Prot::READ)).then_some("the protection must have READ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn range_has_the_one_cause_that_its_numbers_show() {
        let advice = |range| {
            let errno = Errno::INVAL;
            Error::Unmap { range, errno }.advice()
        };
        assert_eq!(advice(0..0), Some("the range is empty"));
        assert_eq!(advice(2 * PAGE..PAGE), Some("the range is empty"));
        assert_eq!(advice(0..1), Some(MISALIGNED));
        assert_eq!(advice(1..PAGE), Some(MISALIGNED));
        assert_eq!(advice(0..PAGE), Some(BEYOND));
    }

    #[test]
    fn cause_is_of_einval_only() {
        let error = |errno| Error::Protect {
            range: 0..PAGE,
            prot: Prot::WRITE,
            errno,
        };
        assert_eq!(error(Errno::INVAL).advice(), Some(WRITE_ONLY));
        let hole = error(Errno::NOENT).advice().unwrap();
        assert!(hole.contains("without a hole"), "{hole}");
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn move_says_what_is_wrong_with_the_destination() {
        let advice = |range: Range<u64>, new_addr| {
            let errno = Errno::INVAL;
            let error = Error::Move {
                range,
                new_addr,
                errno,
            };
            error.advice().unwrap()
        };
        let range = PAGE..3 * PAGE;
        assert!(advice(range.clone(), 2 * PAGE).contains("overlap"));
        assert!(advice(range.clone(), 0).contains("overlap"));
        assert!(advice(range.clone(), 3 * PAGE + 1).contains("destination"));
        assert!(advice(range, 3 * PAGE).contains("ends beyond"));
        assert!(advice(3 * PAGE..PAGE, 0).contains("empty"));
    }

    #[test]
    fn what_numbers_do_not_show_is_left_open() {
        let map = |offset, length| Error::Map {
            addr: None,
            offset,
            length,
            errno: Errno::INVAL,
        };
        assert!(map(0, 0).advice().unwrap().contains("the length is 0"));
        assert!(map(1, PAGE).advice().unwrap().contains("offset and length"));
        assert!(
            map(0, PAGE)
                .advice()
                .unwrap()
                .contains("replace() needs at()")
        );
    }
}
