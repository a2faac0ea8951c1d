// SPDX-License-Identifier: GPL-2.0

//! Finds address spaces and who has them, in /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::fdinfo::FdInfo;
use crate::maps::{self, Attachment};
use crate::mounts::{self, Device};
use crate::table::{printable, text_of};

/// A file descriptor of an asfd or a view.
#[derive(Clone, Debug, Serialize)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
    pub fd: u32,
    /// Inode number: that of an asfd is the number of the address space.
    pub inode: u64,
    pub name: String,
    pub is_asfd: bool,
    /// Of a view: where it begins in the address space, in bytes.
    pub offset: u64,
    pub length: u64,
    /// `rwx`, with dashes.
    pub prot: String,
    pub manages: bool,
}

/// An attachment and the process that has it.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    pub pid: u32,
    pub command: String,
    #[serde(flatten)]
    pub attachment: Attachment,
}

/// An address space, as far as it can be seen from here.
#[derive(Clone, Debug, Default)]
pub struct Space {
    pub id: u64,
    pub name: String,
    /// The user who created it, if a file descriptor of it can be seen.
    pub uid: Option<u32>,
    /// What fdinfo of the asfd says; nothing if only views can be seen.
    pub info: Option<FdInfo>,
    pub holders: Vec<Holder>,
    pub attached: Vec<Attached>,
}

impl Space {
    /// Its name, or its number.
    pub fn title(&self) -> String {
        match self.name.as_str() {
            "" => format!("{}", self.id),
            name => format!("{} ({})", self.id, printable(name)),
        }
    }

    fn is_called(&self, wanted: &str) -> bool {
        let path = Path::new(&self.name);
        self.name == wanted
            || path.is_absolute() && path.file_name().is_some_and(|name| name == wanted)
    }

    /// The process that created it: `PID (COMMAND)`.
    pub fn creator(&self) -> String {
        match self.info.as_ref().map_or(0, |info| info.number("creator")) {
            0 => "-".into(),
            pid => format!("{pid} ({})", printable(&command(pid as u32))),
        }
    }
}

/// All address spaces that can be seen, by their numbers.
pub fn spaces() -> Result<Vec<Space>> {
    let mut found = Found::default();
    let pids: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // Any process may end meanwhile, or not be ours to see.
    for pid in &pids {
        found.mounts_of(*pid);
    }
    for pid in pids {
        found.process(pid);
    }
    mounts::each_file(|path, file| {
        found.named(path, file);
    });
    Ok(found.finish())
}

/// The address space that is meant by a number or a name: of one that is a file with a path,
/// by that, or by its last component.
pub fn space(wanted: &str) -> Result<Space> {
    let mut spaces = spaces()?;
    let number = wanted.parse().ok();
    spaces.retain(|space| Some(space.id) == number || space.is_called(wanted));
    match spaces.len() {
        1 => Ok(spaces.remove(0)),
        0 => bail!("no address space {wanted:?} can be seen; asctl list shows those that can"),
        more => bail!("{more} address spaces are called {wanted:?}: give the number"),
    }
}

/// The name of a program that runs as a process.
pub fn command(pid: u32) -> String {
    text_of(format!("/proc/{pid}/comm"))
        .map(|comm| comm.trim_end().to_owned())
        .unwrap_or_else(|| "?".into())
}

