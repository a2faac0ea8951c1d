// SPDX-License-Identifier: GPL-2.0

//! A guest of the server: a driver that makes single FUSE requests, and what its VMM does,
//! which is to make the address space, and to start the server and start it again.

use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use address_space::{AddressSpace, Prot, Window};
use anyhow::{Context as _, Result, bail, ensure};
use fuse_backend_rs::abi::fuse_abi::{
    CreateIn, EntryOut, ForgetIn, FsOptions, InHeader, InitIn, InitIn2, MkdirIn, Opcode, OutHeader,
    ReadIn, Rename2In, WriteIn, WriteOut,
};
use fuse_backend_rs::abi::virtio_fs::{RemovemappingIn, RemovemappingOne, SetupmappingIn};
use rig::bus::Bus;
use rig::daemon::{Daemon, TIMEOUT};
use rig::device::{Device, Event};
use rig::fdinfo;
use rig::folder::Folder;
use rig::ram::Ram;
use rig::ring::{Buffer, Kind, Ring};
use vm_memory::ByteValued;

/// The node of the shared directory.
pub const ROOT: u64 = 1;

/// What a guest's kernel maps at a time.
pub const UNIT: u64 = 2 << 20;

/// Where the window is in the address space, between memory that is not the server's.
pub const WINDOW: Range<u64> = UNIT..9 * UNIT;
const SPACE: u64 = 10 * UNIT;

/// The queue for requests; the one before it is for urgent ones.
const REQUESTS: usize = 1;

/// The longest request and reply, in bytes, with their headers.
const LONGEST: u64 = 64 << 10;

/// How the server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Without a DAX window.
    pub no_window: bool,
    /// With a read-only directory.
    pub readonly: bool,
    /// As a user that is nobody.
    pub unprivileged: bool,
}

/// A guest, its VMM and its server.
pub struct Guest {
    /// The address space, as the VMM has it.
    pub space: Option<AddressSpace>,
    daemon: Daemon,
    device: Device,
    setup: Setup,
    rings: [Ring; 2],
    bus: Bus,
    ram: Ram,
    request: u64,
    reply: u64,
    /// The number of the last request.
    unique: u64,
    /// As whom requests are made: user and group.
    pub user: (u32, u32),
    folder: Folder,
}

/// A reply: what follows the header, or an errno.
pub type Reply = Result<Vec<u8>, i32>;

/// The bytes of a struct of the protocol.
pub fn bytes(object: &impl ByteValued) -> &[u8] {
    object.as_slice()
}

fn object<T: ByteValued + Default>(bytes: &[u8]) -> Result<T> {
    let mut object = T::default();
    let length = size_of::<T>();
    let bytes = bytes.get(..length).context("a reply that is too short")?;
    object.as_mut_slice().copy_from_slice(bytes);
    Ok(object)
}

