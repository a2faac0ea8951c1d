// SPDX-License-Identifier: GPL-2.0

//! What a server, and so a guest that has taken it over, reaches.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use address_space::{AddressSpace, Prot, page_size};
use anyhow::{Context as _, Result, bail, ensure};
use fuse_backend_rs::abi::fuse_abi::{CreateIn, MkdirIn, Opcode};
use rig::READ_WRITE;
use rig::check::expect;
use rig::folder::Folder;
use rustix::process::Signal;

use crate::guest::{Guest, NOBODY, ROOT, Setup, bytes, name};

/// The first argument of this program when it runs as another process.
pub const AGAIN: &str = "--again";

pub fn server_has_nothing_but_the_directory() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    guest.create(ROOT, "file")?;
    // What it sees as its root.
    let names: Vec<_> = fs::read_dir(guest.proc("root"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    expect("the root", names, vec![OsString::from("file")])?;
    ensure!(
        !guest.proc("root/etc/passwd").exists(),
        "it sees /etc/passwd"
    );
    let mounts = fs::read_to_string(guest.proc("mountinfo"))?;
    expect("mounts", mounts.lines().count(), 1)?;
    for option in ["nosuid", "nodev", "noexec"] {
        ensure!(mounts.contains(option), "not {option}: {mounts}");
    }
    let status = fs::read_to_string(guest.proc("status"))?;
    let value = |key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {key}"))
    };
    expect("NoNewPrivs", value("NoNewPrivs")?, "1")?;
    expect("Seccomp", value("Seccomp")?, "2")?;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD
    let allowed = [0, 1, 3, 4, 6, 7, 27].map(|bit| 1_u64 << bit);
    let allowed: u64 = allowed.iter().sum();
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let has = u64::from_str_radix(value(key)?, 16)?;
        expect(key, has & !allowed, 0)?;
    }
    Ok(())
}

pub fn server_needs_no_privilege() -> Result<()> {
    let mut guest = Guest::new(Setup {
        unprivileged: true,
        ..Setup::default()
    })?;
    let node = guest.create(ROOT, "file")?;
    guest.write(node, 0, &[b'a'; 4096])?;
    guest.must_map(node, 0, 0, true)?;
    guest.window()?.write(0, b'b')?;
    expect("the file", fs::read(guest.shared("file"))?[0], b'b')?;
    expect(
        "its owner",
        fs::metadata(guest.shared("file"))?.uid(),
        NOBODY,
    )?;
    ensure!(
        !guest.proc("root/etc/passwd").exists(),
        "it sees /etc/passwd"
    );
    guest.kill()?;
    guest.restart()?;
    expect("the next server", guest.read(node, 0, 1)?, b"b".to_vec())
}

pub fn guest_does_not_leave_the_directory() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    fs::write(guest.outside("secret"), "secret")?;
    expect("above the root", guest.lookup(ROOT, "..")?, ROOT)?;
    let directory = guest.mkdir(ROOT, "directory")?;
    expect("above a directory", guest.lookup(directory, "..")?, ROOT)?;
    for path in ["../secret", "directory/..", "/etc/passwd"] {
        let reply = guest.call(Opcode::Lookup, ROOT, &name(path))?;
        expect(path, reply, Err(libc::EINVAL))?;
    }
    std::os::unix::fs::symlink("/etc/passwd", guest.shared("link"))?;
    let link = guest.lookup(ROOT, "link")?;
    let body = [0; 40];
    expect(
        "a link",
        guest.call(Opcode::Read, link, &body)?,
        Err(libc::EBADF),
    )?;
    let below = guest.call(Opcode::Lookup, link, &name("x"))?;
    expect("below a link", below, Err(libc::ENOTDIR))?;
    // The host takes a directory away that the guest knows.
    fs::rename(guest.shared("directory"), guest.outside("directory"))?;
    let above = guest.call(Opcode::Lookup, directory, &name(".."))?;
    ensure!(
        above.is_err(),
        "above a directory that was moved: {above:?}"
    );
    Ok(())
}

pub fn file_belongs_to_the_user_who_makes_it() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    fs::set_permissions(guest.shared(""), fs::Permissions::from_mode(0o777))?;
    guest.user = (1000, 1001);
    guest.create(ROOT, "file")?;
    guest.mkdir(ROOT, "directory")?;
    guest.user = (0, 0);
    guest.create(ROOT, "of-root")?;
    for (file, owner) in [
        ("file", (1000, 1001)),
        ("directory", (1000, 1001)),
        ("of-root", (0, 0)),
    ] {
        let metadata = fs::metadata(guest.shared(file))?;
        expect(file, (metadata.uid(), metadata.gid()), owner)?;
    }
    Ok(())
}

