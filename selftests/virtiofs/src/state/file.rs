// SPDX-License-Identifier: GPL-2.0

//! The file that keeps the state: records are appended, and what is before the last snapshot
//! is no longer needed.
//!
//! It is for a server that is killed, not for a host that crashes: the guest would be gone
//! too. So nothing is synced, and all that can be wrong is that the end is missing. The file
//! only grows, but what is before the snapshot is punched out of it: so the server can do
//! everything with the one file descriptor, confined as it is.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::record::Record;
use super::table::Table;

/// How much is appended after a snapshot, in bytes, before there is a new one: at least this
/// much, and several times as much as the snapshot.
const LEAST: u64 = 1 << 20;
const TIMES: u64 = 4;

/// Snapshots begin at a multiple of this, so that all before them can be punched out.
const ALIGN: u64 = 4096;

/// How the line before the records of a snapshot begins; their length in bytes follows.
const SNAPSHOT: &str = "snapshot ";

/// The file.
pub(super) struct StateFile {
    file: File,
    /// Where the next record goes.
    end: u64,
    /// Where the next snapshot is due.
    due: u64,
}

impl StateFile {
    /// Takes over the state from the server before, if there was one.
    pub(super) fn load(mut file: File) -> io::Result<(StateFile, Table)> {
        let start = first_data(&file)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (table, length) = parse(&bytes)?;
        let end = start + length as u64;
        // What is left of a record that was cut off.
        file.set_len(end)?;
        let mut file = StateFile { file, end, due: 0 };
        file.snapshot(&table)?;
        Ok((file, table))
    }

    /// Appends a record, which `table` has already.
    pub(super) fn append(&mut self, record: &Record, table: &Table) -> io::Result<()> {
        self.write(&format!("{record}\n"))?;
        if self.end >= self.due {
            self.snapshot(table)?;
        }
        Ok(())
    }

    /// Leaves nothing to take over from.
    pub(super) fn destroy(&self) {
        if let Err(error) = self.file.set_len(0) {
            log::error!("cannot remove the state: {error}");
        }
    }

    fn snapshot(&mut self, table: &Table) -> io::Result<()> {
        let mut records = String::new();
        for record in table.records() {
            let _ = writeln!(records, "{record}");
        }
        let start = self.end.next_multiple_of(ALIGN);
        let padding = "\n".repeat((start - self.end) as usize);
        self.write(&format!("{padding}{SNAPSHOT}{}\n{records}", records.len()))?;
        self.due = self.end + LEAST.max(TIMES * records.len() as u64);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, punch, 0, start) {
            // Then it is only longer than it need be.
            Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), self.end)?;
        self.end += text.len() as u64;
        Ok(())
    }
}

/// Where the file begins, if it begins with a hole.
fn first_data(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)) {
        Ok(start) => Ok(start),
        // An empty file.
        Err(Errno::NXIO) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The state that a file contains, and where the last whole record ends.
fn parse(bytes: &[u8]) -> io::Result<(Table, usize)> {
    let mut table = Table::default();
    let mut rest = bytes;
    let at = |rest: &[u8]| bytes.len() - rest.len();
    while let Some(length) = rest.iter().position(|&byte| byte == b'\n') {
        let line = std::str::from_utf8(&rest[..length]).map_err(|_| broken(at(rest)))?;
        let next = &rest[length + 1..];
        // Where holes cannot be seen, they are zeroes.
        let line = line.trim_start_matches('\0');
        if let Some(snapshot) = line.strip_prefix(SNAPSHOT) {
            let length: usize = snapshot.parse().map_err(|_| broken(at(rest)))?;
            if length > next.len() {
                break;
            }
            table = Table::default();
        } else if !line.is_empty() {
            let record = Record::parse(line).ok_or_else(|| broken(at(rest)))?;
            table.apply(&record);
        }
        rest = next;
    }
    Ok((table, at(rest)))
}

fn broken(at: usize) -> io::Error {
    let text = format!("the state is broken {at} bytes after its start");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::Place;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::fs::MetadataExt as _;

    fn file() -> File {
        memfd_create("state", MemfdFlags::CLOEXEC).unwrap().into()
    }

    fn look(node: u64) -> Record {
        let name = format!("name-{node}").into_bytes();
        let place = Place { parent: 1, name };
        Record::Look {
            place,
            node,
            count: 1,
            born: 1,
        }
    }

    #[test]
    fn next_server_has_what_the_last_one_had() {
        let file = file();
        let (mut state, mut table) = StateFile::load(file.try_clone().unwrap()).unwrap();
        for node in 2..100 {
            let record = look(node);
            table.apply(&record);
            state.append(&record, &table).unwrap();
        }
        for _ in 0..3 {
            let (_, loaded) = StateFile::load(file.try_clone().unwrap()).unwrap();
            assert_eq!(loaded, table);
        }
    }

    #[test]
    fn server_that_dies_while_it_writes_loses_no_earlier_record() {
        let records = [look(2), look(3)].map(|record| format!("{record}\n"));
        let all = records.concat();
        // The snapshot in which both are, before what precedes it is punched out.
        let snapshot = format!("\n\n{SNAPSHOT}{}\n{all}", all.len());
        let whole = format!("{all}{snapshot}").into_bytes();
        for length in 0..=whole.len() {
            let cut = file();
            cut.write_all_at(&whole[..length], 0).unwrap();
            let (_, loaded) = StateFile::load(cut).unwrap();
            let known = [2, 3].map(|node| loaded.count(node));
            let expected = [records[0].len(), all.len()].map(|end| u64::from(length >= end));
            assert_eq!(known, expected, "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn file_does_not_grow_without_bound() {
        let file = file();
        let (mut state, mut table) = StateFile::load(file.try_clone().unwrap()).unwrap();
        for round in 0..200_000_u64 {
            let node = 2 + round % 50;
            for record in [look(node), Record::Forget { node, count: 1 }] {
                table.apply(&record);
                state.append(&record, &table).unwrap();
            }
        }
        let metadata = file.metadata().unwrap();
        assert!(metadata.len() > 4 * LEAST);
        assert!(metadata.blocks() * 512 < 2 * LEAST, "{}", metadata.blocks());
        let (_, loaded) = StateFile::load(file).unwrap();
        assert_eq!(loaded, table);
    }

    #[test]
    fn something_else_is_no_state() {
        let other = file();
        other.write_all_at(b"[section]\nkey = value\n", 0).unwrap();
        let error = StateFile::load(other).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
