// SPDX-License-Identifier: GPL-2.0

//! What is asked of a guest whose VMM is not ours and has no way to do so: words in a file of
//! the shared directory, which the guest has mapped through the window, and the host as any
//! other file. A job is there when its number is new, and so is an answer.

use crate::dax::Content;

/// The file, a page.
pub const DESK: Content = Content {
    name: "desk",
    file: 0,
    length: 4096,
};

/// The number of a job,
pub const NUMBER: usize = 0;
/// and which it is.
pub const JOB: usize = 8;
/// The number of the job that is done,
pub const DONE: usize = 64;
/// what came of it,
pub const RESULT: usize = 72;
/// and, if that is [`FAILED`], why: the length of a text, and the text.
pub const WHY_LENGTH: usize = 80;
pub const WHY: usize = 128;
/// The longest text.
pub const LONGEST_WHY: usize = DESK.length - WHY;

/// The result of a job that has failed.
pub const FAILED: u64 = u64::MAX;

/// What the guest can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Job {
    /// Nothing, but to answer.
    Answer = 1,
    /// Read [`HOST`](crate::dax::HOST), by calls and through mappings.
    Read,
    /// Store [`GUEST`](crate::dax::GUEST), and keep it mapped.
    Store,
    /// Find [`REPLY`](crate::dax::REPLY) there, which the host has written meanwhile.
    FindReply,
    /// Read [`LARGE`](crate::dax::LARGE) through one mapping, chunk by chunk; the result is how
    /// many there were.
    ReadLarge,
    /// Turn off the machine.
    End,
}

impl Job {
    const ALL: [Job; 6] = [
        Job::Answer,
        Job::Read,
        Job::Store,
        Job::FindReply,
        Job::ReadLarge,
        Job::End,
    ];

    /// The job with a number.
    pub fn of(number: u64) -> Option<Job> {
        Job::ALL.into_iter().find(|job| *job as u64 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_the_numbers_they_are_found_by() {
        for job in Job::ALL {
            assert_eq!(Job::of(job as u64), Some(job));
        }
        assert_eq!(Job::of(0), None);
        assert_eq!(Job::of(Job::ALL.len() as u64 + 1), None);
    }
}
