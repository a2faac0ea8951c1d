// SPDX-License-Identifier: GPL-2.0

//! What the demo asks its three processes to do, and what they answer.
//!
//! These messages only make a process act. None of them is part of an address
//! space: when a mapping appears or goes, no process gets a message.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Orders for the VMM. Offsets are in the window, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub enum VmmOrder {
    /// Make the address spaces and the guest. Comes with two channels: to the
    /// file server and to the device.
    Begin,
    /// Let the guest print the line at an offset.
    Read { offset: u64 },
    /// Let the guest watch an offset until the word there changes, and print the
    /// new line. There are two answers: when it watches, and when it has seen.
    Watch { offset: u64 },
    /// Let the guest write its text to an offset.
    Write { offset: u64 },
    /// Run the guest from where it stopped.
    GoOn,
    /// Let the guest report the count that it keeps in its RAM.
    Count,
}

/// Orders for the file server. Offsets are in the window, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub enum ServerOrder {
    /// Take the asfd. Comes with a channel to the VMM.
    Begin,
    /// Open a file and map it for reading.
    Map { path: PathBuf, offset: u64 },
    /// Make a file that begins with this line, and map it for reading and
    /// writing in place of what is there.
    Replace {
        path: PathBuf,
        line: String,
        offset: u64,
    },
    /// Write a line to the beginning of that file.
    Edit { line: String },
    /// Read the first line of that file.
    ReadFile,
    /// Unmap all.
    Unmap,
    /// Read /proc/self/fdinfo of the asfd.
    Info,
}

/// Orders for the device. Offsets are in the view, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub enum DeviceOrder {
    /// Take the view and attach it. Comes with a channel to the VMM.
    Begin,
    /// Let the kernel copy the line at an offset.
    Copy { offset: u64 },
    /// Read the line at an offset, and die of SIGBUS if there is none.
    Read { offset: u64 },
    /// Try to attach the view for writing.
    TryWriting,
    /// Try to attach what lies past the end of the view.
    TryBeyond,
    /// Try to map a file.
    TryMapping,
}

/// Answers of all three.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// This is the line.
    Line(String),
    /// There is nothing: EFAULT.
    Hole,
    /// The guest is watching.
    Watching,
    /// What the guest reports, and what the VMM reads in the same place.
    Count { guest: u32, vmm: u32 },
    /// The kernel refused.
    Refused { errno: i32, advice: String },
    /// The text asked for.
    Text(String),
    /// It could not be done.
    Failed(String),
}

/// The longest line in bytes; all three processes cut longer ones.
pub const LINE: usize = 100;

/// The line that some bytes begin with, as the guest reads it.
pub fn first_line(bytes: &[u8]) -> String {
    let line = bytes
        .iter()
        .take(LINE)
        .take_while(|byte| ![0, b'\n'].contains(byte));
    String::from_utf8_lossy(&line.copied().collect::<Vec<u8>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_at_newline_zero_or_its_greatest_length() {
        assert_eq!(first_line(b"one\ntwo"), "one");
        assert_eq!(first_line(b"one\0two"), "one");
        assert_eq!(first_line(b""), "");
        assert_eq!(first_line(&[b'x'; 200]).len(), LINE);
    }
}
