// SPDX-License-Identifier: GPL-2.0

//! A guest that mounts a directory of its host with a DAX window, in which the file server
//! maps and unmaps: what is promised is checked at each call of the guest's program, in the
//! directory itself.

mod hardware;
mod second;
mod share;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use rig::check::expect;
use rig::fdinfo;
use rig::file_server::FileServer;
use rig::process::signals::SIGKILL;
use rig::tap::line;
use vmm_guest::dax::{
    APPENDED, COPY, CUT, Content, DISK, FIRST, GROWN, GUEST, HOST, HUGE, KILLS, LARGE, MOST_TURNS,
    PROGRAM, REPLY, REPLY_AT, SHRINKING, Step, TURNS, turn,
};
use vmm_guest::pattern::pattern;

use self::hardware::Hardware;
pub use self::hardware::Programs;
use self::second::Second;
pub use self::second::run as run_second;
use self::share::{Share, same};
use crate::cpus::{self, Trial};
use crate::delayed_kill::DelayedKill;
use crate::guest_memory::GuestMemory;
use crate::machine::{Base, Console, Machine};
use crate::past_end::PastEnd;
use crate::report::{LAST, Report};

const CPUS: u8 = 2;
/// How many queues for requests there are.
const QUEUES: u16 = 2;

const PROMISES: &[&str] = &[
    "guest_mounts_the_directory_with_dax",
    "huge_pages_of_a_file_are_huge_under_the_guest",
    "guest_reads_the_hosts_file_through_the_window",
    "host_sees_the_guests_stores_at_once",
    "guest_sees_the_hosts_writes_at_once_and_private_mappings_change_nothing",
    "append_arrives",
    "truncation_by_the_guest_arrives_both_ways",
    "created_renamed_and_removed_names_arrive",
    "program_is_executed_from_the_directory",
    "file_larger_than_the_window_is_read",
    "vmm_hears_nothing_of_maps_and_unmaps",
    "each_cpu_has_a_queue",
    "append_from_a_mapping_arrives",
    "disk_reads_into_a_mapping",
    "two_guests_share_a_file_at_once",
    "killed_server_is_replaced_and_no_request_is_lost",
    "guest_reads_zeroes_past_the_end_of_a_file_that_the_host_cut",
    "guest_reads_what_the_host_then_appended",
    LAST,
];

/// What the VMM, the guest and the server had done before a large file was read.
#[derive(Clone, Copy, Default)]
struct Before {
    talks: u64,
    accesses: u64,
    revocations: u64,
    faults: u64,
}

struct DaxTrial {
    report: Report,
    share: Share,
    second: Second,
    past_end: Option<PastEnd>,
    before: Before,
    kill: Option<DelayedKill>,
    killed: u64,
    done: bool,
}

/// Runs the guest, and another one beside it; returns whether all promises are kept.
pub fn run(programs: &Programs<'_>, console: &Console) -> bool {
    let report = Report::new(PROMISES);
    let made = || {
        let share = Share::new(&programs.guest.join("dax-init"))?;
        let second = Second::start(share.directory())?;
        let server = FileServer::new(
            programs.server.clone(),
            share.directory().to_owned(),
            QUEUES,
        )?;
        let devices = |base: &Base| Hardware::new(base, server, true);
        let made = Machine::new(&programs.guest(FIRST), CPUS, console, devices)?;
        Ok((share, second, made))
    };
    match made() {
        Err(error) => report.end(&Err(error)),
        Ok((share, second, made)) => {
            let trial = DaxTrial {
                report,
                share,
                second,
                past_end: None,
                before: Before::default(),
                kill: None,
                killed: 0,
                done: false,
            };
            cpus::run_and_report(Ok(made), trial, |trial| trial.report)
        }
    }
}

impl Trial for DaxTrial {
    type Devices = Hardware;

    fn called(
        &mut self,
        machine: &mut Machine<Hardware>,
        call: u8,
        numbers: [u64; 2],
    ) -> Result<bool> {
        let step = Step::of(call).context("no such step")?;
        if step == Step::Failed {
            // It ends by itself, once the console has said why.
            return Ok(false);
        }
        self.report.reached(format!("{step:?}"));
        self.done = step == Step::Done;
        self.reached(machine, step, numbers)
    }

    /// A CPU was interrupted, as one is when the server has died.
    fn interrupted(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let files = &mut machine.devices.files.device;
        if self.kill.is_some() && !files.daemon.is_alive()? {
            self.kill = None;
            let signal = files.daemon.wait()?.signal();
            expect("the server died of", signal, Some(SIGKILL))?;
            self.killed += 1;
            files.restart(&machine.ram)?;
        }
        Ok(())
    }

