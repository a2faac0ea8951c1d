// SPDX-License-Identifier: GPL-2.0

//! File systems whose files are address spaces with a name: where they are mounted, and what is
//! in them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::table::text_of;

/// The type of the file system.
const TYPE: &str = "address_space";

/// A device number, as maps and mountinfo tell it.
pub type Device = (u32, u32);

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: Device,
    pub at: PathBuf,
}

/// Those in a text of /proc/PID/mountinfo.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// `30 23 0:42 / /run/address_space rw,relatime shared:9 - address_space none rw`
fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_type) = line.split_once(" - ")?;
    if of_type.split(' ').next()? != TYPE {
        return None;
    }
    let mut fields = of_mount.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        at: unescape(fields.nth(1)?).into(),
    })
}

/// A path as the kernel writes it, with spaces as `\040`.
fn unescape(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut whole = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                whole.push(char::from(code));
                whole.push_str(&part[3..]);
            }
            None => whole.push_str(part),
        }
    }
    whole
}

/// Calls `each` with the files of all that this process has mounted, which it may read: one is
/// open at a time, since there may be more of them than a process may have open.
pub fn each_file(mut each: impl FnMut(&Path, &fs::File)) {
    let text = text_of("/proc/self/mountinfo").unwrap_or_default();
    let mut seen = BTreeSet::new();
    for mount in mounts(&text) {
        if seen.insert(mount.device) {
            walk(&mount.at, &mut each);
        }
    }
}

fn walk(folder: &Path, each: &mut impl FnMut(&Path, &fs::File)) {
    // Anything may be gone meanwhile, or not be ours to read.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, each),
            Ok(kind) if kind.is_file() => {
                let mut options = OpenOptions::new();
                options.read(true).custom_flags(libc::O_NOFOLLOW);
                if let Ok(file) = options.open(&path) {
                    each(&path, &file);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_the_type_are_found() {
        let text = "\
            23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 23 0:42 / /run/a\\040b rw,relatime shared:9 - address_space none rw,holes=absorb\n\
            31 23 0:43 / /tmp/address_space rw - tmpfs none rw\n\
            32 23 0:44 / /srv rw - address_space none rw\n";
        let found = mounts(text);
        assert_eq!(
            found,
            [
                Mount {
                    device: (0, 42),
                    at: "/run/a b".into(),
                },
                Mount {
                    device: (0, 44),
                    at: "/srv".into(),
                },
            ]
        );
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("/a\\134b\\011c"), "/a\\b\tc");
        assert_eq!(unescape("/plain"), "/plain");
    }
}
