// SPDX-License-Identifier: GPL-2.0

//! A guest in a file: what its CPUs have in them, and its memory, packed chunk by chunk so that
//! each can be read alone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rig::flat::CpuState;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::memory::{CHUNKS, Memory};
use crate::packed::{pack, unpack};

/// What precedes the packed chunks in the file, after its length in 8 bytes.
#[derive(Serialize, Deserialize)]
struct Header {
    cpus: Vec<CpuState>,
    /// The length of each chunk; they come in their order.
    chunks: Vec<u32>,
}

/// A snapshot.
pub struct Snapshot {
    path: PathBuf,
    file: File,
    cpus: Vec<CpuState>,
    /// Where each chunk is.
    chunks: Vec<Range<u64>>,
}

impl Snapshot {
    /// Writes a snapshot of a machine that does not run.
    pub fn write(path: &Path, memory: &Memory, machine: &mut Machine) -> Result<()> {
        let chunks: Vec<_> = (0..CHUNKS)
            .map(|chunk| Ok(pack(&memory.read(chunk)?)))
            .collect::<Result<_>>()?;
        let header = serde_json::to_vec(&Header {
            cpus: machine.save()?,
            chunks: chunks.iter().map(|chunk| chunk.len() as u32).collect(),
        })?;
        let mut file = File::create(path).with_context(|| format!("{}", path.display()))?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for chunk in &chunks {
            file.write_all(chunk)?;
        }
        Ok(())
    }

    /// Opens one, and reads of it what the CPUs have in them.
    pub fn open(path: &Path) -> Result<Snapshot> {
        let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut header = Vec::new();
        (&file).take(length).read_to_end(&mut header)?;
        let header: Header = serde_json::from_slice(&header)?;
        ensure!(header.chunks.len() == CHUNKS, "memory of another length");
        let mut end = size_of::<u64>() as u64 + length;
        let chunks = header.chunks.iter().map(|&length| {
            let start = end;
            end += u64::from(length);
            start..end
        });
        Ok(Snapshot {
            chunks: chunks.collect(),
            path: path.to_owned(),
            file,
            cpus: header.cpus,
        })
    }

    /// What the CPUs had in them.
    pub fn cpus(&self) -> &[CpuState] {
        &self.cpus
    }

    /// The length of the file in bytes.
    pub fn length(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads a chunk. Returns whether it is anything but zero.
    pub fn read(&self, chunk: usize, into: &mut [u8]) -> Result<bool> {
        let place = &self.chunks[chunk];
        let mut packed = vec![0; (place.end - place.start) as usize];
        self.file.read_exact_at(&mut packed, place.start)?;
        unpack(&packed, into)
    }

    /// Damages a chunk, for a test of what comes of that.
    pub fn damage(&self, chunk: usize) -> Result<()> {
        let place = &self.chunks[chunk];
        ensure!(!place.is_empty(), "nothing there to damage");
        let file = File::options().write(true).open(&self.path)?;
        let bytes = vec![0xff; (place.end - place.start) as usize];
        Ok(file.write_all_at(&bytes, place.start)?)
    }
}
