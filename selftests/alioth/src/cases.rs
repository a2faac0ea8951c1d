// SPDX-License-Identifier: GPL-2.0

//! The cases: one guest, in the order in which they run.

use std::os::fd::AsFd as _;
use std::path::Path;

use address_space::{AddressSpace, Holes};
use anyhow::{Context as _, Result, bail, ensure};
use rig::READ_WRITE;
use rig::cases::Case;
use rig::check::expect;
use rig::daemon::Daemon;
use rig::fdinfo;
use rig::file_server::{FileServer, Window};
use rig::show::Show;
use vmm_guest::dax::{Content, GUEST, HOST, LARGE, REPLY, REPLY_AT, chunks};
use vmm_guest::desk::{DESK, Job};

use crate::machine::{Footprint, Machine};
use crate::share::Share;

/// How long the window is, in bytes: much less than the largest file.
const WINDOW: u64 = 32 << 20;

/// How many queues for requests there are.
const QUEUES: u16 = 1;

/// The thread of the VMM that would get messages of the server's, which has the device's name.
const THREAD: &str = "files";

macro_rules! cases {
    ($($name:ident: $title:literal),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case<fn(&mut Trial, Show) -> Result<()>>] = &[
            $( Case { name: stringify!($name), title: $title, run: $name } ),*
        ];
    };
}

cases! {
    alioth_boots_a_guest_that_mounts_the_directory_with_dax:
        "alioth, unchanged, boots a guest whose DAX window is a view; the guest mounts a directory.",
    guest_reads_the_hosts_file_through_the_window: "The guest reads a file.",
    host_sees_the_guests_stores_at_once: "It stores to another, which it has made.",
    guest_sees_the_hosts_writes_at_once: "The host writes into that.",
    file_larger_than_the_window_is_read: "The guest reads a file that is larger than the window.",
    vmm_hears_nothing_of_maps_and_unmaps: "What the VMM has had to do meanwhile.",
    nothing_is_left_when_alioth_has_ended: "The guest turns its machine off.",
}

/// What the cases have in common.
pub struct Trial {
    share: Share,
    window: AddressSpace,
    server: Daemon,
    /// How the server was started; its socket is in there.
    _files: FileServer,
    machine: Machine,
    /// What the VMM had done before and after a file was read that is larger than the window.
    around: Option<[Footprint; 2]>,
}

impl Trial {
    /// Makes the window, and starts the server and the VMM.
    pub fn new(vmm: &Path, server: &Path, guest: &Path) -> Result<Trial> {
        let share = Share::new()?;
        let window = AddressSpace::new(WINDOW)?;
        // A right to change the window, for the server,
        let part = window.part(0..WINDOW, READ_WRITE)?;
        let files = FileServer::new(server.to_owned(), share.directory().to_owned(), QUEUES)?;
        let server = files.start(Window::Server(part.as_fd(), WINDOW))?;
        // and one to see it, for the VMM, whose guest goes on where nothing is.
        let view = window.view_named("window", 0..WINDOW, READ_WRITE, Holes::ABSORB)?;
        let machine = Machine::start(
            vmm,
            guest,
            server.socket(),
            view.into(),
            WINDOW,
            &share.open(DESK)?,
        )?;
        Ok(Trial {
            share,
            window,
            server,
            _files: files,
            machine,
            around: None,
        })
    }

    /// Checks that the window shows a file; returns what to say of it.
    fn shown(&self, content: Content) -> Result<String> {
        let name = content.name;
        let mappings = fdinfo::mappings(&fdinfo::read(&self.window)?)?;
        let of_file = |mapping: &&fdinfo::Mapping| mapping.path.ends_with(name);
        let count = mappings.iter().filter(of_file).count();
        let all = mappings.len();
        ensure!(count > 0, "the window has no {name}, but {mappings:#x?}");
        Ok(format!(
            "has {all} mappings in the window, {count} of them of {name}"
        ))
    }

    fn number(&self, key: &str) -> Result<u64> {
        fdinfo::number(&fdinfo::read(&self.window)?, key)
    }
}