/// A name, as it is in requests.
pub fn name(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

impl Guest {
    /// Starts a server for a directory in which there is nothing, and mounts it.
    pub fn new(setup: Setup) -> Result<Guest> {
        let folder = Folder::new("virtiofs")?;
        fs::create_dir(folder.path().join("shared"))?;
        let space = match setup.no_window {
            true => None,
            false => Some(AddressSpace::new(SPACE)?),
        };
        let ram = Ram::new(32 << 20)?;
        let bus = Bus::memfd(&ram)?;
        let rings = [Ring::new(&ram, &bus)?, Ring::new(&ram, &bus)?];
        let daemon = start(&folder, space.as_ref(), setup)?;
        let device = connect(&daemon, &bus, &ram, &rings)?;
        let mut guest = Guest {
            request: ram.pages(LONGEST)?,
            reply: ram.pages(LONGEST)?,
            space,
            daemon,
            device,
            setup,
            rings,
            bus,
            ram,
            unique: 0,
            user: (0, 0),
            folder,
        };
        guest.mount()?;
        Ok(guest)
    }

    /// The shared directory on the host.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.folder.path().join("shared").join(name)
    }

    /// Its parent, which is not shared.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server knows about itself: a file in its /proc/PID.
    pub fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.daemon.id().to_string())
            .join(name)
    }

    /// What the server has printed.
    pub fn output(&self) -> String {
        self.daemon.output()
    }

    /// Kills the server.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill()?;
        Ok(())
    }

    /// Starts another server, which takes over. As a VMM must, it kicks each queue.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon = start(&self.folder, self.space.as_ref(), self.setup)?;
        self.device = connect(&self.daemon, &self.bus, &self.ram, &self.rings)?;
        for queue in 0..self.rings.len() {
            self.device.kick(queue)?;
        }
        Ok(())
    }

    /// Mounts the directory.
    pub fn mount(&mut self) -> Result<()> {
        let flags = FsOptions::all().bits() & !FsOptions::WRITEBACK_CACHE.bits();
        let init = InitIn {
            major: 7,
            minor: 38,
            max_readahead: 1 << 20,
            flags: flags as u32,
        };
        let more = InitIn2 {
            flags2: (flags >> 32) as u32,
            unused: [0; 11],
        };
        self.must(Opcode::Init, 0, &[bytes(&init), bytes(&more)].concat())?;
        Ok(())
    }

    /// Unmounts it. Returns how many bytes the server says that the reply has.
    pub fn unmount(&mut self) -> Result<u32> {
        self.submit(Opcode::Destroy, 0, &[])?;
        let (reply, length) = self.finish()?;
        ensure!(reply == Ok(Vec::new()), "FUSE_DESTROY: {reply:?}");
        Ok(length)
    }

    /// Makes a request.
    pub fn call(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Reply> {
        self.submit(opcode, node, body)?;
        Ok(self.finish()?.0)
    }

    /// Makes a request that must succeed.
    pub fn must(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>> {
        let number = opcode as u32;
        match self.call(opcode, node, body)? {
            Ok(reply) => Ok(reply),
            Err(errno) => bail!("request {number}: errno {errno}: {}", self.output()),
        }
    }

    /// Submits a request, and does not wait for it.
    pub fn submit(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<()> {
        self.unique += 2;
        let length = size_of::<InHeader>() + body.len();
        let header = InHeader {
            len: length as u32,
            opcode: opcode as u32,
            unique: self.unique,
            nodeid: node,
            uid: self.user.0,
            gid: self.user.1,
            pid: 0,
            padding: 0,
        };
        ensure!(length as u64 <= LONGEST, "a long request");
        self.ram
            .write(self.request, &[bytes(&header), body].concat())?;
        self.ram.write(self.reply, &[0; size_of::<OutHeader>()])?;
        let buffer = |addr, length, kind| Buffer { addr, length, kind };
        let buffers = [
            buffer(self.request, length as u32, Kind::Read),
            buffer(self.reply, LONGEST as u32, Kind::Write),
        ];
        self.rings[REQUESTS].submit(&self.ram, &buffers)?;
        self.device.kick(REQUESTS)
    }

    /// Waits for the reply to a request. Returns its length too, as the server says it.
    pub fn finish(&mut self) -> Result<(Reply, u32)> {
        let (_, length) = loop {
            if let Some(completed) = self.rings[REQUESTS].complete(&self.ram)? {
                break completed;
            }
            match self.device.wait(&mut self.daemon, TIMEOUT)? {
                Event::Called => {}
                event => bail!("the server: {event:?}: {}", self.output()),
            }
        };
        let reply = self.ram.read(self.reply, LONGEST as usize)?;
        let header: OutHeader = object(&reply)?;
        ensure!(header.unique == self.unique, "a reply to something else");
        ensure!(header.len == length, "{length} bytes of {}", header.len);
        let body = reply[..header.len as usize][size_of::<OutHeader>()..].to_vec();
        let reply = match header.error {
            0 => Ok(body),
            error => Err(-error),
        };
        Ok((reply, length))
    }

    /// Looks up a name in a directory.
    pub fn lookup(&mut self, directory: u64, file: &str) -> Result<u64> {
        let reply = self.must(Opcode::Lookup, directory, &name(file))?;
        Ok(object::<EntryOut>(&reply)?.nodeid)
    }

    /// Forgets so many lookups. There is no reply.
    pub fn forget(&mut self, node: u64, nlookup: u64) -> Result<()> {
        self.submit(Opcode::Forget, node, bytes(&ForgetIn { nlookup }))?;
        while self.rings[REQUESTS].complete(&self.ram)?.is_none() {
            let event = self.device.wait(&mut self.daemon, TIMEOUT)?;
            ensure!(event == Event::Called, "the server: {event:?}");
        }
        Ok(())
    }

    /// Makes a file.
    pub fn create(&mut self, directory: u64, file: &str) -> Result<u64> {
        let create = CreateIn {
            flags: (libc::O_RDWR | libc::O_CREAT) as u32,
            mode: 0o644 | libc::S_IFREG,
            umask: 0,
            fuse_flags: 0,
        };
        let body = [bytes(&create), &name(file)].concat();
        let reply = self.must(Opcode::Create, directory, &body)?;
        Ok(object::<EntryOut>(&reply)?.nodeid)
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, directory: u64, file: &str) -> Result<u64> {
        let mkdir = MkdirIn {
            mode: 0o755,
            umask: 0,
        };
        let body = [bytes(&mkdir), &name(file)].concat();
        let reply = self.must(Opcode::Mkdir, directory, &body)?;
        Ok(object::<EntryOut>(&reply)?.nodeid)
    }

    /// Renames.
    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<()> {
        let rename = Rename2In {
            newdir: to.0,
            flags,
            padding: 0,
        };
        let body = [bytes(&rename), &name(from.1), &name(to.1)].concat();
        self.must(Opcode::Rename2, from.0, &body)?;
        Ok(())
    }

    /// Writes to a file, without the window.
    pub fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Result<()> {
        let write = WriteIn {
            offset,
            size: data.len() as u32,
            flags: libc::O_RDWR as u32,
            ..WriteIn::default()
        };
        let reply = self.must(Opcode::Write, node, &[bytes(&write), data].concat())?;
        let written = object::<WriteOut>(&reply)?.size;
        ensure!(written as usize == data.len(), "{written} bytes written");
        Ok(())
    }

    /// Reads from a file, without the window.
    pub fn read(&mut self, node: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let read = ReadIn {
            offset,
            size,
            ..ReadIn::default()
        };
        self.must(Opcode::Read, node, bytes(&read))
    }

    /// FUSE_SETUPMAPPING: at `place` of the window, `length` bytes of a file.
    pub fn map(
        &mut self,
        node: u64,
        offset: u64,
        place: u64,
        length: u64,
        write: bool,
    ) -> Result<Reply> {
        let setup = SetupmappingIn {
            fh: 0,
            foffset: offset,
            len: length,
            flags: if write { 3 } else { 2 },
            moffset: place,
        };
        self.call(Opcode::SetupMapping, node, bytes(&setup))
    }

    /// As [`map()`](Guest::map), of a whole unit, which must succeed.
    pub fn must_map(&mut self, node: u64, offset: u64, place: u64, write: bool) -> Result<()> {
        let reply = self.map(node, offset, place, UNIT, write)?;
        ensure!(reply == Ok(Vec::new()), "map: {reply:?}: {}", self.output());
        Ok(())
    }

    /// FUSE_REMOVEMAPPING of so many places.
    pub fn unmap(&mut self, places: &[(u64, u64)]) -> Result<Reply> {
        let count = places.len() as u32;
        let mut body = bytes(&RemovemappingIn { count }).to_vec();
        for &(moffset, len) in places {
            body.extend(bytes(&RemovemappingOne { moffset, len }));
        }
        self.call(Opcode::RemoveMapping, ROOT, &body)
    }

    /// The address space.
    pub fn space(&self) -> Result<&AddressSpace> {
        self.space.as_ref().context("no address space")
    }

    /// The window, as the guest has it.
    pub fn window(&self) -> Result<Window> {
        Ok(self.space()?.attach(WINDOW, Prot::READ | Prot::WRITE)?)
    }

    /// What is mapped in the window: place, protection and offset in the file.
    pub fn mapped(&self) -> Result<Vec<(u64, String, u64)>> {
        let all = fdinfo::mappings(&fdinfo::read(self.space()?)?)?;
        let part = |one: fdinfo::Mapping| (one.range.start - WINDOW.start, one.prot, one.offset);
        Ok(all.into_iter().map(part).collect())
    }

    /// How many ranges of files are registered.
    pub fn registered(&self) -> Result<u64> {
        fdinfo::number(&fdinfo::read(self.space()?)?, "registered")
    }

    /// How many files the server has open.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }
}

/// The user that is nobody.
pub const NOBODY: u32 = 65534;

/// Starts the server.
fn start(folder: &Folder, space: Option<&AddressSpace>, setup: Setup) -> Result<Daemon> {
    let path = |name: &str| folder.path().join(name);
    let mut program = std::env::current_exe()?.with_file_name("virtiofs");
    if setup.unprivileged {
        // Not every directory of the checkout is everybody's.
        fs::copy(program, path("program"))?;
        program = path("program");
        for name in ["", "shared"] {
            chown(path(name), Some(NOBODY), Some(NOBODY))?;
        }
    }
    let mut command = Command::new(program);
    command.arg("--socket").arg(path("socket"));
    command.arg("--shared-dir").arg(path("shared"));
    command.arg("--state").arg(path("state"));
    command.arg("--log");
    if setup.readonly {
        command.arg("--readonly");
    }
    if setup.unprivileged {
        command.uid(NOBODY).gid(NOBODY);
    }
    // A duplicate is inherited, unlike the file descriptor itself.
    let asfd = space
        .map(|space| rustix::io::dup(space.as_fd()))
        .transpose()?;
    if let Some(asfd) = &asfd {
        let window = format!("{:#x}:{}", WINDOW.start, WINDOW.end - WINDOW.start);
        command.arg("--asfd").arg(asfd.as_raw_fd().to_string());
        command.args(["--window", &window]);
    }
    Daemon::start(&mut command, folder, &path("socket"))
}

fn connect(daemon: &Daemon, bus: &Bus, ram: &Ram, rings: &[Ring]) -> Result<Device> {
    Device::connect(daemon, bus, ram, rings).with_context(|| daemon.output())
}
