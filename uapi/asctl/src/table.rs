// SPDX-License-Identifier: GPL-2.0

//! Tables whose columns are as wide as what is in them, and sizes and names as people write
//! them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// What is in a file of /proc. Names in it may be of any bytes: what is no text becomes U+FFFD.
pub fn text_of(path: impl AsRef<Path>) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A table that is printed when it is complete.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// With these headings; those that begin with `>` are of columns to the right.
    pub fn new(headings: &[&str]) -> Table {
        Table {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| heading.trim_start_matches('>').to_owned())
                    .collect(),
            ],
            right: headings
                .iter()
                .map(|heading| heading.starts_with('>'))
                .collect(),
        }
    }

    /// Adds a row. What a terminal would not print but obey is escaped in it.
    pub fn row(&mut self, cells: Vec<String>) {
        let printable = |cell: String| printable(&cell);
        self.rows.push(cells.into_iter().map(printable).collect());
    }

    /// Prints it.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match right {
                    true => line.push_str(&format!("{cell:>width$}")),
                    false => line.push_str(&format!("{cell:<width$}")),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A text for a terminal. Names of address spaces, files and programs are whatever their users
/// have chosen, and who looks at them may be root.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Bytes with the largest unit that leaves a whole number or one decimal.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = bytes;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    let whole = 1u64 << (10 * unit);
    match bytes % whole {
        0 => format!("{scaled} {}", UNITS[unit]),
        _ => format!("{:.1} {}", bytes as f64 / whole as f64, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_people_write_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1 << 30), "1 GiB");
        assert_eq!(size(3 << 19), "1.5 MiB");
        assert_eq!(size(1 << 46), "64 TiB");
    }

    #[test]
    fn nothing_in_a_row_is_obeyed_by_a_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["\x1b[2Jä\n\u{9b}".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME\n\\u{1b}[2Jä\\n\\u{9b}\n");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&["A", ">NUMBER"]);
        table.row(vec!["long word".into(), "1".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "A          NUMBER\nlong word       1\n");
    }
}
