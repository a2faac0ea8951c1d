// SPDX-License-Identifier: GPL-2.0

//! A layout drawn to scale in one line. Pure.

use crate::fdinfo::Mapping;

/// Draws `length` bytes in `width` columns, each of which stands for the same number of
/// bytes: the letter of the file of which a column shows most, `.` for a hole, and `:`
/// where a column is more hole than not, so that nothing small disappears.
pub fn draw(layout: &[Mapping], letters: &[char], length: u64, width: usize) -> String {
    let column = |index: usize| (u128::from(length) * index as u128 / width as u128) as u64;
    let mut first = 0;
    (0..width)
        .map(|index| {
            let (start, end) = (column(index), column(index + 1).max(column(index) + 1));
            // Sorted by address: what ends before this column is done with.
            while layout
                .get(first)
                .is_some_and(|mapping| mapping.end <= start)
            {
                first += 1;
            }
            let (mut most, mut covered, mut letter) = (0, 0, '.');
            for (mapping, of) in layout.iter().zip(letters).skip(first) {
                if mapping.start >= end {
                    break;
                }
                let part = mapping.end.min(end) - mapping.start.max(start);
                covered += part;
                if part > most {
                    (most, letter) = (part, *of);
                }
            }
            match covered {
                0 => '.',
                covered if covered < (end - start) / 2 => ':',
                _ => letter,
            }
        })
        .collect()
}

/// A letter for each mapping, the same for the same file: a to z, A to Z, then `#`.
pub fn letters(layout: &[Mapping]) -> Vec<char> {
    let mut paths: Vec<&str> = Vec::new();
    let alphabet: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    layout
        .iter()
        .map(|mapping| {
            let known = paths.iter().position(|path| *path == mapping.path);
            let index = known.unwrap_or_else(|| {
                paths.push(&mapping.path);
                paths.len() - 1
            });
            alphabet.get(index).copied().unwrap_or('#')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, path: &str) -> Mapping {
        Mapping {
            start,
            end,
            prot: "rw-".into(),
            private: false,
            offset: 0,
            path: path.into(),
        }
    }

    fn drawn(layout: &[Mapping], length: u64, width: usize) -> String {
        draw(layout, &letters(layout), length, width)
    }

    #[test]
    fn columns_are_to_scale() {
        let layout = [mapping(0, 50, "x"), mapping(75, 100, "y")];
        assert_eq!(drawn(&layout, 100, 8), "aaaa..bb");
        assert_eq!(drawn(&[], 100, 4), "....");
    }

    #[test]
    fn nothing_small_disappears() {
        assert_eq!(drawn(&[mapping(999, 1000, "x")], 1000, 10), ".........:");
        let tiny = [mapping(0, 4096, "x")];
        assert_eq!(drawn(&tiny, 1 << 46, 4), ":...");
    }

    #[test]
    fn one_file_has_one_letter() {
        let layout = [mapping(0, 1, "x"), mapping(1, 2, "y"), mapping(2, 3, "x")];
        assert_eq!(letters(&layout), ['a', 'b', 'a']);
    }

    #[test]
    fn less_bytes_than_columns_are_drawn_too() {
        assert_eq!(drawn(&[mapping(0, 1, "x")], 2, 4), "aa..");
    }
}