pub fn nothing_in_a_readonly_directory_is_changed() -> Result<()> {
    let mut guest = Guest::new(Setup {
        readonly: true,
        ..Setup::default()
    })?;
    fs::write(guest.shared("file"), "content")?;
    let node = guest.lookup(ROOT, "file")?;
    expect("reading", guest.read(node, 0, 100)?, b"content".to_vec())?;
    let create = CreateIn {
        flags: (libc::O_CREAT | libc::O_RDWR) as u32,
        mode: 0o644,
        umask: 0,
        fuse_flags: 0,
    };
    let mkdir = MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let write_only = (libc::O_WRONLY as u32).to_le_bytes();
    for (opcode, node, body) in [
        (
            Opcode::Create,
            ROOT,
            [bytes(&create), &name("new")].concat(),
        ),
        (Opcode::Mkdir, ROOT, [bytes(&mkdir), &name("new")].concat()),
        (Opcode::Unlink, ROOT, name("file")),
        (Opcode::Open, node, [write_only, [0; 4]].concat()),
        (Opcode::Write, node, [vec![0; 40], vec![b'x']].concat()),
    ] {
        let number = opcode as u32;
        let reply = guest.call(opcode, node, &body)?;
        expect(&format!("request {number}"), reply, Err(libc::EROFS))?;
    }
    Ok(())
}

/// All that a server asks of the module.
pub fn all_calls_of_a_space_work() -> Result<()> {
    expect("its end", in_another("calls")?.code(), Some(0))
}

pub fn another_call_ends_the_process() -> Result<()> {
    for call in ["execute", "connect", "executable"] {
        let status = in_another(call)?;
        expect(call, status.signal(), Some(Signal::SYS.as_raw()))?;
    }
    Ok(())
}

/// Runs this program as another process, which confines itself to a directory.
fn in_another(what: &str) -> Result<ExitStatus> {
    let folder = Folder::new("confined")?;
    fs::write(folder.path().join("file"), [b'a'; 4096])?;
    let space = AddressSpace::new(16 * page_size())?;
    // A duplicate is inherited.
    let asfd = rustix::io::dup(space.as_fd())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([AGAIN, what]).arg(folder.path());
    command.arg(asfd.as_raw_fd().to_string());
    Ok(command.status()?)
}

/// What runs there.
pub fn again(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run_again(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_again(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut next = || arguments.next().context("an argument is missing");
    let (what, directory, asfd) = (next()?, next()?, next()?);
    let asfd = asfd.to_str().context("a number")?.parse()?;
    // SAFETY: It was inherited, and stays open.
    let asfd = unsafe { BorrowedFd::borrow_raw(asfd) };
    let space = AddressSpace::from(asfd.try_clone_to_owned()?);
    virtiofs::confine::to(Path::new(&directory), false)?;
    for path in ["/etc/passwd", "/proc/self/maps", "/dev/address_space"] {
        let error = File::open(path)
            .map(drop)
            .err()
            .with_context(|| format!("it has {path}"))?;
        expect(path, error.raw_os_error(), Some(libc::ENOENT))?;
    }
    match what.to_str() {
        Some("calls") => calls(&space),
        Some("execute") => Err(Command::new("/file").exec().into()),
        Some("connect") => {
            std::os::unix::net::UnixStream::connect("/socket")?;
            Ok(())
        }
        Some("executable") => {
            let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC;
            let flags = rustix::mm::MapFlags::PRIVATE;
            // SAFETY: It is new memory, of which nothing is used.
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, prot, flags) }?;
            Ok(())
        }
        _ => bail!("what to do?"),
    }
}

fn calls(space: &AddressSpace) -> Result<()> {
    let page = page_size();
    let file = File::options().read(true).write(true).open("/file")?;
    space.register(&file).prot(READ_WRITE).commit()?;
    space.map(&file).at(0).commit()?;
    space.map(&file).at(0).prot(READ_WRITE).replace().commit()?;
    space.protect(0..page, Prot::READ)?;
    space.move_to(0..page, page)?;
    let batch = space.batch().map(&file, 0, 0..page, Prot::READ);
    batch.unmap(page..2 * page).commit()?;
    let window = space.attach(0..page, Prot::READ)?;
    expect("a byte", window.read::<u8>(0)?, b'a')?;
    let view = space.view(0..page, Prot::READ)?;
    expect("the view", view.length()?, page)?;
    space.unregister(&file)?;
    Ok(space.unmap_and_release(0..page)?)
}
