// SPDX-License-Identifier: GPL-2.0

//! Calls from the guest's program, its first and only process, to the VMM: the program
//! writes two numbers and the number of the call to ports, and goes on when the VMM has done
//! its part. It then reads 0 if the VMM found no fault, and two numbers if it wants to.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where the call is written to, and its result read from.
pub const CALL: u16 = 0x500;
/// Where its numbers are written to.
pub const NUMBERS: u16 = 0x508;
/// The first port after all of them.
pub const END: u16 = 0x518;

/// The module's file is compressed.
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// A call.
pub trait Number: Copy + Debug {
    fn number(self) -> u8;
}

/// The VMM, for the program.
pub struct Vmm {
    ports: File,
}

impl Vmm {
    pub fn new() -> Result<Vmm> {
        let mut options = OpenOptions::new();
        let ports = options.read(true).write(true).open("/dev/port");
        Ok(Vmm {
            ports: ports.context("/dev/port")?,
        })
    }

    pub fn call(&self, call: impl Number, numbers: [u64; 2]) -> Result<()> {
        let good = self.write(call.number(), numbers)?;
        ensure!(good, "the VMM found a fault at {call:?}");
        Ok(())
    }

    /// Makes a call to which the VMM may say no.
    pub fn ask(&self, call: impl Number, numbers: [u64; 2]) -> Result<bool> {
        self.write(call.number(), numbers)
    }

    /// A call that is answered with two numbers.
    pub fn fetch(&self, call: impl Number, numbers: [u64; 2]) -> Result<[u64; 2]> {
        self.call(call, numbers)?;
        let mut answer = [0; 2];
        for (index, number) in answer.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            let at = u64::from(NUMBERS) + 8 * index as u64;
            self.ports.read_exact_at(&mut bytes, at)?;
            *number = u64::from_le_bytes(bytes);
        }
        Ok(answer)
    }

    fn write(&self, call: u8, numbers: [u64; 2]) -> Result<bool> {
        for (index, number) in numbers.iter().enumerate() {
            let at = u64::from(NUMBERS) + 8 * index as u64;
            self.ports.write_all_at(&number.to_le_bytes(), at)?;
        }
        self.ports.write_all_at(&[call], CALL.into())?;
        let mut result = [0];
        self.ports.read_exact_at(&mut result, CALL.into())?;
        Ok(result == [0])
    }
}

/// What the program is: file systems, the work, and the end of the machine. A failure is
/// printed to the console, and makes the last call.
pub fn init(run: impl FnOnce(&Vmm) -> Result<()>, failed: impl Number) {
    for (what, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = mount(what, at, what, MountFlags::empty(), None);
    }
    let vmm = Vmm::new();
    let result = vmm
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error:#}"))
        .and_then(run);
    if let Err(error) = result {
        say(&format!("guest: {error:#}"));
        if let Ok(vmm) = vmm {
            let _ = vmm.write(failed.number(), [0, 0]);
        }
    }
    let _ = reboot(RebootCommand::Restart);
}

/// Prints to the console, through the kernel's log, which needs no interrupt.
pub fn say(text: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<2>{text}\n").as_bytes());
    }
}

/// Loads a module that is in the initramfs.
pub fn load(module: &str) -> Result<()> {
    say(&format!("guest: loading {module}"));
    let file = File::open(Path::new("/").join(module))?;
    finit_module(file, c"", MODULE_INIT_COMPRESSED_FILE).with_context(|| module.to_owned())
}