/// The name of a user, or the number.
pub fn user(uid: u32) -> String {
    let passwd = text_of("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}

#[derive(Default)]
struct Found {
    spaces: BTreeMap<u64, Space>,
    /// Of which address space a view is, by their inode numbers.
    views: BTreeMap<u64, u64>,
    attached: Vec<Attached>,
    /// Mount namespaces that were looked at.
    namespaces: BTreeSet<PathBuf>,
    /// Devices whose files are address spaces with a name.
    named: BTreeSet<Device>,
}

impl Found {
    /// Notes where a process has address spaces with a name mounted.
    fn mounts_of(&mut self, pid: u32) {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        if namespace.is_ok_and(|namespace| self.namespaces.insert(namespace)) {
            let text = text_of(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            let mounts = mounts::mounts(&text);
            self.named.extend(mounts.iter().map(|mount| mount.device));
        }
    }

    /// An address space with a name, whoever uses it.
    fn named(&mut self, path: &Path, file: &fs::File) -> Option<()> {
        let own = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
        let info = FdInfo::parse(&text_of(own)?);
        let space = self.spaces.entry(info.space()?).or_default();
        space.name = path.to_string_lossy().into_owned();
        space.uid = file.metadata().ok().map(|stat| stat.uid());
        space.info = Some(info);
        Some(())
    }

    fn process(&mut self, pid: u32) {
        let root = format!("/proc/{pid}");
        let comm = command(pid);
        for fd in numbers(&format!("{root}/fd")) {
            self.descriptor(pid, &comm, fd);
        }
        let text = text_of(format!("{root}/maps")).unwrap_or_default();
        for attachment in maps::attachments(&text, &self.named) {
            self.attached.push(Attached {
                pid,
                command: comm.clone(),
                attachment,
            });
        }
    }

    fn descriptor(&mut self, pid: u32, comm: &str, fd: u32) -> Option<()> {
        let link = format!("/proc/{pid}/fd/{fd}");
        let path = fs::read_link(&link).ok()?;
        let path = path.to_string_lossy();
        let name = match maps::name(&path) {
            Some(name) => name.to_owned(),
            None if self.is_named(&link) => path.into_owned(),
            None => return None,
        };
        let text = text_of(format!("/proc/{pid}/fdinfo/{fd}"))?;
        let info = FdInfo::parse(&text);
        let id = info.space()?;
        let stat = fs::metadata(&link).ok()?;
        let space = self.spaces.entry(id).or_default();
        self.views.insert(stat.ino(), id);
        space.holders.push(Holder {
            pid,
            command: comm.to_owned(),
            fd,
            inode: stat.ino(),
            name: name.clone(),
            is_asfd: info.is_asfd(),
            offset: info.number("offset"),
            length: info.number("length"),
            prot: match (info.is_asfd(), info.may_write()) {
                (true, true) => "rwx".into(),
                (true, false) => "r-x".into(),
                (false, _) => info.values.get("prot").cloned().unwrap_or_default(),
            },
            manages: info.may_write() && (info.is_asfd() || info.values.contains_key("manages")),
        });
        if info.is_asfd() {
            space.name = name;
            space.uid = Some(stat.uid());
            space.info = Some(info);
        }
        Some(())
    }

    /// Whether what a link leads to is on such a device.
    fn is_named(&self, link: &str) -> bool {
        !self.named.is_empty()
            && fs::metadata(link).is_ok_and(|stat| {
                let device = stat.dev();
                self.named
                    .contains(&(libc::major(device), libc::minor(device)))
            })
    }

    /// Which address space an attachment shows whose file nobody has open any more: it is
    /// opened once more, for which root has the right.
    fn space_of(&mut self, of: &Attached) -> Option<u64> {
        if let Some(id) = self.views.get(&of.attachment.inode) {
            return Some(*id);
        }
        let Attachment { start, end, .. } = of.attachment;
        let path = format!("/proc/{}/map_files/{start:x}-{end:x}", of.pid);
        let file = fs::File::open(&path).ok()?;
        let own = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
        let info = FdInfo::parse(&text_of(own)?);
        let id = info.space()?;
        self.views.insert(of.attachment.inode, id);
        let space = self.spaces.entry(id).or_default();
        if info.is_asfd() && space.info.is_none() {
            let path = &of.attachment.path;
            space.name = maps::name(path).unwrap_or(path).to_owned();
            space.uid = file.metadata().ok().map(|stat| stat.uid());
            space.info = Some(info);
        }
        Some(id)
    }

    fn finish(mut self) -> Vec<Space> {
        for attached in std::mem::take(&mut self.attached) {
            if let Some(id) = self.space_of(&attached) {
                self.spaces.entry(id).or_default().attached.push(attached);
            }
        }
        for (id, space) in &mut self.spaces {
            space.id = *id;
            space.holders.sort_by_key(|holder| (holder.pid, holder.fd));
            space
                .attached
                .sort_by_key(|of| (of.pid, of.attachment.start));
        }
        self.spaces.into_values().collect()
    }
}

fn numbers(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(Path::new(folder)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
