// SPDX-License-Identifier: GPL-2.0

//! How the guest's program and the VMM talk: the program writes two numbers and
//! the call's to ports, and does not go on before the VMM has done its part. What
//! it reads then is 0 where all was as it should be.

/// Where the call is written to, and its result read from.
pub const CALL: u16 = 0x500;
/// Where its numbers are written to.
pub const NUMBERS: u16 = 0x508;
/// The first port after all of them.
pub const END: u16 = 0x518;

/// How large a request is, in bytes.
pub const BLOCK: usize = 4096;

/// The pass in which the device dies.
pub const DOOMED: u64 = 2;

/// What the program tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// There are disks.
    Booted = 1,
    /// Blocks of the first disk have been written, and read back as they were:
    /// the first of them, and how many.
    Wrote,
    /// Nothing is going on.
    Quiet,
    /// Where in the guest's memory a secret is: the guest physical address, and
    /// how many bytes.
    Secret,
    /// The device is to die while blocks are written and read.
    Doomed,
    /// The driver has let go of the first disk.
    Unbound,
    /// It has taken it again.
    Bound,
    /// From now on unmaps are deferred.
    Lazy,
    /// Requests are going to be timed: of which disk, and whether unmaps are
    /// deferred.
    Way,
    /// How many requests were done in how many nanoseconds.
    Took,
    /// Something went wrong. The console tells what.
    Failed,
    /// That is all.
    Done,
}

impl Call {
    const ALL: [Call; 12] = [
        Call::Booted,
        Call::Wrote,
        Call::Quiet,
        Call::Secret,
        Call::Doomed,
        Call::Unbound,
        Call::Bound,
        Call::Lazy,
        Call::Way,
        Call::Took,
        Call::Failed,
        Call::Done,
    ];

    pub fn of(number: u8) -> Option<Call> {
        Call::ALL.into_iter().find(|call| *call as u8 == number)
    }
}

/// What the guest writes to a block.
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