fn alioth_boots_a_guest_that_mounts_the_directory_with_dax(
    trial: &mut Trial,
    show: Show,
) -> Result<()> {
    let (vmm, server) = (trial.machine.id(), trial.server.id());
    show.says("alioth", &format!("(pid {vmm}) has a view of the window"));
    show.says(
        "server",
        &format!("(pid {server}) has a right to change it"),
    );
    // Its first answer says that it is up, and has mapped a file through the window.
    let asked = trial.machine.ask(Job::Answer);
    asked.with_context(|| format!("the server: {:?}", trial.server.output()))?;
    let footprint = trial.machine.footprint()?;
    let [attachment] = footprint.of("address_space")[..] else {
        bail!("alioth has mapped {:?}", footprint.of("address_space"));
    };
    show.says("alioth", &format!("has mapped {attachment}"));
    show.says("server", &trial.shown(DESK)?);
    Ok(())
}

fn guest_reads_the_hosts_file_through_the_window(trial: &mut Trial, show: Show) -> Result<()> {
    trial.machine.ask(Job::Read)?;
    let length = HOST.length;
    show.says("guest", &format!("finds all of its {length} bytes right"));
    show.says("server", &trial.shown(HOST)?);
    Ok(())
}

fn host_sees_the_guests_stores_at_once(trial: &mut Trial, show: Show) -> Result<()> {
    trial.machine.ask(Job::Store)?;
    trial.share.expect(GUEST)?;
    let length = GUEST.length;
    show.says(
        "host",
        &format!("finds {length} bytes by read(), with no fsync()"),
    );
    show.says("server", &trial.shown(GUEST)?);
    Ok(())
}

fn guest_sees_the_hosts_writes_at_once(trial: &mut Trial, show: Show) -> Result<()> {
    trial.share.reply()?;
    let length = REPLY.length;
    show.says("host", &format!("writes {length} bytes at {REPLY_AT:#x}"));
    trial.machine.ask(Job::FindReply)?;
    show.says("guest", "sees them in its mapping");
    Ok(())
}

fn file_larger_than_the_window_is_read(trial: &mut Trial, show: Show) -> Result<()> {
    let before = (trial.machine.footprint()?, trial.number("revocations")?);
    let read = trial.machine.ask(Job::ReadLarge)?;
    let after = (trial.machine.footprint()?, trial.number("revocations")?);
    expect("chunks", read, chunks().count() as u64)?;
    show.says(
        "guest",
        &format!(
            "has compared {read} parts of {} MiB, through {} MiB",
            LARGE.length >> 20,
            WINDOW >> 20
        ),
    );
    let revoked = after.1 - before.1;
    show.says("server", &trial.shown(LARGE)?);
    show.says(
        "",
        &format!("and has taken {revoked} ranges from it, for others"),
    );
    trial.around = Some([before.0, after.0]);
    ensure!(revoked > 0, "nothing was unmapped");
    Ok(())
}

fn vmm_hears_nothing_of_maps_and_unmaps(trial: &mut Trial, show: Show) -> Result<()> {
    let [before, after] = trial.around.as_ref().context("no file was read")?;
    ensure!(
        before.waits.contains_key(THREAD),
        "no thread of the device: {before:?}"
    );
    expect("its threads' waits", &after.waits, &before.waits)?;
    expect("what it has not read", &after.unread, &vec![0])?;
    show.says(
        "alioth",
        "has woken no thread, but that of the guest's CPU,",
    );
    show.says("", "has nothing to read in its socket to the server,");
    expect(
        "what it has mapped of the window",
        after.of("address_space"),
        before.of("address_space"),
    )?;
    let directory = trial.share.directory().to_string_lossy();
    expect("its mappings of files", after.of(&directory).len(), 0)?;
    show.says(
        "",
        "and has the one mapping of the window, and none of any file",
    );
    // Where the server would send them, which it was not given.
    expect("the server's sockets", trial.server.sockets()?, 2)?;
    show.says(
        "server",
        "has the socket on which it listens, and the VMM's, no other",
    );
    Ok(())
}

fn nothing_is_left_when_alioth_has_ended(trial: &mut Trial, show: Show) -> Result<()> {
    let status = trial.machine.end()?;
    let output = trial.machine.output();
    ensure!(status.success(), "alioth ended: {status}: {output}");
    let server = trial.server.wait()?;
    ensure!(
        server.success(),
        "the server ended: {server}: {}",
        trial.server.output()
    );
    expect("attachments", trial.number("attachments")?, 0)?;
    show.says("alioth", "has ended, and so has the server");
    show.says("kernel", "has no attachment of the window");
    Ok(())
}
