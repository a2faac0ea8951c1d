// SPDX-License-Identifier: GPL-2.0

//! The file server: holds the asfd of the window and maps files into it. It knows
//! neither VMM nor device.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use address_space::{AddressSpace, page_size};
use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::{READ_WRITE, fdinfo};

use crate::message::{Answer, LINE, ServerOrder, first_line};
use crate::process;

struct Server {
    window: AddressSpace,
    /// The file that it made.
    own: Option<File>,
}

pub fn run() -> Result<()> {
    let mut server = None;
    process::serve(|order, mut fds, _| {
        if let ServerOrder::Begin = order {
            let from_vmm = Channel::from(fds.pop().context("a channel expected")?);
            let window = AddressSpace::from(from_vmm.receive_fd()?);
            server = Some(Server { window, own: None });
            return Ok(Answer::Done);
        }
        server.as_mut().context("not begun")?.serve(order)
    })
}

impl Server {
    fn serve(&mut self, order: ServerOrder) -> Result<Answer> {
        match order {
            ServerOrder::Begin => bail!("begun already"),
            ServerOrder::Map { path, offset } => {
                let file = File::open(&path).with_context(|| format!("{}", path.display()))?;
                self.window.map(&file).at(offset).commit()?;
                // The mapping stays when the file is closed.
                line_of(&file)
            }
            ServerOrder::Replace { path, line, offset } => {
                let file = new_file(&path)?;
                set_line(&file, &line)?;
                self.window
                    .map(&file)
                    .at(offset)
                    .prot(READ_WRITE)
                    .replace()
                    .commit()?;
                self.own = Some(file);
                Ok(Answer::Done)
            }
            ServerOrder::Edit { line } => {
                set_line(self.own()?, &line)?;
                Ok(Answer::Done)
            }
            ServerOrder::ReadFile => line_of(self.own()?),
            ServerOrder::Unmap => {
                self.window.unmap(0..self.window.length()?)?;
                Ok(Answer::Done)
            }
            ServerOrder::Info => Ok(Answer::Text(fdinfo::read(&self.window)?)),
        }
    }

    fn own(&self) -> Result<&File> {
        self.own.as_ref().context("no file was made")
    }
}

/// Makes a file of one page.
fn new_file(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(page_size())?;
    Ok(file)
}

/// Writes a line to the beginning of a file, with write(2).
fn set_line(file: &File, line: &str) -> Result<()> {
    file.write_all_at(format!("{line}\n").as_bytes(), 0)?;
    Ok(())
}

/// The first line of a file, with read(2).
fn line_of(file: &File) -> Result<Answer> {
    let mut bytes = [0; LINE];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(Answer::Line(first_line(&bytes[..length])))
}
