// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtual machine of alioth's, as the crate is, with a virtio-fs device whose DAX window is a
//! view of an address space. selftests/alioth starts it.
//!
//! The device is alioth's own for vhost-user, but for one method: where that has a window only
//! if it also serves the file server's requests to change it, this one shows what it was given.

#![warn(rust_2018_idioms, clippy::undocumented_unsafe_blocks)]

mod device;

use std::env;
use std::error::Error;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

use alioth::board::{BoardConfig, CpuConfig};
use alioth::hv::{Kvm, KvmConfig};
use alioth::loader::{Executable, Payload};
use alioth::mem::mapped::ArcMemPages;
use alioth::mem::{MemBackend, MemConfig};
use alioth::virtio::dev::fs::vu::VuFsParam;
use alioth::vm::Machine;
use libc::{PROT_READ, PROT_WRITE};
use log::{LevelFilter, Log, Metadata, Record};

use crate::device::WithWindow;

/// The guest's RAM in bytes.
const RAM: u64 = 256 << 20;
/// The device's name, which is that of its thread, too.
const NAME: &str = "files";

const USAGE: &str = "usage: alioth-vmm KERNEL INITRAMFS COMMAND-LINE SOCKET TAG WINDOW-FD LENGTH";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alioth-vmm: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [kernel, initramfs, command_line, socket, tag, fd, length] = arguments else {
        return Err(USAGE.into());
    };
    log::set_logger(&Printed).map_err(|error| error.to_string())?;
    log::set_max_level(LevelFilter::Warn);

    let window = ArcMemPages::from_file(
        inherited(fd.parse()?)?,
        0,
        length.parse()?,
        PROT_READ | PROT_WRITE,
    )?;
    let files = WithWindow {
        files: VuFsParam {
            socket: Path::new(socket).into(),
            tag: Some(tag.to_owned()),
            // Or it would ask the server to ask it for what is in there.
            dax_window: 0,
        },
        window,
    };

    let board = BoardConfig {
        mem: MemConfig {
            size: RAM,
            backend: MemBackend::Memfd,
            ..MemConfig::default()
        },
        cpu: CpuConfig {
            count: 1,
            ..CpuConfig::default()
        },
        coco: None,
    };
    let machine = Machine::new(&Kvm::new(KvmConfig::default())?, board)?;
    machine.add_com1()?;
    machine.add_virtio_dev(NAME, files)?;
    machine.add_payload(Payload {
        firmware: None,
        executable: Some(Executable::Pvh(Path::new(kernel).into())),
        initramfs: Some(Path::new(initramfs).into()),
        cmdline: Some(CString::new(command_line.as_str())?),
    });
    machine.boot()?;
    machine.wait()?;
    Ok(())
}

/// Takes a file descriptor that this process was started with.
fn inherited(fd: RawFd) -> Result<File, Box<dyn Error>> {
    if fd <= 2 {
        return Err(format!("{fd} is no file descriptor of a window").into());
    }
    // SAFETY: It was opened by whoever started this program, for this; nothing here has opened
    // one yet, but the standard library, which has 0 to 2.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Prints what is logged.
struct Printed;

impl Log for Printed {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("alioth: {}", record.args());
    }

    fn flush(&self) {}
}
