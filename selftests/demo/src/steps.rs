// SPDX-License-Identifier: GPL-2.0

//! The steps of the demo: what each process does, what it must see, and what is printed.

use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rig::channel::Channel;
use rig::fdinfo;
use rig::process::signals::SIGBUS;
use rig::tap::line;
use rustix::io::Errno;

use crate::guest::{GUEST_TEXT, WINDOW, WINDOW_LENGTH};
use crate::message::{Answer, DeviceOrder, ServerOrder, VmmOrder};
use crate::process::Process;
use crate::transcript::Transcript;
use crate::vmm::VIEW_LENGTH;

/// What can be chosen.
#[derive(clap::Args)]
pub struct Args {
    /// The text file that the file server maps first.
    #[arg(long, value_name = "FILE", default_value = "/etc/os-release")]
    first: PathBuf,

    /// The text file that it maps where the device does not see it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/share/common-licenses/GPL-2"
    )]
    second: PathBuf,

    /// Where the file server makes a file of its own.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Where in the window the first file is, and later the file that replaces it: in
/// the device's view.
const FIRST: u64 = 0;
/// Where in the window the second file is: past the end of the device's view.
const SECOND: u64 = VIEW_LENGTH;

const GUEST: &str = "guest";
const SERVER: &str = "file server";
const DEVICE: &str = "device";
const VMM: &str = "VMM";

pub fn run(args: &Args) -> Result<()> {
    let mut demo = Demo::begin(&args.dir)?;
    let result = demo.steps(args);
    let step = demo.transcript.steps();
    result.with_context(|| format!("FAILED in step {step}"))?;
    line(&format!(
        "\nAll {step} steps went as an address space promises."
    ));
    Ok(())
}

struct Demo {
    vmm: Process,
    server: Process,
    device: Process,
    transcript: Transcript,
    own_file: OwnFile,
}

