// SPDX-License-Identifier: GPL-2.0

//! QEMU as Debian has it, with a Linux guest whose program does what it is asked.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rig::daemon::Daemon;
use rig::folder::Folder;
use rig::initramfs::initramfs;
use rig::process::inherit;
use vmm_guest::mailbox::{ANSWER, REQUEST, Request};
use vmm_guest::mapping::{Mapping, Stores};

/// How long the guest may take for anything: its boot, in a machine that is emulated.
const PATIENCE: Duration = Duration::from_secs(170);

/// The guest's RAM in bytes.
pub const RAM: u64 = 128 << 20;
/// The memory of each device.
pub const DEVICE: u64 = 1 << 20;

/// It waits for no hardware that is missing.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet reboot=k panic=-1 mitigations=off audit=0 \
     apparmor=0 nokaslr cryptomgr.notests i8042.nokbd i8042.noaux";

/// A running QEMU.
pub struct Machine {
    daemon: Daemon,
    console: PathBuf,
    mailbox: Mapping,
    number: u64,
    _folder: Folder,
}

impl Machine {
    /// Starts QEMU: RAM and the first device's memory are named by their paths, the second's by
    /// that of a file descriptor in /proc. `mailbox` is the first page of the first device's.
    pub fn start(
        qemu: &Path,
        guest: &Path,
        ram: &Path,
        first: &Path,
        second: OwnedFd,
        mailbox: &File,
    ) -> Result<Machine> {
        let folder = Folder::new("qemu")?;
        let initrd = folder.path().join("initrd");
        fs::write(&initrd, initramfs(guest, "qemu-init", &[])?)?;
        let console = folder.path().join("console");
        let socket = folder.path().join("qmp");
        let mut command = Command::new(qemu);
        let second = format!("/proc/self/fd/{}", inherit(&mut command, second));
        let memory = |id: &str, size: u64, path: &Path| {
            let path = path.display();
            format!("memory-backend-file,id={id},size={size},mem-path={path},share=on")
        };
        command
            .args(["-machine", "q35,accel=kvm,memory-backend=ram"])
            .args(["-cpu", "host", "-m", &format!("{}M", RAM >> 20)])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-bios", "qboot.rom", "-no-reboot"])
            .args(["-object", &memory("ram", RAM, ram)])
            .args(["-object", &memory("first", DEVICE, first)])
            .args(["-object", &memory("second", DEVICE, Path::new(&second))])
            .args(["-device", "ivshmem-plain,memdev=first,addr=4"])
            .args(["-device", "ivshmem-plain,memdev=second,addr=5"])
            .args(["-append", KERNEL_ARGUMENTS])
            .arg("-kernel")
            .arg(guest.join("vmlinux"))
            .arg("-initrd")
            .arg(&initrd)
            .args(["-serial", &format!("file:{}", console.display())])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", socket.display()),
            ]);
        Ok(Machine {
            daemon: Daemon::start(&mut command, &folder, &socket)?,
            console,
            mailbox: Mapping::new(mailbox, 4096, Stores::Shared)?,
            number: 0,
            _folder: folder,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Asks the guest something, and waits for the answer.
    pub fn ask(&mut self, request: Request) -> Result<u64> {
        self.number += 1;
        for (index, word) in (1..).zip(request.words()) {
            self.mailbox.word(REQUEST + 8 * index)?.store(word, Relaxed);
        }
        self.mailbox.word(REQUEST)?.store(self.number, Release);
        let end = Instant::now() + PATIENCE;
        while self.mailbox.word(ANSWER)?.load(Acquire) != self.number {
            if !self.daemon.is_alive()? {
                let status = self.daemon.wait()?;
                bail!("QEMU ended: {status}: {}", self.printed());
            }
            ensure!(
                Instant::now() < end,
                "the guest does not answer {request:?}: {}",
                self.printed()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.mailbox.word(ANSWER + 8)?.load(Relaxed))
    }

    /// Has the guest end, and waits for QEMU's end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        self.ask(Request::End)?;
        self.daemon.wait().context("QEMU")
    }

    /// What QEMU and the guest have printed.
    fn printed(&self) -> String {
        // Firmware prints what is no text.
        let console = fs::read(&self.console).unwrap_or_default();
        format!("{}\n{}", self.output(), String::from_utf8_lossy(&console))
    }

    /// What QEMU has printed.
    pub fn output(&self) -> String {
        self.daemon.output()
    }
}
