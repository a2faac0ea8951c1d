// SPDX-License-Identifier: GPL-2.0

//! Another VMM, in a process of its own, whose guest mounts the same directory by another
//! file server. What is not there ends the run of its CPU, and the VMM does something about it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rig::check::expect;
use rig::file_server::FileServer;
use rig::folder::Folder;
use rig::process::end_with_parent;
use rig::tap::line;
use rustix::io::Errno;
use vmm_guest::dax::{GROWN, LOST, SECOND, SHRINKING, Step};

use super::hardware::{Hardware, Programs};
use super::share;
use crate::cpus::{self, Trial};
use crate::machine::{Base, Console, Machine};
use crate::miss::Miss;

/// How long the second VMM may take to print where it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The option that makes a VMM the second one.
const OPTION: &str = "--second";

/// What it prints when a write of its guest has failed as it must.
pub const NOT_WRITTEN: &str = "its device has the RAM alone: the same write() fails with EIO";

pub struct Second {
    child: Child,
    folder: Folder,
    waited: bool,
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
            .stdin(Stdio::piped())
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
            waited: false,
        })
    }

    /// Waits for its end, which must be a good one. Returns what it has printed.
    pub fn wait(&mut self) -> Result<String> {
        // Its standard input stays open until it has ended.
        let _input = self.child.stdin.take();
        let status = self.child.wait()?;
        self.waited = true;
        let output = self.output();
        ensure!(status.success(), "the second VMM: {status}\n{output}");
        Ok(output)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }
}

/// The line with this text in what it has printed, if it has come to a good end.
pub fn printed<'a>(output: &'a Result<String, String>, text: &str) -> Result<&'a str> {
    let output = output.as_deref().map_err(|error| anyhow!("{error}"))?;
    let line = output.lines().find(|line| line.contains(text));
    line.with_context(|| format!("the second VMM: {output}"))
}

impl Drop for Second {
    /// Ends it where it is, and prints where that was: the first guest may have failed since
    /// this one did not do its part.
    fn drop(&mut self) {
        if self.waited {
            return;
        }
        drop(self.child.stdin.take());
        let start = Instant::now();
        while start.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(20));
        }
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for text in self.output().lines() {
            line(&format!("# second VMM: {text}"));
        }
    }
}

struct SecondTrial {
    directory: PathBuf,
    /// How many accesses have been refused.
    refused: u64,
    done: bool,
}

/// Runs the second guest on the directory; returns whether it has done its part.
pub fn run(programs: &Programs<'_>, console: &Console, directory: &Path) -> bool {
    let directory = directory.to_owned();
    let result = (|| {
        let server = FileServer::new(programs.server.clone(), directory.clone(), 1)?;
        let devices = |base: &Base| Hardware::second(base, server);
        let (machine, cpus) = Machine::new(&programs.guest(SECOND), 1, console, devices)?;
        let trial = SecondTrial {
            directory,
            refused: 0,
            done: false,
        };
        let (_machine, _trial, end) = cpus::run(machine, trial, cpus)?;
        end
    })();
    if let Err(error) = &result {
        line(&format!("{error:#}"));
    }
    result.is_ok()
}

impl Trial for SecondTrial {
    type Devices = Hardware;

    fn called(
        &mut self,
        _: &mut Machine<Hardware>,
        call: u8,
        [number, _]: [u64; 2],
    ) -> Result<bool> {
        match Step::of(call) {
            Some(Step::Mounted) => {}
            Some(Step::Lost) => {
                expect(
                    "the errno of write()",
                    number,
                    Errno::IO.raw_os_error() as u64,
                )?;
                let length = fs::metadata(self.directory.join(LOST))?.len();
                expect("bytes that were written", length, 0)?;
                line(NOT_WRITTEN);
            }
            Some(Step::Shrink) => share::cut(&self.directory, SHRINKING[2])?,
            Some(Step::Done) => {
                ensure!(self.refused > 0, "no access ended a run");
                self.done = true;
            }
            step => bail!("the second guest is at {step:?}"),
        }
        Ok(true)
    }

    /// Makes the file longer again, so that the access, which is repeated, finds something.
    fn hole(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let (miss, refused) = Miss::last(&machine.devices.memory)?;
        ensure!(refused > self.refused, "an old one: {miss}");
        self.refused = refused;
        line(&miss.to_string());
        ensure!(
            miss.is_past_end_of(SHRINKING[2].name),
            "another one: {miss}"
        );
        share::grow(&self.directory, GROWN[2])
    }

    fn reset(&mut self) -> Result<()> {
        ensure!(self.done, "the second guest has ended");
        Ok(())
    }
}
