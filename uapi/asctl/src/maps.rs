// SPDX-License-Identifier: GPL-2.0

//! The attachments in /proc/PID/maps. Pure: text in, values out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::fdinfo::range;
use crate::mounts::Device;

/// What asfds and views are called, before the name that their maker gave them.
pub const ASFD: &str = "/address_space";
/// The same of a view.
pub const VIEW: &str = "/address_space_view";

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// First address in the process, in bytes.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// `rwx`, with dashes.
    pub prot: String,
    /// First address in the address space.
    pub offset: u64,
    /// Inode number of the file that was mapped.
    pub inode: u64,
    /// What the file is called.
    pub path: String,
}

/// A path as readlink() and maps show it: what is called so, without ` (deleted)`.
/// Nothing for another file.
pub fn name(path: &str) -> Option<&str> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let rest = path
        .strip_prefix(VIEW)
        .or_else(|| path.strip_prefix("/address_space_slot"))
        .or_else(|| path.strip_prefix(ASFD))?;
    match rest {
        "" => Some(""),
        _ => rest.strip_prefix(':'),
    }
}

/// The attachments of one process. Of those with a path all files are meant that are on `named`.
pub fn attachments(maps: &str, named: &BTreeSet<Device>) -> Vec<Attachment> {
    let found = maps.lines().filter_map(|line| attachment(line, named));
    found.collect()
}

/// `7f00-7f01 rw-s 00000000 00:0e 5   /address_space:ram (deleted)`
fn attachment(line: &str, named: &BTreeSet<Device>) -> Option<Attachment> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(word)
    };
    let range = range(word()?)?;
    let prot = word()?.strip_suffix('s')?;
    let offset = u64::from_str_radix(word()?, 16).ok()?;
    let (major, minor) = word()?.split_once(':')?;
    let hex = |digits| u32::from_str_radix(digits, 16).ok();
    let device = (hex(major)?, hex(minor)?);
    let inode = word()?.parse().ok()?;
    if name(rest).is_none() && !named.contains(&device) {
        return None;
    }
    Some(Attachment {
        start: range.start,
        end: range.end,
        prot: prot.into(),
        offset,
        inode,
        path: rest.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_paths() {
        assert_eq!(name("/address_space (deleted)"), Some(""));
        assert_eq!(
            name("/address_space:guest ram (deleted)"),
            Some("guest ram")
        );
        assert_eq!(name("/address_space_view:disk (deleted)"), Some("disk"));
        assert_eq!(name("/address_space_view (deleted)"), Some(""));
        assert_eq!(name("/address_spaces"), None);
        assert_eq!(name("/home/address_space"), None);
    }

    #[test]
    fn attachments_are_found_among_other_lines() {
        let maps = "\
            55d0-55d1 r--p 00000000 08:01 77                 /usr/bin/cat\n\
            7f00-7f10 rw-s 00002000 00:0e 5                  /address_space:a b (deleted)\n\
            7f20-7f21 rw-p 00000000 00:00 0\n\
            7f30-7f31 r--s 00000000 00:0e 6                  /address_space_view (deleted)\n\
            7f40-7f41 rw-s 00000000 00:2a 7                  /run/address_space/ram\n\
            7f50-7f51 rw-s 00000000 00:2b 8                  /dev/shm/ram\n";
        let found = attachments(maps, &BTreeSet::from([(0, 0x2a)]));
        assert_eq!(found.len(), 3);
        assert_eq!(
            found[0],
            Attachment {
                start: 0x7f00,
                end: 0x7f10,
                prot: "rw-".into(),
                offset: 0x2000,
                inode: 5,
                path: "/address_space:a b (deleted)".into(),
            }
        );
        assert_eq!(found[1].inode, 6);
        assert_eq!(found[2].path, "/run/address_space/ram");
    }
}
