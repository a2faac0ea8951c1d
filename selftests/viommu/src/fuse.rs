// SPDX-License-Identifier: GPL-2.0

//! A guest of an unmodified virtiofsd, with a driver that speaks enough FUSE to read and
//! write a file.

use std::fs::{self, File};
use std::process::Command;

use address_space::{Prot, page_size};
use anyhow::{Context as _, Result, bail, ensure};
use rig::READ_WRITE;
use rig::bus::{Bus, Unmap};
use rig::daemon::{Daemon, TIMEOUT};
use rig::device::{Device, Event};
use rig::folder::Folder;
use rig::ram::Ram;
use rig::ring::{Buffer, Kind, Ring};

/// Where Debian installs it, which is not in PATH.
pub const PROGRAM: &str = "/usr/libexec/virtiofsd";

const FUSE_LOOKUP: u32 = 1;
const FUSE_OPEN: u32 = 14;
const FUSE_READ: u32 = 15;
const FUSE_WRITE: u32 = 16;
const FUSE_INIT: u32 = 26;

/// The node of the root directory.
const ROOT: u64 = 1;
/// The queue for ordinary requests; the one before it is for urgent ones.
const REQUESTS: usize = 1;

/// The length of the header of a request, and of a reply.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;

/// How much RAM the guest has, in bytes.
const RAM_LENGTH: u64 = 32 << 20;

/// A guest with a shared directory.
pub struct Machine {
    pub ram: Ram,
    pub bus: Bus,
    rings: [Ring; 2],
    device: Device,
    daemon: Daemon,
    folder: Folder,
    request: u64,
    reply: u64,
    unique: u64,
}

/// A reply: a negative errno, or what follows the header.
pub type Reply = Result<Vec<u8>, i32>;

/// The data of a request, besides its header and arguments.
#[derive(Clone, Copy)]
enum Data {
    None,
    /// So many bytes at a bus address, for the device to read.
    From(u64, u32),
    /// So many bytes at a bus address, for the device to write.
    Into(u64, u32),
}

impl Machine {
    pub fn new(bus: impl FnOnce(&Ram) -> Result<Bus>) -> Result<Machine> {
        let ram = Ram::new(RAM_LENGTH)?;
        let bus = bus(&ram)?;
        let folder = Folder::new(&format!("fs-{}", bus.name()))?;
        let shared = folder.path().join("shared");
        fs::create_dir(&shared)?;
        File::create(shared.join("file"))?;
        let socket = folder.path().join("socket");
        let mut command = Command::new(PROGRAM);
        command
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(&shared)
            .args(["--sandbox", "none"]);
        let rings = [Ring::new(&ram, &bus)?, Ring::new(&ram, &bus)?];
        let daemon = Daemon::start(&mut command, &folder, &socket)?;
        let device =
            Device::connect(&daemon, &bus, &ram, &rings).with_context(|| daemon.output())?;
        Ok(Machine {
            request: ram.pages(page_size())?,
            reply: ram.pages(page_size())?,
            ram,
            bus,
            rings,
            device,
            daemon,
            folder,
            unique: 0,
        })
    }

    /// Reads the file in the shared directory.
    pub fn file(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.folder.path().join("shared/file"))?)
    }

    /// Makes a request, and returns its reply of at most `length` bytes.
    fn call(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        length: u32,
        data: Data,
    ) -> Result<Reply> {
        self.unique += 2;
        let mut request = Vec::new();
        let data_length = match data {
            Data::From(_, length) => length as usize,
            Data::None | Data::Into(..) => 0,
        };
        let total = IN_HEADER + body.len() + data_length;
        request.extend((total as u32).to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(self.unique.to_le_bytes());
        request.extend(node.to_le_bytes());
        // From root, and from no process.
        request.resize(IN_HEADER, 0);
        request.extend(body);
        self.ram.write(self.request, &request)?;
        self.ram.write(self.reply, &vec![0; page_size() as usize])?;

        let from = self.bus.map(self.request, page_size(), Prot::READ)?;
        let into = self.bus.map(self.reply, page_size(), READ_WRITE)?;
        let buffer = |addr, length, kind| Buffer { addr, length, kind };
        let mut buffers = vec![buffer(from.addr, request.len() as u32, Kind::Read)];
        if let Data::From(addr, length) = data {
            buffers.push(buffer(addr, length, Kind::Read));
        }
        buffers.push(buffer(into.addr, OUT_HEADER as u32 + length, Kind::Write));
        if let Data::Into(addr, length) = data {
            buffers.push(buffer(addr, length, Kind::Write));
        }
        self.rings[REQUESTS].submit(&self.ram, &buffers)?;
        self.device.kick(REQUESTS)?;
        while self.rings[REQUESTS].complete(&self.ram)?.is_none() {
            match self.device.wait(&mut self.daemon, TIMEOUT)? {
                Event::Called => {}
                event => bail!("virtiofsd: {event:?}: {}", self.daemon.output()),
            }
        }
        self.bus.unmap(from, Unmap::Strict)?;
        self.bus.unmap(into, Unmap::Strict)?;

        let reply = self.ram.read(self.reply, page_size() as usize)?;
        let word = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap_or_default());
        ensure!(
            u64::from(word(8)) == self.unique,
            "a reply to something else"
        );
        Ok(match word(4) as i32 {
            0 => {
                let end = OUT_HEADER + (length as usize).min(word(0) as usize - OUT_HEADER);
                Ok(reply[OUT_HEADER..end].to_vec())
            }
            error => Err(error),
        })
    }

    /// Makes a request that must succeed.
    fn must(&mut self, opcode: u32, node: u64, body: &[u8], length: u32) -> Result<Vec<u8>> {
        match self.call(opcode, node, body, length, Data::None)? {
            Ok(reply) => Ok(reply),
            Err(error) => bail!("request {opcode}: error {error}"),
        }
    }

    /// Opens the file; returns its node and handle.
    pub fn open(&mut self) -> Result<(u64, u64)> {
        let mut init = Vec::new();
        for word in [7_u32, 38, 0x10000, 0] {
            init.extend(word.to_le_bytes());
        }
        init.resize(64, 0);
        self.must(FUSE_INIT, 0, &init, 64)?;
        let entry = self.must(FUSE_LOOKUP, ROOT, b"file\0", 128)?;
        let node = first_u64(&entry)?;
        let read_write = 2_u32.to_le_bytes();
        let handle = self.must(FUSE_OPEN, node, &[read_write, [0; 4]].concat(), 16)?;
        Ok((node, first_u64(&handle)?))
    }

    /// Writes a page, which the device finds at bus address `addr`.
    pub fn write(&mut self, (node, handle): (u64, u64), offset: u64, addr: u64) -> Result<Reply> {
        let length = page_size() as u32;
        self.call(
            FUSE_WRITE,
            node,
            &io(handle, offset),
            8,
            Data::From(addr, length),
        )
    }

    /// Reads a page, into bus address `addr`.
    pub fn read(&mut self, (node, handle): (u64, u64), offset: u64, addr: u64) -> Result<Reply> {
        let length = page_size() as u32;
        self.call(
            FUSE_READ,
            node,
            &io(handle, offset),
            0,
            Data::Into(addr, length),
        )
    }
}

/// The arguments of a read or a write of a page.
fn io(handle: u64, offset: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(handle.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend((page_size() as u32).to_le_bytes());
    body.resize(40, 0);
    body
}

fn first_u64(bytes: &[u8]) -> Result<u64> {
    let bytes = bytes.first_chunk().context("a short reply")?;
    Ok(u64::from_le_bytes(*bytes))
}
