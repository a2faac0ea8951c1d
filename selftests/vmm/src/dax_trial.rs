// SPDX-License-Identifier: GPL-2.0

//! A guest that mounts a directory of its host with a DAX window, in which the file server
//! maps and unmaps: what is promised is checked at each call of the guest's program, in the
//! directory itself.

mod checks;
mod hardware;
mod second;
mod share;
mod story;
mod system;

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use rig::check::expect;
use rig::file_server::FileServer;
use rig::process::signals::SIGKILL;
use rig::tap::line;
use vmm_guest::dax::{
    APPENDED, COPY, CUT, Content, DISK, FIRST, GROWN, GUEST, HOST, HUGE, LARGE, PROGRAM, REPLY,
    REPLY_AT, SHORT, SHRINKING, Step,
};
use vmm_guest::pattern::pattern;

use self::checks::{Counts, expect_stored, shown};
use self::hardware::Hardware;
pub use self::hardware::Programs;
use self::second::Second;
pub use self::second::run as run_second;
use self::share::{Share, same};
use crate::cpus::{self, Trial};
use crate::delayed_kill::DelayedKill;
use crate::machine::{Base, Console, Machine};
use crate::miss::Miss;
use crate::report::{Form, LAST, Report};
use crate::watch::Watch;

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
    "write_from_a_mapping_is_eio_where_the_device_has_the_ram_alone",
    "access_past_the_end_that_ends_a_run_is_told_and_can_be_repeated",
    "compiler_in_the_directory_makes_the_same_program_as_on_the_host",
    "database_in_the_directory_is_right_on_both_sides",
    "killed_server_is_replaced_and_no_request_is_lost",
    "guest_reads_zeroes_past_the_end_of_a_file_that_the_host_cut",
    "vmm_hears_where_the_guest_read_past_an_end",
    "guest_reads_what_the_host_then_appended",
    LAST,
];

struct DaxTrial {
    report: Report,
    share: Share,
    second: Second,
    watch: Watch,
    before: Counts,
    kill: Option<DelayedKill>,
    /// How often the server shall be killed, and was.
    kills: u64,
    killed: u64,
    done: bool,
}

