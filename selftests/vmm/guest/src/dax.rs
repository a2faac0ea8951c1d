// SPDX-License-Identifier: GPL-2.0

//! What the VMM and the guest's program have agreed on in the trial of the DAX window.

use crate::ports::Number;

/// The tag of the shared directory.
pub const TAG: &str = "share";
/// The parameter of the kernel's command line that says which of two guests this is.
pub const ROLE: &str = "role";
pub const FIRST: &str = "first";
pub const SECOND: &str = "second";

/// A file in the shared directory: its name, the number of its content, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub name: &'static str,
    pub file: u64,
    pub length: usize,
}

const fn content(name: &'static str, file: u64, length: usize) -> Content {
    Content { name, file, length }
}

/// Written by the host before the guest boots.
pub const HOST: Content = content("host", 1, (3 << 20) + 123);
/// Written by the guest.
pub const GUEST: Content = content("guest", 2, (2 << 20) + (1 << 19));
/// What the host then writes into that, at [`REPLY_AT`].
pub const REPLY: Content = content("guest", 3, 8192);
pub const REPLY_AT: usize = 3 * 4096;
/// What the guest then appends to it,
pub const APPENDED: Content = content("guest", 4, 5000);
/// and to which length it cuts it.
pub const CUT: usize = (1 << 20) + 77;
/// Larger than the window. There are holes between the chunks of which it has its content.
pub const LARGE: Content = content("large", 5, 72 << 20);
pub const CHUNK: usize = 1 << 16;

/// Where the chunks begin.
pub fn chunks() -> impl Iterator<Item = usize> {
    (0..LARGE.length).step_by(3 * CHUNK)
}

/// In huge pages.
pub const HUGE: Content = content("huge/file", 6, 4 << 20);
/// Written by the guest from a mapping of [`HOST`].
pub const COPY: Content = content("copy", HOST.file, (1 << 16) + 5);
/// What the other guest would write so, whose device does not reach the window.
pub const LOST: &str = "lost";
/// On the disk, and read by the guest into a mapping.
pub const DISK: Content = content("disk", 7, 1 << 16);
/// Files that the host cuts to [`SHORT`], the last of them for the other guest, and what it
/// later writes there, from [`REGROWN`] on.
pub const SHRINKING: [Content; 3] = [
    content("shrinking-0", 8, SHORT + (1 << 17)),
    content("shrinking-1", 9, SHORT + (1 << 17)),
    content("shrinking-2", 10, SHORT + (1 << 17)),
];
pub const GROWN: [Content; 3] = [
    content("shrinking-0", 11, SHORT + (1 << 17)),
    content("shrinking-1", 12, SHORT + (1 << 17)),
    content("shrinking-2", 13, SHORT + (1 << 17)),
];
pub const SHORT: usize = (1 << 20) + 100;
pub const REGROWN: usize = SHORT.next_multiple_of(8);
/// The guest's program, and what it ends with if it has this argument.
pub const PROGRAM: &str = "program";
pub const ARGUMENT: &str = "answer";
pub const ANSWER: i32 = 42;

/// The file that two guests write in turns: a page with the number of the turn in its first
/// word, and a text after that.
pub const TURNS: Content = content("turns", 0, 4096);
/// How many there are.
pub const MOST_TURNS: u64 = 2000;
/// A file that the second guest makes.
pub const GREETING: &str = "greeting";

/// The text of a turn.
pub fn turn(number: u64) -> String {
    format!("turn {number:>20}, in a page of two guests")
}

/// The parameter that says how often the server is killed.
pub const KILLS: &str = "kills";
/// A directory in which the guest makes files meanwhile.
pub const MADE: &str = "made";

/// The name of such a file, and its content.
pub fn made(number: u64) -> String {
    format!("{MADE}/{number}")
}

/// What is renamed, what to, and what is removed.
pub const NAMES: [&str; 3] = ["names/old", "names/new", "names/removed"];
pub const NAMED: &str = "renamed by the guest";

/// What the program calls for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The directory is mounted.
    Mounted = 1,
    /// [`HUGE`] has been stored to and read.
    Huge,
    /// [`HOST`] has been read.
    Read,
    /// [`GUEST`] has been stored.
    Stored,
    /// [`REPLY`] has been read, and a private mapping of the file changed.
    Private,
    Appended,
    /// It has been cut,
    Cut,
    /// and made longer again.
    Lengthened,
    Named,
    /// The program in the directory runs.
    Executed,
    /// [`LARGE`] will be read,
    Large,
    /// and has been, so many times.
    LargeRead,
    /// Names have been looked up on each CPU.
    Queues,
    Copied,
    FromDisk,
    /// Of the other guest: a write from a mapping has failed with this errno.
    Lost,
    /// The turns have been taken.
    Turns,
    /// The compiler in the directory has made a program, which has run,
    Compiled,
    /// and the interpreter a database, which has been read.
    Filled,
    /// The server shall be killed, while files are made, and again,
    Kill,
    /// and so many have been made.
    Restarted,
    /// The files of this and the next step shall be cut,
    Shrink,
    ShrinkOther,
    /// and have been read.
    Shrunk,
    /// They have been read with their new content.
    Grown,
    Done,
    /// Something went wrong. The console says what.
    Failed,
}

impl Step {
    const ALL: [Step; 27] = [
        Step::Mounted,
        Step::Huge,
        Step::Read,
        Step::Stored,
        Step::Private,
        Step::Appended,
        Step::Cut,
        Step::Lengthened,
        Step::Named,
        Step::Executed,
        Step::Large,
        Step::LargeRead,
        Step::Queues,
        Step::Copied,
        Step::FromDisk,
        Step::Lost,
        Step::Turns,
        Step::Compiled,
        Step::Filled,
        Step::Kill,
        Step::Restarted,
        Step::Shrink,
        Step::ShrinkOther,
        Step::Shrunk,
        Step::Grown,
        Step::Done,
        Step::Failed,
    ];

    /// The step with a number.
    pub fn of(number: u8) -> Option<Step> {
        Step::ALL.into_iter().find(|step| *step as u8 == number)
    }
}

impl Number for Step {
    fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_the_numbers_they_are_found_by() {
        for step in Step::ALL {
            assert_eq!(Step::of(step as u8), Some(step));
        }
        assert_eq!(Step::of(0), None);
        assert_eq!(Step::of(Step::ALL.len() as u8 + 1), None);
    }
}
