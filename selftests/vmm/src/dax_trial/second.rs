// SPDX-License-Identifier: GPL-2.0

//! Another VMM, in a process of its own, whose guest mounts the same directory by another
//! file server.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail, ensure};
use rig::file_server::FileServer;
use rig::folder::Folder;
use rig::process::end_with_parent;
use rig::tap::line;
use vmm_guest::dax::{SECOND, Step};

use super::hardware::{Hardware, Programs};
use crate::cpus::{self, Trial};
use crate::machine::{Base, Console, Machine};

/// The option that makes a VMM the second one.
const OPTION: &str = "--second";

pub struct Second {
    child: Child,
    folder: Folder,
}

impl Second {
    /// Starts it, with the options that this process has, on the directory.
    pub fn start(directory: &Path) -> Result<Second> {
        let folder = Folder::new("second")?;
        let output = File::create(folder.path().join("output"))?;
        let mut command = Command::new(env::current_exe()?);
        command
            .args(env::args().skip(1))
            .arg(OPTION)
            .arg(directory)
            .stdout(output.try_clone()?)
            .stderr(output);
        // SAFETY: Between fork and exec the closure makes one system call, and neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| end_with_parent().map_err(io::Error::from));
        }
        Ok(Second {
            child: command.spawn().context("the second VMM")?,
            folder,
        })
    }

    /// Waits for its end, which must be a good one.
    pub fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        let output = fs::read_to_string(self.folder.path().join("output"))?;
        ensure!(status.success(), "the second VMM: {status}\n{output}");
        Ok(())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct SecondTrial {
    done: bool,
}

/// Runs the second guest on the directory; returns whether it has done its part.
pub fn run(programs: &Programs<'_>, console: &Console, directory: &Path) -> bool {
    let result = (|| {
        let server = FileServer::new(programs.server.clone(), directory.to_owned(), 1)?;
        let devices = |base: &Base| Hardware::new(base, server, false);
        let (machine, cpus) = Machine::new(&programs.guest(SECOND), 1, console, devices)?;
        let (_machine, _trial, end) = cpus::run(machine, SecondTrial { done: false }, cpus)?;
        end
    })();
    if let Err(error) = &result {
        line(&format!("{error:#}"));
    }
    result.is_ok()
}

impl Trial for SecondTrial {
    type Devices = Hardware;

    fn called(&mut self, _: &mut Machine<Hardware>, call: u8, _: [u64; 2]) -> Result<bool> {
        match Step::of(call) {
            Some(Step::Mounted) => Ok(true),
            Some(Step::Done) => {
                self.done = true;
                Ok(true)
            }
            step => bail!("the second guest is at {step:?}"),
        }
    }

    fn reset(&mut self) -> Result<()> {
        ensure!(self.done, "the second guest has ended");
        Ok(())
    }
}
