// SPDX-License-Identifier: GPL-2.0

//! What the VMM and the guest's program have agreed on in the trial of the IOMMU.

use crate::ports::Number;

/// How large a request is, in bytes.
pub const BLOCK: usize = 4096;

/// The pass in which the device is killed.
pub const KILL_PASS: u64 = 2;

/// The passes after the device has gone on, and in which it does nothing but fault.
pub const ABSORB_PASS: u64 = 5;
pub const FLOOD_PASS: u64 = 6;

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
    /// Let the device be one that goes on after it has accessed what it has not, and then as
    /// for `Secret`, which has told where that is.
    Absorb,
    /// The driver has logged a fault: the IOVA, and the endpoint, with the access in the bits
    /// from 32 on: 1 for reading, 2 for writing, 4 for execution.
    Fault,
    /// That was all so far: which time it is, and whether it is the last try. Good if all that
    /// is expected was there.
    Heard,
    /// Let the device access what it has not all the time, until blocks have been written.
    Flood,
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
    const ALL: [Call; 16] = [
        Call::Booted,
        Call::Wrote,
        Call::Quiet,
        Call::Secret,
        Call::Absorb,
        Call::Fault,
        Call::Heard,
        Call::Flood,
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
