// SPDX-License-Identifier: GPL-2.0

//! The file server: holds the asfd of the window and maps files into it. It
//! knows neither the VMM nor the device.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use address_space::{AddressSpace, Prot, page_size};
use anyhow::{Context as _, Result, bail};

use crate::channel::Channel;
use crate::message::{Answer, LINE, ServerOrder, first_line};
use crate::process;

struct Server {
    window: AddressSpace,
    /// The file that it has made.
    own: Option<OwnFile>,
}

pub fn run(dir: &Path) -> Result<()> {
    let mut server = None;
    process::live(|order, mut fds, _| {
        if let ServerOrder::Begin = order {
            let from_vmm = Channel::from(fds.pop().context("a channel expected")?);
            let window = AddressSpace::from(from_vmm.receive_fd()?);
            server = Some(Server { window, own: None });
            return Ok(Answer::Done);
        }
        server.as_mut().context("not begun")?.serve(order, dir)
    })
}

impl Server {
    fn serve(&mut self, order: ServerOrder, dir: &Path) -> Result<Answer> {
        match order {
            ServerOrder::Begin => bail!("begun already"),
            ServerOrder::Map { path, offset } => {
                let file = File::open(&path).with_context(|| format!("{}", path.display()))?;
                self.window.map(&file).at(offset).commit()?;
                // The mapping needs no open file.
                line_of(&file)
            }
            ServerOrder::Replace { line, offset } => {
                let own = self.own.insert(OwnFile::new(dir)?);
                own.set_line(&line)?;
                self.window
                    .map(&own.file)
                    .at(offset)
                    .prot(Prot::READ | Prot::WRITE)
                    .replace()
                    .commit()?;
                Ok(Answer::Text(own.path.display().to_string()))
            }
            ServerOrder::Edit { line } => {
                self.own()?.set_line(&line)?;
                Ok(Answer::Done)
            }
            ServerOrder::ReadFile => line_of(&self.own()?.file),
            ServerOrder::Unmap => {
                self.window.unmap(0..self.window.length()?)?;
                Ok(Answer::Done)
            }
            ServerOrder::Info => {
                let fd = self.window.as_fd().as_raw_fd();
                Ok(Answer::Text(fs::read_to_string(format!(
                    "/proc/self/fdinfo/{fd}"
                ))?))
            }
        }
    }

    fn own(&self) -> Result<&OwnFile> {
        self.own.as_ref().context("no file was made")
    }
}

/// The first line of a file, read as files are read.
fn line_of(file: &File) -> Result<Answer> {
    let mut bytes = [0; LINE];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(Answer::Line(first_line(&bytes[..length])))
}

/// A file of one page, which is removed in the end.
struct OwnFile {
    file: File,
    path: PathBuf,
}

impl OwnFile {
    fn new(dir: &Path) -> Result<OwnFile> {
        let path = dir.join(format!("address-space-demo-{}.txt", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let own = OwnFile { file, path };
        own.file.set_len(page_size())?;
        Ok(own)
    }

    /// Writes a line at the beginning.
    fn set_line(&self, line: &str) -> Result<()> {
        self.file.write_all_at(format!("{line}\n").as_bytes(), 0)?;
        Ok(())
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
