// SPDX-License-Identifier: GPL-2.0

//! What /proc/PID/fdinfo says of an asfd or a view. Pure: text in, values out.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

/// One mapping of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// First address in the address space, in bytes.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// `rwx`, with dashes.
    pub prot: String,
    /// Whether what is written is written to copies that only the address space has.
    pub private: bool,
    /// Where the range of the file begins, in bytes.
    pub offset: u64,
    /// The path of the file.
    pub path: String,
}

impl Mapping {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// A memory slot of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// The process that has it; 0 if it cannot be seen from here.
    pub pid: u32,
    /// A number that stands for the machine.
    pub vm: u64,
    /// The number of the slot.
    pub slot: u32,
    /// First address that it shows.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdInfo {
    /// Values by their keys.
    pub values: BTreeMap<String, String>,
    /// The slots of an asfd.
    pub slots: Vec<Slot>,
    /// The layout of an asfd.
    pub layout: Vec<Mapping>,
}

impl FdInfo {
    /// Reads it. Lines that it does not know are left out: there may be new ones.
    pub fn parse(text: &str) -> FdInfo {
        let mut info = FdInfo::default();
        for line in text.lines() {
            if let Some(mapping) = mapping(line) {
                info.layout.push(mapping);
            } else if let Some((key, value)) = line.split_once(":\t") {
                match key {
                    "slot" => info.slots.extend(slot(value)),
                    _ => {
                        info.values.insert(key.into(), value.trim().into());
                    }
                }
            }
        }
        info
    }

    /// A number by its key; 0 if it is not there.
    pub fn number(&self, key: &str) -> u64 {
        let value = self.values.get(key).map_or("", String::as_str);
        match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).unwrap_or(0),
            None => value.parse().unwrap_or(0),
        }
    }

    /// The number of the address space, if this is an asfd or a view.
    pub fn space(&self) -> Option<u64> {
        self.values.get("space")?.parse().ok()
    }

    /// Whether it is that of an asfd: a view has no count of mappings.
    pub fn is_asfd(&self) -> bool {
        self.values.contains_key("mappings")
    }

    /// Whether the file was opened for writing: an asfd that was not manages nothing, nor does a
    /// view.
    pub fn may_write(&self) -> bool {
        let flags = self.values.get("flags").map_or("", String::as_str);
        let mode = i32::from_str_radix(flags, 8).unwrap_or(0) & libc::O_ACCMODE;
        mode != libc::O_RDONLY
    }

    /// How many bytes of the address space are mapped.
    pub fn mapped(&self) -> u64 {
        self.layout.iter().map(Mapping::length).sum()
    }
}

/// `START-END`, in hexadecimal.
pub fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (start <= end).then_some(start..end)
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(4, ' ');
    let range = range(words.next()?)?;
    let (prot, sharing) = words.next()?.split_at_checked(3)?;
    let private = match sharing {
        "s" => false,
        "p" => true,
        _ => return None,
    };
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    Some(Mapping {
        start: range.start,
        end: range.end,
        prot: prot.into(),
        private,
        offset,
        path: words.next().unwrap_or("").into(),
    })
}

/// `pid 812 vm 1 slot 0 00000000-00100000`
fn slot(value: &str) -> Option<Slot> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let ["pid", pid, "vm", vm, "slot", slot, shown, ..] = words[..] else {
        return None;
    };
    let shown = range(shown)?;
    Some(Slot {
        pid: pid.parse().ok()?,
        vm: vm.parse().ok()?,
        slot: slot.parse().ok()?,
        start: shown.start,
        end: shown.end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASFD: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t5\nspace:\t5\n\
        creator:\t812\nlength:\t1048576\nmappings:\t2\nholes:\tsignal\n\
        last-hole:\t0x20000\nslots:\t1\nslot:\tpid 812 vm 1 slot 3 00001000-00002000\n\
        00000000-00001000 r--s 00000000 /etc/os-release\n\
        00010000-00015000 rw-p 00002000 /memfd:two words (deleted)\n";

    #[test]
    fn of_asfd_has_values_slots_and_layout() {
        let info = FdInfo::parse(ASFD);
        assert!(info.is_asfd());
        assert_eq!(info.space(), Some(5));
        assert_eq!(info.number("length"), 1 << 20);
        assert_eq!(info.number("last-hole"), 0x20000);
        assert_eq!(info.number("not-there"), 0);
        assert_eq!(
            info.slots,
            [Slot {
                pid: 812,
                vm: 1,
                slot: 3,
                start: 0x1000,
                end: 0x2000
            }]
        );
        assert_eq!(info.layout.len(), 2);
        assert_eq!(info.layout[1].path, "/memfd:two words (deleted)");
        assert_eq!(info.layout[1].prot, "rw-");
        assert_eq!([0, 1].map(|at| info.layout[at].private), [false, true]);
        assert_eq!(info.mapped(), 0x6000);
    }

    #[test]
    fn of_view_is_no_asfd() {
        let info = FdInfo::parse("space:\t5\noffset:\t4096\nlength:\t8192\nprot:\tr--\n");
        assert!(!info.is_asfd());
        assert_eq!(info.space(), Some(5));
        assert_eq!(info.number("offset"), 4096);
    }

    #[test]
    fn of_other_file_has_no_space() {
        assert_eq!(FdInfo::parse("pos:\t0\nflags:\t02\n").space(), None);
    }

    #[test]
    fn damaged_lines_are_left_out() {
        let info = FdInfo::parse("slot:\tpid x\n2000-1000 r--s 0 x\nzz-1 r--s 0 x\n");
        assert!(info.slots.is_empty() && info.layout.is_empty());
    }
}