    fn hole(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let memory = &machine.devices.memory;
        let past_end = match &mut self.past_end {
            Some(past_end) => past_end,
            none => none.insert(PastEnd::new(memory)?),
        };
        past_end.met(memory)
    }

    fn reset(&mut self) -> Result<()> {
        ensure!(self.done, "the guest has ended after {}", self.report.at());
        Ok(())
    }
}

impl DaxTrial {
    /// Does and checks what belongs to a step. Returns whether the guest may go on: it may,
    /// after a broken promise.
    fn reached(
        &mut self,
        machine: &mut Machine<Hardware>,
        step: Step,
        numbers: [u64; 2],
    ) -> Result<bool> {
        let (share, memory) = (&self.share, machine.devices.memory.clone());
        let shown = |content: Content| shown(&memory, content.name);
        let (name, result) = match step {
            Step::Mounted => ("guest_mounts_the_directory_with_dax", mounted(machine)),
            Step::Read => ("guest_reads_the_hosts_file_through_the_window", shown(HOST)),
            Step::Stored => ("host_sees_the_guests_stores_at_once", {
                let result = share.expect_all(GUEST).and_then(|()| shown(GUEST));
                share.write(REPLY, 0, REPLY_AT as u64)?;
                result
            }),
            Step::Private => (
                "guest_sees_the_hosts_writes_at_once_and_private_mappings_change_nothing",
                expect_stored(share, GUEST.length).map(drop),
            ),
            Step::Appended => (
                "append_arrives",
                expect_stored(share, GUEST.length).and_then(|rest| {
                    let should = pattern(APPENDED.file, 0, APPENDED.length);
                    same("what follows in guest", &rest, &should)
                }),
            ),
            Step::Cut => {
                let rest = expect_stored(share, CUT)?;
                expect("the bytes that follow in guest", rest.len(), 0)?;
                return Ok(true);
            }
            Step::Lengthened => (
                "truncation_by_the_guest_arrives_both_ways",
                expect_stored(share, CUT).and_then(|rest| {
                    same("what follows in guest", &rest, &vec![0; GUEST.length - CUT])
                }),
            ),
            Step::Named => (
                "created_renamed_and_removed_names_arrive",
                share.expect_names(),
            ),
            Step::Executed => (
                "program_is_executed_from_the_directory",
                self::shown(&memory, PROGRAM),
            ),
            Step::Large => {
                self.before = before(machine)?;
                return Ok(true);
            }
            Step::LargeRead => {
                let [chunks, length] = numbers;
                line(&format!(
                    "#   the guest has compared {chunks} times {length} bytes of {} MiB",
                    LARGE.length >> 20
                ));
                let now = before(machine)?;
                let revoked = now.revocations - self.before.revocations;
                let result = shown(LARGE).and_then(|()| {
                    ensure!(revoked > 0, "nothing was unmapped");
                    Ok(())
                });
                self.report
                    .report("file_larger_than_the_window_is_read", result);
                let faults = now.faults - self.before.faults;
                line(&format!(
                    "#   {revoked} ranges were revoked, with {faults} faults"
                ));
                ("vmm_hears_nothing_of_maps_and_unmaps", {
                    expect("messages of the VMM's", now.talks, self.before.talks).and_then(|()| {
                        let before = self.before.accesses;
                        expect("accesses to the device in the VMM", now.accesses, before)
                    })
                })
            }
            Step::Queues => ("each_cpu_has_a_queue", queues(machine)),
            Step::Huge => (
                "huge_pages_of_a_file_are_huge_under_the_guest",
                shown(HUGE)
                    .and_then(|()| share.expect_all(HUGE))
                    .and_then(|()| huge(machine)),
            ),
            Step::Copied => ("append_from_a_mapping_arrives", share.expect_all(COPY)),
            Step::FromDisk => (
                "disk_reads_into_a_mapping",
                share.expect_all(DISK).and_then(|()| shown(DISK)),
            ),
            Step::Turns => ("two_guests_share_a_file_at_once", {
                let result = turns(share);
                result.and_then(|()| self.second.wait())
            }),
            Step::Kill => {
                let daemon = &machine.devices.files.device.daemon;
                self.kill = Some(DelayedKill::new(daemon)?);
                return Ok(true);
            }
            Step::Restarted => ("killed_server_is_replaced_and_no_request_is_lost", {
                let [files, _] = numbers;
                line(&format!("#   the guest has made {files} files"));
                expect("killed servers", self.killed, KILLS).and_then(|()| share.expect_made(files))
            }),
            Step::Shrink | Step::ShrinkOther => {
                share.cut(SHRINKING[usize::from(step == Step::ShrinkOther)])?;
                return Ok(true);
            }
            Step::Shrunk => (
                "guest_reads_zeroes_past_the_end_of_a_file_that_the_host_cut",
                share
                    .grow()
                    .and_then(|()| zeroes(self.past_end.as_ref(), numbers[0])),
            ),
            Step::Grown => (
                "guest_reads_what_the_host_then_appended",
                GROWN.into_iter().try_for_each(shown),
            ),
            Step::Done => return Ok(true),
            Step::Failed => return Ok(false),
        };
        self.report.report(name, result);
        Ok(true)
    }
}

