// SPDX-License-Identifier: GPL-2.0

//! What the VMM and the guest's program have agreed on in the trial of the IOMMU.

use crate::ports::Number;

/// How large a request is, in bytes.
pub const BLOCK: usize = 4096;

/// The pass in which the device is killed.
pub const KILL_PASS: u64 = 2;

/// What the program calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// The disks are there.
    Booted = 1,
    /// Blocks of the first disk have been written, and read back as they were:
    /// the first of them, and how many.
    Wrote,
    /// No request is in flight.
    Quiet,
    /// Where in the guest's memory a secret is: the guest physical address, and
    /// how many bytes.
    Secret,
    /// Kill the device, while blocks are written and read.
    Kill,
    /// The driver has released the first disk.
    Unbound,
    /// The driver has the first disk again.
    Bound,
    /// Requests with deferred unmaps have been timed.
    Deferred,
    /// Requests will be timed: of which disk, and whether unmaps are deferred.
    Timing,
    /// Requests were timed: how many, and how many nanoseconds they took.
    Took,
    /// Something went wrong. The console says what.
    Failed,
    /// The program ends.
    Done,
}

impl Call {
    const ALL: [Call; 12] = [
        Call::Booted,
        Call::Wrote,
        Call::Quiet,
        Call::Secret,
        Call::Kill,
        Call::Unbound,
        Call::Bound,
        Call::Deferred,
        Call::Timing,
        Call::Took,
        Call::Failed,
        Call::Done,
    ];

    /// The call with a number.
    pub fn of(number: u8) -> Option<Call> {
        Call::ALL.into_iter().find(|call| *call as u8 == number)
    }
}

impl Number for Call {
    fn number(self) -> u8 {
        self as u8
    }
}

/// The content of a block.
pub fn block(index: u64, pass: u64) -> [u8; BLOCK] {
    let text = format!("block {index}, written by the guest in pass {pass}\n");
    let mut bytes = [0; BLOCK];
    for (byte, letter) in bytes.iter_mut().zip(text.bytes().cycle()) {
        *byte = letter;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_they_are_found_by() {
        for call in Call::ALL {
            assert_eq!(Call::of(call as u8), Some(call));
        }
        assert_eq!(Call::of(0), None);
        assert_eq!(Call::of(Call::ALL.len() as u8 + 1), None);
    }
}