/// The file that the file server makes. The demo removes it, since the server may
/// be killed.
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        // The file may not have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Demo {
    /// Starts the three, and lets the VMM send each of the others its file descriptor.
    fn begin(dir: &Path) -> Result<Demo> {
        let vmm = Process::start(VMM, "vmm")?;
        let server = Process::start(SERVER, "file-server")?;
        let device = Process::start(DEVICE, "device")?;

        // The VMM's ends go to the VMM, so that the others see it if it fails.
        let (vmm_server, server_vmm) = Channel::pair()?;
        let (vmm_device, device_vmm) = Channel::pair()?;
        vmm.send(&VmmOrder::Begin, &[vmm_server.as_fd(), vmm_device.as_fd()])?;
        server.send(&ServerOrder::Begin, &[server_vmm.as_fd()])?;
        device.send(&DeviceOrder::Begin, &[device_vmm.as_fd()])?;
        drop((vmm_server, vmm_device));
        for process in [&vmm, &server, &device] {
            done(process.answer()?)?;
        }
        let own_file = dir.join(format!("address-space-demo-{}.txt", std::process::id()));
        Ok(Demo {
            vmm,
            server,
            device,
            transcript: Transcript::default(),
            own_file: OwnFile(own_file),
        })
    }

    fn steps(&mut self, args: &Args) -> Result<()> {
        self.introduce();
        self.nothing_is_there()?;
        self.a_file_appears(&args.first)?;
        self.another_where_the_device_does_not_see_it(&args.second)?;
        self.the_device_can_do_no_more()?;
        self.the_file_is_replaced()?;
        self.all_write_and_read_one_file()?;
        self.ram_is_an_address_space_too()?;
        self.the_layout_can_be_seen()?;
        self.all_is_revoked()
    }

    fn introduce(&self) {
        line(&format!(
            "An address space of {} KiB, the window, and three processes:",
            WINDOW_LENGTH >> 10
        ));
        let says = |name, id, what: &str| self.transcript.says(name, &format!("(pid {id}) {what}"));
        says(
            VMM,
            self.vmm.id(),
            &format!("made the window, and runs a KVM guest that has it at {WINDOW:#x}"),
        );
        says(
            SERVER,
            self.server.id(),
            "holds the window's file descriptor, and may map files into it",
        );
        says(
            DEVICE,
            self.device.id(),
            &format!(
                "holds a read-only view of the window's first {} KiB",
                VIEW_LENGTH >> 10
            ),
        );
        line("No message about what the file server does goes to the other two.");
    }

    fn nothing_is_there(&mut self) -> Result<()> {
        self.transcript.step("Nothing is mapped in the window.");
        same(
            self.vmm.ask(&VmmOrder::Read { offset: FIRST })?,
            Answer::Hole,
        )?;
        self.transcript.says(
            GUEST,
            "reads it, and stops: KVM_RUN ends with EFAULT, a hole",
        );
        same(
            self.device.ask(&DeviceOrder::Copy { offset: FIRST })?,
            Answer::Hole,
        )?;
        self.transcript
            .says(DEVICE, "lets write(2) copy from it: EFAULT, a hole");
        Ok(())
    }

    fn a_file_appears(&mut self, path: &Path) -> Result<()> {
        self.transcript.step("A file is mapped.");
        let line = self.map(path, FIRST)?;
        same(self.vmm.ask(&VmmOrder::GoOn)?, Answer::Line(line.clone()))?;
        self.transcript.says(
            GUEST,
            &format!("goes on where it stopped, and prints {line:?}"),
        );
        self.device_reads(&line)
    }

    fn another_where_the_device_does_not_see_it(&mut self, path: &Path) -> Result<()> {
        self.transcript
            .step("Another file is mapped, past the end of the device's view.");
        let line = self.map(path, SECOND)?;
        self.guest_reads(SECOND, &line)?;
        self.device_is_refused(
            &DeviceOrder::TryBeyond,
            "tries to attach more than its view shows",
            Errno::INVAL,
        )
    }

    fn the_device_can_do_no_more(&mut self) -> Result<()> {
        self.transcript
            .step("The device tries what its view does not allow.");
        self.device_is_refused(
            &DeviceOrder::TryWriting,
            "tries to attach its view for writing",
            Errno::ACCESS,
        )?;
        self.device_is_refused(
            &DeviceOrder::TryMapping,
            "tries to map a file into its view",
            Errno::NOTTY,
        )
    }

    fn the_file_is_replaced(&mut self) -> Result<()> {
        const NEWS: &str = "News from the file server.";

        self.transcript
            .step("The first file is replaced while the guest is watching it.");
        same(
            self.vmm.ask(&VmmOrder::Watch { offset: FIRST })?,
            Answer::Watching,
        )?;
        self.transcript
            .says(GUEST, "reads the same word over and over");
        let path = &self.own_file.0;
        done(self.server.ask(&ServerOrder::Replace {
            path: path.clone(),
            line: NEWS.into(),
            offset: FIRST,
        })?)?;
        self.transcript.says(
            SERVER,
            &format!(
                "writes {}, and maps it in place of the first file",
                path.display()
            ),
        );
        same(self.vmm.answer()?, Answer::Line(NEWS.into()))?;
        self.transcript
            .says(GUEST, &format!("sees the word change, and prints {NEWS:?}"));
        self.transcript
            .says(VMM, "was in the same KVM_RUN all the time");
        self.device_reads(NEWS)
    }

    fn all_write_and_read_one_file(&mut self) -> Result<()> {
        const EDITED: &str = "Edited with write(2).";
        let guest_line = GUEST_TEXT.trim_end();

        self.transcript
            .step("The guest and the file server write to the file.");
        done(self.vmm.ask(&VmmOrder::Write { offset: FIRST })?)?;
        self.transcript
            .says(GUEST, &format!("writes {guest_line:?} to the window"));
        same(
            self.server.ask(&ServerOrder::ReadFile)?,
            Answer::Line(guest_line.into()),
        )?;
        self.transcript
            .says(SERVER, "finds that in its file, with read(2)");
        self.device_reads(guest_line)?;
        done(self.server.ask(&ServerOrder::Edit {
            line: EDITED.into(),
        })?)?;
        self.transcript.says(
            SERVER,
            &format!("writes {EDITED:?} to its file, with write(2)"),
        );
        self.guest_reads(FIRST, EDITED)?;
        self.device_reads(EDITED)
    }

    fn ram_is_an_address_space_too(&mut self) -> Result<()> {
        self.transcript
            .step("The guest's RAM is another address space, which shows a memfd.");
        let Answer::Count { guest, vmm } = self.vmm.ask(&VmmOrder::Count)? else {
            bail!("no count");
        };
        self.transcript
            .says(GUEST, &format!("has counted its orders in RAM: {guest}"));
        self.transcript
            .says(VMM, &format!("reads in the same RAM: {vmm}"));
        ensure!(guest == vmm && guest > 0, "{guest} is not {vmm}");
        Ok(())
    }

    fn the_layout_can_be_seen(&mut self) -> Result<()> {
        self.transcript.step("What is mapped can be seen in /proc.");
        let info = self.info()?;
        self.transcript
            .says(SERVER, "reads /proc/self/fdinfo of its file descriptor:");
        for line in info.lines() {
            self.transcript.says("", line);
        }
        Ok(())
    }

    fn all_is_revoked(&mut self) -> Result<()> {
        self.transcript
            .step("The file server unmaps all, and so revokes it from guest and device.");
        done(self.server.ask(&ServerOrder::Unmap)?)?;
        self.transcript.says(SERVER, "unmaps the whole window");
        same(
            self.vmm.ask(&VmmOrder::Read { offset: FIRST })?,
            Answer::Hole,
        )?;
        self.transcript.says(
            GUEST,
            "reads where it read before, and stops: KVM_RUN ends with EFAULT",
        );
        self.device
            .send(&DeviceOrder::Read { offset: FIRST }, &[])?;
        let status = self.device.end()?;
        ensure!(
            status.signal() == Some(SIGBUS),
            "the device ended otherwise: {status}"
        );
        self.transcript.says(
            DEVICE,
            "reads where it read before, and is killed by SIGBUS",
        );
        let Answer::Line(line) = self.server.ask(&ServerOrder::ReadFile)? else {
            bail!("the file server has lost its file");
        };
        self.transcript
            .says(SERVER, &format!("still has its file, and reads {line:?}"));

        let info = self.info()?;
        for (key, at_least) in [("attachments", 0), ("faults", 1), ("revocations", 1)] {
            let count = fdinfo::number(&info, key)?;
            self.transcript.says("", &format!("{key}: {count}"));
            ensure!(count >= at_least, "no {key} were counted");
        }
        Ok(())
    }

    /// The file server maps a file. Returns its first line.
    fn map(&self, path: &Path, offset: u64) -> Result<String> {
        let order = ServerOrder::Map {
            path: path.into(),
            offset,
        };
        let Answer::Line(line) = self.server.ask(&order)? else {
            bail!("the file server does not answer with the first line");
        };
        self.transcript
            .says(SERVER, &format!("maps {} at {offset:#x}", path.display()));
        Ok(line)
    }

    fn guest_reads(&self, offset: u64, line: &str) -> Result<()> {
        same(
            self.vmm.ask(&VmmOrder::Read { offset })?,
            Answer::Line(line.into()),
        )?;
        self.transcript.says(GUEST, &format!("prints {line:?}"));
        Ok(())
    }

    fn device_reads(&self, line: &str) -> Result<()> {
        let order = DeviceOrder::Read { offset: FIRST };
        same(self.device.ask(&order)?, Answer::Line(line.into()))?;
        self.transcript.says(DEVICE, &format!("reads {line:?}"));
        Ok(())
    }

    fn device_is_refused(&self, order: &DeviceOrder, what: &str, expected: Errno) -> Result<()> {
        let Answer::Refused { errno, advice } = self.device.ask(order)? else {
            bail!("the device was not refused");
        };
        let errno = Errno::from_raw_os_error(errno);
        self.transcript.says(DEVICE, &format!("{what}: {errno}"));
        self.transcript.says("", &format!("({advice})"));
        ensure!(errno == expected, "expected {expected}, got {errno}");
        Ok(())
    }

    /// The lines of the asfd's fdinfo that are the address space's own.
    fn info(&self) -> Result<String> {
        const EVERY_FILE_HAS: [&str; 4] = ["pos:", "flags:", "mnt_id:", "ino:"];
        let text = text(self.server.ask(&ServerOrder::Info)?)?;
        Ok(text
            .lines()
            .filter(|line| !EVERY_FILE_HAS.iter().any(|key| line.starts_with(key)))
            .map(|line| line.replace('\t', " "))
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

fn done(answer: Answer) -> Result<()> {
    same(answer, Answer::Done)
}

fn text(answer: Answer) -> Result<String> {
    match answer {
        Answer::Text(text) => Ok(text),
        answer => bail!("a text expected, not {answer:?}"),
    }
}

/// Fails if an answer is not the one that an address space promises.
fn same(answer: Answer, promised: Answer) -> Result<()> {
    ensure!(answer == promised, "expected {promised:?}, got {answer:?}");
    Ok(())
}
