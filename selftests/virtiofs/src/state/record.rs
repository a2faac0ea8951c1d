// SPDX-License-Identifier: GPL-2.0

//! The changes of the state, each a line of the file that keeps it.

use std::fmt::{self, Write as _};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The inode of the directory.
    pub parent: u64,
    /// The name.
    pub name: Vec<u8>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A guest has mounted the directory: FUSE_INIT, with what the guest can do.
    Init {
        /// The guest's flags.
        capable: u64,
    },
    /// It has unmounted it.
    End,
    /// It has looked up an inode so often more, and found it here.
    Look {
        /// Where.
        place: Place,
        /// The inode.
        node: u64,
        /// How often.
        count: u64,
        /// When it was made, in nanoseconds, for the file system may give its number to
        /// another; 0 if that is not known, or in the state already.
        born: u64,
    },
    /// It has forgotten so many lookups.
    Forget {
        /// The inode.
        node: u64,
        /// How many.
        count: u64,
    },
    /// A name is gone.
    Unlink {
        /// Which.
        place: Place,
    },
    /// A name has become another.
    Rename {
        /// The old name.
        from: Place,
        /// The new one.
        to: Place,
        /// Whether both have changed places.
        exchange: bool,
    },
    /// A request is about to be made that must not be made twice.
    Begin {
        /// The queue that it came by.
        queue: u32,
        /// The guest's number for it.
        request: u64,
        /// The inode that has the name that it is about; 0 for none.
        before: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.parent)?;
        for &byte in &self.name {
            // A space ends a name, and a newline a record.
            if byte.is_ascii_graphic() && byte != b'\\' {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "\\{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    /// Without the newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Init { capable } => write!(f, "init {capable}"),
            Record::End => write!(f, "end"),
            Record::Look {
                place,
                node,
                count,
                born,
            } => write!(f, "look {place} {node} {count} {born}"),
            Record::Forget { node, count } => write!(f, "forget {node} {count}"),
            Record::Unlink { place } => write!(f, "unlink {place}"),
            Record::Rename { from, to, exchange } => {
                let exchange = u8::from(*exchange);
                write!(f, "rename {from} {to} {exchange}")
            }
            Record::Begin {
                queue,
                request,
                before,
            } => write!(f, "begin {queue} {request} {before}"),
        }
    }
}

impl Record {
    /// The record that a line is, if it is one.
    pub fn parse(line: &str) -> Option<Record> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut words = Words(words);
        let record = match kind {
            "init" => Record::Init {
                capable: words.number()?,
            },
            "end" => Record::End,
            "look" => Record::Look {
                place: words.place()?,
                node: words.number()?,
                count: words.number()?,
                born: words.number()?,
            },
            "forget" => Record::Forget {
                node: words.number()?,
                count: words.number()?,
            },
            "unlink" => Record::Unlink {
                place: words.place()?,
            },
            "rename" => Record::Rename {
                from: words.place()?,
                to: words.place()?,
                exchange: words.number()? != 0,
            },
            "begin" => Record::Begin {
                queue: u32::try_from(words.number()?).ok()?,
                request: words.number()?,
                before: words.number()?,
            },
            _ => return None,
        };
        words.0.next().is_none().then_some(record)
    }
}

struct Words<'a>(std::str::Split<'a, char>);

impl Words<'_> {
    fn number(&mut self) -> Option<u64> {
        self.0.next()?.parse().ok()
    }

    fn place(&mut self) -> Option<Place> {
        let parent = self.number()?;
        let mut name = Vec::new();
        let mut rest = self.0.next()?.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'\\' {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                name.push(u8::from_str_radix(digits, 16).ok()?);
            } else {
                name.push(byte);
            }
        }
        Some(Place { parent, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_what_its_line_says() {
        let place = |name: &[u8]| Place {
            parent: 1,
            name: name.to_vec(),
        };
        let all: Vec<u8> = (1..=255).collect();
        for record in [
            Record::Init { capable: u64::MAX },
            Record::End,
            Record::Look {
                place: place(&all),
                node: 7,
                count: 1,
                born: u64::MAX,
            },
            Record::Forget { node: 7, count: 2 },
            Record::Unlink {
                place: place(b"a b\\c\nd"),
            },
            Record::Rename {
                from: place(b""),
                to: place(b"\xff"),
                exchange: true,
            },
            Record::Begin {
                queue: 3,
                request: 1 << 40,
                before: 0,
            },
        ] {
            let line = record.to_string();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Record::parse(&line), Some(record), "{line}");
        }
    }

    #[test]
    fn line_that_is_no_record_is_none() {
        for line in [
            "",
            "init",
            "init x",
            "init 1 2",
            "look 1 a 7",
            "unlink 1 a\\",
            "unlink 1 a\\0",
            "unlink 1 a\\zz",
            "begin 4294967296 1 1",
            "other 1",
        ] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }
}
