// SPDX-License-Identifier: GPL-2.0

//! Chunks as they are in a snapshot and on the way to another machine: compressed by LZ4, and
//! nothing at all if they are zero.

use anyhow::{Context as _, Result, ensure};
use lz4_flex::block::{compress, decompress_into};

/// Packs a chunk.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Vec::new();
    }
    compress(bytes)
}

/// Unpacks a chunk into memory of its length. Returns whether it is anything but zero: else
/// the memory is left as it was.
pub fn unpack(packed: &[u8], into: &mut [u8]) -> Result<bool> {
    if packed.is_empty() {
        return Ok(false);
    }
    let length = decompress_into(packed, into).context("a chunk is damaged")?;
    ensure!(length == into.len(), "a chunk of {length} bytes");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_what_they_were_and_damage_is_an_error() {
        let bytes: Vec<_> = (0..5000).map(|at: u32| (at / 50) as u8).collect();
        let mut into = vec![0; bytes.len()];
        let mut packed = pack(&bytes);
        assert!(packed.len() < bytes.len() / 4);
        assert!(unpack(&packed, &mut into).unwrap());
        assert_eq!(into, bytes);
        packed.truncate(packed.len() / 2);
        assert!(unpack(&packed, &mut into).is_err());

        assert!(pack(&[0; 64]).is_empty());
        assert!(!unpack(&[], &mut into).unwrap());
    }
}