fn mounted(machine: &mut Machine<Hardware>) -> Result<()> {
    let files = &mut machine.devices.files.device;
    ensure!(files.daemon.is_alive()?, "the server is dead");
    expect("starts of the server's queues", files.talks()?, 1)?;
    for holding in files.daemon.holdings()? {
        line(&format!("#   the server holds {holding}"));
    }
    Ok(())
}

/// Checks that the window shows a file.
fn shown(memory: &GuestMemory, name: &str) -> Result<()> {
    let mappings = memory.in_window()?;
    let mut of_file = mappings
        .iter()
        .filter(|mapping| mapping.path.ends_with(name));
    let Some(first) = of_file.next() else {
        bail!("the window does not show {name}, but {mappings:#x?}");
    };
    line(&format!(
        "#   the window shows {} mappings, of {name} {}",
        mappings.len(),
        1 + of_file.count()
    ));
    ensure!(first.prot.starts_with('r'), "it cannot be read: {first:x?}");
    Ok(())
}

/// Checks the first bytes of what the guest stored, and the host's reply in it; returns
/// what follows.
fn expect_stored(share: &Share, length: usize) -> Result<Vec<u8>> {
    let mut should = pattern(GUEST.file, 0, GUEST.length);
    let reply = pattern(REPLY.file, 0, REPLY.length);
    should[REPLY_AT..REPLY_AT + REPLY.length].copy_from_slice(&reply);
    let mut is = fs::read(share.path(GUEST.name))?;
    let rest = is.split_off(length.min(is.len()));
    same(GUEST.name, &is, &should[..length])?;
    Ok(rest)
}

fn before(machine: &Machine<Hardware>) -> Result<Before> {
    let files = &machine.devices.files;
    let info = fdinfo::read(machine.devices.memory.space())?;
    Ok(Before {
        talks: files.device.talks()?,
        accesses: files.accesses,
        revocations: fdinfo::number(&info, "revocations")?,
        faults: fdinfo::number(&info, "faults")?,
    })
}

/// Checks that all queues for requests have been used.
fn queues(machine: &Machine<Hardware>) -> Result<()> {
    let queues = machine.devices.files.device.running()?;
    expect("queues", queues.len(), 1 + usize::from(QUEUES))?;
    for (index, queue) in queues.iter().enumerate().skip(1) {
        let used = queue.used_index(&machine.ram)?;
        line(&format!("#   queue {index}: {used} requests"));
        ensure!(used > 0, "queue {index} is not used");
    }
    Ok(())
}

/// Checks that KVM has entries of 2 MiB.
fn huge(machine: &Machine<Hardware>) -> Result<()> {
    let (process, vm) = (std::process::id(), machine.vm.as_raw_fd());
    let path = format!("/sys/kernel/debug/kvm/{process}-{vm}/pages_2m");
    let entries = fs::read_to_string(&path).context(path)?;
    line(&format!("#   nested entries of 2 MiB: {}", entries.trim()));
    let entries: u64 = entries.trim().parse()?;
    let should = HUGE.length as u64 >> 21;
    ensure!(entries >= should, "{entries} entries for {should} pages");
    Ok(())
}

/// Checks that the guest got pages of zeroes, of which it read so many bytes by a system call.
fn zeroes(past_end: Option<&PastEnd>, read: u64) -> Result<()> {
    let pages = past_end.map_or(0, PastEnd::pages);
    line(&format!(
        "#   the guest got {pages} pages of zeroes; its read() returned {read} bytes"
    ));
    ensure!(pages > 0, "nothing was past an end");
    Ok(())
}

fn turns(share: &Share) -> Result<()> {
    let page = fs::read(share.path(TURNS.name))?;
    expect(
        "turns",
        page[..8].try_into().map(u64::from_le_bytes)?,
        MOST_TURNS,
    )?;
    let text = turn(MOST_TURNS - 1);
    same(TURNS.name, &page[8..8 + text.len()], text.as_bytes())
}