/// Runs the guest, and another one beside it; returns whether all promises are kept.
pub fn run(programs: &Programs<'_>, form: Form, console: &Console) -> bool {
    let report = Report::new(form, PROMISES);
    let made = || {
        let share = Share::new(&programs.guest.join("dax-init"))?;
        system::install(share.directory())?;
        let second = Second::start(share.directory())?;
        let server = FileServer::new(
            programs.server.clone(),
            share.directory().to_owned(),
            QUEUES,
        )?;
        let devices = |base: &Base| Hardware::first(base, server);
        let made = Machine::new(&programs.guest(FIRST), CPUS, console, devices)?;
        let watch = Watch::start(made.0.devices.memory.clone())?;
        Ok((share, second, watch, made))
    };
    match made() {
        Err(error) => report.end(&Err(error)),
        Ok((share, second, watch, made)) => {
            story::introduce(&report, &made.0);
            let trial = DaxTrial {
                report,
                share,
                second,
                watch,
                before: Counts::default(),
                kill: None,
                kills: programs.kills,
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
        // It is killed several times for one title.
        if let Some(title) = story::title(step).filter(|_| self.killed == 0 || step != Step::Kill) {
            self.report.title(title);
        }
        self.done = step == Step::Done;
        self.reached(machine, step, numbers)
    }

    /// A CPU was interrupted, as one is when the server has died.
    fn interrupted(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let daemon = &mut machine.devices.files.device.daemon;
        match self.kill.is_some() && !daemon.is_alive()? {
            true => self.replace_server(machine),
            false => Ok(()),
        }
    }

    /// What is not there is absorbed: this is something else.
    fn hole(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        let (miss, _) = Miss::last(&machine.devices.memory)?;
        bail!("KVM_RUN has failed: {miss}")
    }

    fn reset(&mut self) -> Result<()> {
        ensure!(self.done, "the guest has ended after {}", self.report.at());
        Ok(())
    }

    fn failed(&self, machine: &Machine<Hardware>) {
        for heard in self.watch.all() {
            line(&format!(
                "# heard of {} times, at first {}",
                heard.count, heard.first
            ));
        }
        if let Err(error) = checks::tell_state(machine, &self.share) {
            line(&format!("# {error:#}"));
        }
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
        let (share, report) = (&self.share, &self.report);
        let memory = machine.devices.memory.clone();
        let shown = |content: Content| shown(&memory, report, content.name);
        let says = |who, what: String| report.says(who, &what);
        let (name, result) = match step {
            Step::Mounted => (
                "guest_mounts_the_directory_with_dax",
                checks::mounted(machine, report),
            ),
            Step::Huge => ("huge_pages_of_a_file_are_huge_under_the_guest", {
                shown(HUGE)
                    .and_then(|()| share.expect_all(HUGE))
                    .and_then(|()| checks::huge(machine, report))
            }),
            Step::Read => {
                let length = HOST.length;
                says(
                    story::GUEST,
                    format!("finds all of its {length} bytes right"),
                );
                ("guest_reads_the_hosts_file_through_the_window", shown(HOST))
            }
            Step::Stored => ("host_sees_the_guests_stores_at_once", {
                let result = share.expect_all(GUEST).and_then(|()| shown(GUEST));
                let length = GUEST.length;
                says(
                    story::HOST,
                    format!("finds {length} bytes by read(), with no fsync()"),
                );
                share.write(REPLY, 0, REPLY_AT as u64)?;
                result
            }),
            Step::Private => {
                let length = REPLY.length;
                says(
                    story::HOST,
                    format!("writes {length} bytes at {REPLY_AT:#x}"),
                );
                says(
                    story::GUEST,
                    format!("sees the {length} bytes in its mapping, at once"),
                );
                (
                    "guest_sees_the_hosts_writes_at_once_and_private_mappings_change_nothing",
                    expect_stored(share, GUEST.length).map(drop),
                )
            }
            Step::Appended => ("append_arrives", {
                expect_stored(share, GUEST.length).and_then(|rest| {
                    let should = pattern(APPENDED.file, 0, APPENDED.length);
                    same("what follows in guest", &rest, &should)?;
                    says(story::HOST, format!("finds {} bytes more", rest.len()));
                    Ok(())
                })
            }),
            Step::Cut => {
                let rest = expect_stored(share, CUT)?;
                expect("the bytes that follow in guest", rest.len(), 0)?;
                says(story::HOST, format!("finds {CUT} bytes,"));
                return Ok(true);
            }
            Step::Lengthened => ("truncation_by_the_guest_arrives_both_ways", {
                expect_stored(share, CUT).and_then(|rest| {
                    let zeroes = vec![0; GUEST.length - CUT];
                    same("what follows in guest", &rest, &zeroes)?;
                    says(
                        "",
                        format!("and then {}, zeroes where it was cut", GUEST.length),
                    );
                    Ok(())
                })
            }),
            Step::Named => ("created_renamed_and_removed_names_arrive", {
                says(
                    story::HOST,
                    "finds the names that the guest has left".to_owned(),
                );
                share.expect_names()
            }),
            Step::Executed => (
                "program_is_executed_from_the_directory",
                checks::shown(&memory, report, PROGRAM),
            ),
            Step::Large => {
                self.before = Counts::of(machine)?;
                return Ok(true);
            }
            Step::LargeRead => {
                let result = self.large_was_read(machine, numbers);
                self.report
                    .report("file_larger_than_the_window_is_read", result);
                let result = self.vmm_was_silent(machine);
                ("vmm_hears_nothing_of_maps_and_unmaps", result)
            }
            Step::Queues => ("each_cpu_has_a_queue", checks::queues(machine, report)),
            Step::Copied => ("append_from_a_mapping_arrives", {
                let length = COPY.length;
                says(
                    story::SERVER,
                    format!("writes {length} bytes that it reads in the window"),
                );
                share.expect_all(COPY)
            }),
            Step::FromDisk => ("disk_reads_into_a_mapping", {
                let length = DISK.length;
                says(
                    story::HOST,
                    format!("finds {length} bytes of the disk in the file"),
                );
                share.expect_all(DISK).and_then(|()| shown(DISK))
            }),
            Step::Turns => {
                let result = checks::turns(share, report);
                let output = self.second.wait();
                self.report
                    .report("two_guests_share_a_file_at_once", result);
                let output = output.map_err(|error| format!("{error:#}"));
                let result = self.other_write_failed(&output);
                self.report.report(
                    "write_from_a_mapping_is_eio_where_the_device_has_the_ram_alone",
                    result,
                );
                let result = self.other_run_ended(&output);
                (
                    "access_past_the_end_that_ends_a_run_is_told_and_can_be_repeated",
                    result,
                )
            }
            Step::Compiled => (
                "compiler_in_the_directory_makes_the_same_program_as_on_the_host",
                system::check_program(share.directory()).map(|length| {
                    let what = format!("makes the same program, of {length} bytes");
                    says(story::HOST, what);
                }),
            ),
            Step::Filled => (
                "database_in_the_directory_is_right_on_both_sides",
                system::check_database(share.directory()).map(|length| {
                    let what = format!("finds the database in order, of {length} bytes");
                    says(story::HOST, what);
                }),
            ),
            Step::Kill => {
                // The guest may have been faster, on a machine with much to do.
                self.replace_server(machine)?;
                let daemon = &machine.devices.files.device.daemon;
                self.kill = Some(DelayedKill::new(daemon)?);
                return Ok(true);
            }
            Step::Restarted => ("killed_server_is_replaced_and_no_request_is_lost", {
                let [files, _] = numbers;
                self.replace_server(machine)?;
                let (share, report) = (&self.share, &self.report);
                let says = |who, what: String| report.says(who, &what);
                says(
                    story::GUEST,
                    format!("has made {files} files meanwhile, without an error"),
                );
                expect("killed servers", self.killed, self.kills)
                    .and_then(|()| share.expect_made(files))
            }),
            Step::Shrink | Step::ShrinkOther => {
                let file = SHRINKING[usize::from(step == Step::ShrinkOther)];
                share::cut(share.directory(), file)?;
                let (name, length) = (file.name, file.length);
                says(
                    story::HOST,
                    format!("cuts {name}, from {length} bytes to {SHORT}"),
                );
                return Ok(true);
            }
            Step::Shrunk => {
                let [read, _] = numbers;
                says(
                    story::GUEST,
                    format!("reads zeroes past their ends, {read} of them by a read()"),
                );
                let result = share::grow(share.directory(), GROWN[0])
                    .and_then(|()| share::grow(share.directory(), GROWN[1]));
                self.report.report(
                    "guest_reads_zeroes_past_the_end_of_a_file_that_the_host_cut",
                    result,
                );
                let result = self.past_ends();
                ("vmm_hears_where_the_guest_read_past_an_end", result)
            }
            Step::Grown => ("guest_reads_what_the_host_then_appended", {
                says(story::GUEST, "reads what the host has appended".to_owned());
                shown(GROWN[0]).and_then(|()| shown(GROWN[1]))
            }),
            Step::Done => return Ok(true),
            Step::Failed => return Ok(false),
            Step::Lost => bail!("a step of the other guest"),
        };
        self.report.report(name, result);
        Ok(true)
    }

    /// Waits for the death of a server that shall be killed, if there is one, and starts another.
    fn replace_server(&mut self, machine: &mut Machine<Hardware>) -> Result<()> {
        if self.kill.is_none() {
            return Ok(());
        }
        let files = &mut machine.devices.files.device;
        let signal = files.daemon.wait()?.signal();
        self.kill = None;
        expect("the server died of", signal, Some(SIGKILL))?;
        files.restart(&machine.ram)?;
        self.killed += 1;
        let (killed, next) = (self.killed, files.daemon.id());
        let what = format!("is killed, number {killed}; the next one (pid {next}) takes over");
        self.report.says(story::SERVER, &what);
        Ok(())
    }

    fn large_was_read(&self, machine: &Machine<Hardware>, numbers: [u64; 2]) -> Result<()> {
        let [chunks, length] = numbers;
        let what = format!(
            "has compared {chunks} times {length} bytes of {} MiB",
            LARGE.length >> 20
        );
        self.report.says(story::GUEST, &what);
        shown(&machine.devices.memory, &self.report, LARGE.name)?;
        let now = Counts::of(machine)?;
        let revoked = now.revocations - self.before.revocations;
        let faults = now.faults - self.before.faults;
        let what = format!("has taken {revoked} ranges from the window, for others");
        self.report.says(story::SERVER, &what);
        let what = format!("had {faults} page faults in it");
        self.report.says(story::KERNEL, &what);
        ensure!(revoked > 0, "nothing was unmapped");
        Ok(())
    }

    fn vmm_was_silent(&self, machine: &Machine<Hardware>) -> Result<()> {
        let now = Counts::of(machine)?;
        let talks = now.talks - self.before.talks;
        let accesses = now.accesses - self.before.accesses;
        let what = format!(
            "has sent {talks} messages, and got none; the guest's driver called it {accesses} times"
        );
        self.report.says(story::VMM, &what);
        expect("messages of the VMM's", talks, 0)?;
        expect("accesses to the device in the VMM", accesses, 0)
    }

    /// The second VMM has printed that its guest could not write what its device cannot reach.
    fn other_write_failed(&mut self, output: &Result<String, String>) -> Result<()> {
        self.report
            .title("The other guest passes a mapping to write(), too.");
        let line = second::printed(output, second::NOT_WRITTEN)?;
        self.report.says(story::OTHER, line);
        Ok(())
    }

    /// It has printed where the access was that ended a run.
    fn other_run_ended(&mut self, output: &Result<String, String>) -> Result<()> {
        self.report
            .title("The host cuts a file of the other guest, whose VMM wants to know.");
        let line = second::printed(output, "past-end")?;
        self.report.says(story::OTHER, "KVM_RUN fails, at:");
        self.report.says("", line);
        let what = "its VMM makes the file longer, and the guest goes on";
        self.report.says(story::OTHER, what);
        Ok(())
    }

    /// The VMM has heard of accesses in the window, and of nothing else.
    fn past_ends(&self) -> Result<()> {
        let names = [SHRINKING[0].name, SHRINKING[1].name];
        for heard in self.watch.past_end(names)? {
            let what = format!("hears of {}", heard.first);
            self.report.says(story::VMM, &what);
            let what = format!("and of {} accesses to the file", heard.count);
            self.report.says("", &what);
            expect("the access", &*heard.first.access, "r--")?;
            let offset = heard.first.page.map_or(0, |page| page.offset);
            ensure!(
                (SHORT as u64..SHRINKING[0].length as u64).contains(&offset),
                "the page at {offset:#x} is not past the end"
            );
        }
        Ok(())
    }
}
