// SPDX-License-Identifier: GPL-2.0

//! What the kernel says of an asfd in /proc/PID/fdinfo.

use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result};

/// The text of fdinfo for a file descriptor of this process.
pub fn read(fd: impl AsFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    // The paths of files are of any bytes.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The number after a key, which is hexadecimal if it begins with 0x.
pub fn number(text: &str, key: &str) -> Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
        .with_context(|| format!("no {key} in fdinfo:\n{text}"))?;
    let word = value.split_whitespace().next().unwrap_or_default();
    let number = match word.strip_prefix("0x") {
        Some(digits) => number_16(digits),
        None => word.parse().ok(),
    };
    number.with_context(|| format!("{key} is no number in fdinfo: {word:?}"))
}

/// An access that was refused or absorbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many there have been, with this one.
    pub count: u64,
    /// The page: its offset in the space, in bytes.
    pub offset: u64,
    /// The access, as `rwx` with dashes.
    pub access: String,
    /// Why it was.
    pub reason: String,
}

/// The last of them, if there has been one.
pub fn last_refusal(text: &str) -> Result<Option<Refusal>> {
    let Some(value) = text
        .lines()
        .find_map(|line| line.strip_prefix("last-refusal:"))
    else {
        return Ok(None);
    };
    let words: Vec<_> = value.split_whitespace().collect();
    let refusal = match words[..] {
        [count, offset, access, reason] => (|| {
            Some(Refusal {
                count: count.parse().ok()?,
                offset: number_16(offset.strip_prefix("0x")?)?,
                access: access.to_owned(),
                reason: reason.to_owned(),
            })
        })(),
        _ => None,
    };
    let refusal = refusal.with_context(|| format!("in fdinfo: last-refusal {value:?}"))?;
    Ok(Some(refusal))
}

/// A range of the space, and what it shows. All numbers are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The offsets in the space.
    pub range: Range<u64>,
    /// The protection, as `rwx` with dashes.
    pub prot: String,
    /// Where in the file the range begins.
    pub offset: u64,
    /// The path of the file.
    pub path: String,
}

/// The layout of the space.
pub fn mappings(text: &str) -> Result<Vec<Mapping>> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.splitn(4, ' ');
            let (start, end) = words.next()?.split_once('-')?;
            let range = number_16(start)?..number_16(end)?;
            Some(mapping(range, words).with_context(|| format!("in fdinfo: {line:?}")))
        })
        .collect()
}

fn mapping<'a>(range: Range<u64>, mut words: impl Iterator<Item = &'a str>) -> Result<Mapping> {
    Ok(Mapping {
        range,
        prot: words.next().context("no protection")?.to_owned(),
        offset: words.next().and_then(number_16).context("no offset")?,
        path: words.next().context("no path")?.to_owned(),
    })
}

fn number_16(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pos:\t0\nlength:\t4096\n0-1000 rw- 2000 /memfd:a b (deleted)\n\
        faults:\t12\nrevocations:\t3 (of 5)\nlast-hole:\t0x20000\n";

    #[test]
    fn numbers_are_found_among_other_lines() {
        assert_eq!(number(TEXT, "faults").unwrap(), 12);
        assert_eq!(number(TEXT, "revocations").unwrap(), 3);
        assert_eq!(number(TEXT, "last-hole").unwrap(), 0x20000);
        assert!(number(TEXT, "attachments").is_err());
    }

    #[test]
    fn last_refusal_has_four_words() {
        assert_eq!(last_refusal(TEXT).unwrap(), None);
        let text = format!("{TEXT}last-refusal:\t3 0x20000 r-- past-end\n");
        let refusal = last_refusal(&text).unwrap().unwrap();
        assert_eq!((refusal.count, refusal.offset), (3, 0x20000));
        assert_eq!((&*refusal.access, &*refusal.reason), ("r--", "past-end"));
        assert!(last_refusal("last-refusal:\t3 0x20000 r--\n").is_err());
    }

    #[test]
    fn mappings_are_found_with_the_whole_path() {
        let mapping = Mapping {
            range: 0..0x1000,
            prot: "rw-".into(),
            offset: 0x2000,
            path: "/memfd:a b (deleted)".into(),
        };
        assert_eq!(mappings(TEXT).unwrap(), [mapping]);
        assert!(mappings("0-1000 rw- 2000").is_err());
    }
}
