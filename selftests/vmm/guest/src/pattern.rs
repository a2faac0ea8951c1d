// SPDX-License-Identifier: GPL-2.0

//! The content of files, which both sides know: no two words of all files are the same, but
//! by chance.

/// The content of file number `file`, from `offset` on, which is a multiple of 8 bytes.
pub fn pattern(file: u64, offset: u64, length: usize) -> Vec<u8> {
    let words = length.div_ceil(8) as u64;
    let words = offset / 8..offset / 8 + words;
    let mut bytes: Vec<u8> = words
        .flat_map(|word| mixed(file, word).to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

/// splitmix64's way to make neighbours differ in all bits.
fn mixed(file: u64, word: u64) -> u64 {
    let mut number = (file << 48) + word + 1;
    number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Where two contents differ first.
pub fn difference(one: &[u8], other: &[u8]) -> Option<usize> {
    if one == other {
        return None;
    }
    let at = one.iter().zip(other).position(|(one, other)| one != other);
    Some(at.unwrap_or(one.len().min(other.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_whole() {
        let whole = pattern(3, 0, 1000);
        assert_eq!(pattern(3, 0, 999), whole[..999]);
        assert_eq!(pattern(3, 512, 100), whole[512..612]);
        assert_ne!(pattern(4, 0, 1000), whole);
    }

    #[test]
    fn difference_is_the_first() {
        assert_eq!(difference(b"same", b"same"), None);
        assert_eq!(difference(b"same", b"some"), Some(1));
        assert_eq!(difference(b"same", b"sam"), Some(3));
        assert_eq!(difference(b"", b"x"), Some(0));
    }
}
