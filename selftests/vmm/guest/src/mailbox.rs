// SPDX-License-Identifier: GPL-2.0

//! What is asked of the guest under QEMU, and how: words at the start of a device's memory, which
//! whoever asks has mapped, too. A request is there when its number is new, and so is an answer.

use anyhow::{Result, bail};

/// What is asked of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The word at an offset of the memory of a device.
    Load { device: u64, offset: u64 },
    /// That it stores a word there.
    Store {
        device: u64,
        offset: u64,
        value: u64,
    },
    /// That it fills a page of its own memory with a word.
    Fill { value: u64 },
    /// That it ends.
    End,
}

/// The number of a request, and its words.
pub const REQUEST: usize = 0;
/// The number of the request that is answered, and the result.
pub const ANSWER: usize = 64;
/// How many words a request has beside its number.
pub const WORDS: usize = 4;

impl Request {
    pub fn words(self) -> [u64; WORDS] {
        match self {
            Request::Load { device, offset } => [0, device, offset, 0],
            Request::Store {
                device,
                offset,
                value,
            } => [1, device, offset, value],
            Request::Fill { value } => [2, value, 0, 0],
            Request::End => [3, 0, 0, 0],
        }
    }

    pub fn of(words: [u64; WORDS]) -> Result<Request> {
        Ok(match words {
            [0, device, offset, _] => Request::Load { device, offset },
            [1, device, offset, value] => Request::Store {
                device,
                offset,
                value,
            },
            [2, value, ..] => Request::Fill { value },
            [3, ..] => Request::End,
            _ => bail!("no request: {words:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_their_request() {
        for request in [
            Request::Load {
                device: 1,
                offset: 8,
            },
            Request::Store {
                device: 0,
                offset: 16,
                value: u64::MAX,
            },
            Request::Fill { value: 7 },
            Request::End,
        ] {
            assert_eq!(Request::of(request.words()).unwrap(), request);
        }
        assert!(Request::of([4, 0, 0, 0]).is_err());
    }
}
