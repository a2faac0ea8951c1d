// SPDX-License-Identifier: GPL-2.0

//! The guest's program in the trial of the DAX window: it mounts the host's directory, works
//! with the files in it, and calls the VMM after each step. It is also a program in that
//! directory.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::{Command, exit};
use std::sync::atomic::Ordering;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use vmm_guest::dax::*;
use vmm_guest::mapping::{Mapping, Stores};
use vmm_guest::pattern::{difference, pattern};
use vmm_guest::ports::{Vmm, init, load};
use vmm_guest::share::{expect, mapped, mount_share, path, same};
use vmm_guest::work;

/// The longest wait for the other guest, which has much to do before: as long as the VMM's for
/// this one, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(450);

/// How often a guest looks for the other one's turn before it sleeps in between.
const SHORT_WAIT: u32 = 50;

/// How long files are made while the server is killed, each time.
const KILLING: Duration = Duration::from_millis(1200);

/// How many are made at least, each time.
const LEAST_MADE: u64 = 5;

/// How many chunks of the large file are read at random.
const RANDOM: usize = 100;

fn main() {
    if let Err(error) = work::become_another(work::arguments()) {
        eprintln!("{error:#}");
        exit(1);
    }
    if env::args().nth(1).as_deref() == Some(ARGUMENT) {
        let called = Vmm::new().and_then(|vmm| vmm.call(Step::Executed, [0, 0]));
        exit(called.map_or(1, |()| ANSWER));
    }
    match env::var(ROLE).as_deref() {
        Ok(SECOND) => init(second, Step::Failed),
        _ => init(first, Step::Failed),
    }
}

fn first(vmm: &Vmm) -> Result<()> {
    load("virtio_blk.ko.xz")?;
    mount_share()?;
    vmm.call(Step::Mounted, [0, 0])?;
    huge(vmm)?;
    read(vmm)?;
    store(vmm)?;
    append(vmm)?;
    names()?;
    vmm.call(Step::Named, [0, 0])?;
    execute()?;
    large(vmm)?;
    queues()?;
    vmm.call(Step::Queues, [0, 0])?;
    copy()?;
    vmm.call(Step::Copied, [0, 0])?;
    from_disk(vmm)?;
    take_turns(0)?;
    let greeting = fs::read_to_string(path(GREETING))?;
    ensure!(
        greeting == GREETING,
        "the other guest's file has {greeting:?}"
    );
    vmm.call(Step::Turns, [0, 0])?;
    compile()?;
    vmm.call(Step::Compiled, [0, 0])?;
    fill()?;
    vmm.call(Step::Filled, [0, 0])?;
    outlive_the_server(vmm)?;
    grown(vmm, &shrink(vmm)?)?;
    vmm.call(Step::Done, [0, 0])
}

/// The other guest.
fn second(vmm: &Vmm) -> Result<()> {
    mount_share()?;
    vmm.call(Step::Mounted, [0, 0])?;
    fs::write(path(GREETING), GREETING)?;
    vmm.call(Step::Lost, [lose()?, 0])?;
    take_turns(1)?;
    end_of_a_run(vmm)?;
    vmm.call(Step::Done, [0, 0])
}

/// Opens a file for reading and writing, which may not exist yet.
fn open(name: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
        .open(path(name))
        .with_context(|| format!("cannot open {name}"))
}

fn read(vmm: &Vmm) -> Result<()> {
    let bytes = fs::read(path(HOST.name))?;
    same(
        "read of host",
        0,
        &bytes,
        &pattern(HOST.file, 0, HOST.length),
    )?;
    let mapping = mapped(HOST, Stores::None)?;
    expect(HOST, &mapping, 0..HOST.length)?;
    expect(HOST, &mapped(HOST, Stores::Private)?, 0..HOST.length)?;
    vmm.call(Step::Read, [0, 0])
}

fn store(vmm: &Vmm) -> Result<()> {
    open(GUEST.name)?.set_len(GUEST.length as u64)?;
    let mapping = mapped(GUEST, Stores::Shared)?;
    mapping.put(0, &pattern(GUEST.file, 0, GUEST.length))?;
    vmm.call(Step::Stored, [0, 0])?;

    let reply = mapping.bytes(REPLY_AT..REPLY_AT + REPLY.length)?;
    same("reply", 0, &reply, &pattern(REPLY.file, 0, REPLY.length))?;
    let private = mapped(GUEST, Stores::Private)?;
    let text = b"for nobody else";
    private.put(4090, text)?;
    same(
        "private mapping",
        4090,
        &private.bytes(4090..4090 + text.len())?,
        text,
    )?;
    expect(GUEST, &mapping, 0..REPLY_AT)?;
    vmm.call(Step::Private, [0, 0])
}

fn append(vmm: &Vmm) -> Result<()> {
    let appended = pattern(APPENDED.file, 0, APPENDED.length);
    let mut file = OpenOptions::new().append(true).open(path(GUEST.name))?;
    file.write_all(&appended)?;
    vmm.call(Step::Appended, [0, 0])?;

    let file = open(GUEST.name)?;
    file.set_len(CUT as u64)?;
    vmm.call(Step::Cut, [0, 0])?;
    file.set_len(GUEST.length as u64)?;
    let mapping = mapped(GUEST, Stores::None)?;
    expect(GUEST, &mapping, 0..REPLY_AT)?;
    let rest = mapping.bytes(CUT..GUEST.length)?;
    same("the longer file", CUT, &rest, &vec![0; rest.len()])?;
    vmm.call(Step::Lengthened, [0, 0])
}

fn names() -> Result<()> {
    let [old, new, removed] = NAMES.map(path);
    let directory = old.parent().context("a name without a directory")?;
    fs::create_dir(directory)?;
    let mut file = File::create(&old)?;
    file.write_all(NAMED.as_bytes())?;
    file.sync_all()?;
    fs::rename(&old, &new)?;
    File::create(&removed)?;
    fs::remove_file(&removed)?;
    File::open(directory)?.sync_all()?;
    ensure!(!old.exists() && !removed.exists(), "a name is still there");
    let text = fs::read_to_string(&new)?;
    ensure!(text == NAMED, "{} has {text:?}", new.display());
    Ok(())
}

fn execute() -> Result<()> {
    let status = Command::new(path(PROGRAM))
        .arg(ARGUMENT)
        .status()
        .context("exec")?;
    ensure!(status.code() == Some(ANSWER), "the program ended: {status}");
    Ok(())
}

fn large(vmm: &Vmm) -> Result<()> {
    let mapping = mapped(LARGE, Stores::None)?;
    vmm.call(Step::Large, [0, 0])?;
    let mut count = 0;
    let mut compare = |start: usize| {
        count += 1;
        expect(LARGE, &mapping, start..start + CHUNK)
    };
    chunks().try_for_each(&mut compare)?;
    // Steps that have no common divisor with the number of chunks visit them in turn.
    let all: Vec<_> = chunks().collect();
    for index in 0..RANDOM {
        compare(all[index * 151 % all.len()])?;
    }
    vmm.call(Step::LargeRead, [count, CHUNK as u64])
}

/// Stores first: a mapping for reading has no huge entries under a guest, nor has a place that
/// has had single ones.
fn huge(vmm: &Vmm) -> Result<()> {
    let mapping = mapped(HUGE, Stores::Shared)?;
    for start in (0..HUGE.length).step_by(2 << 20) {
        mapping.put(start, &pattern(HUGE.file, start as u64, 8))?;
    }
    expect(HUGE, &mapping, 0..HUGE.length)?;
    vmm.call(Step::Huge, [0, 0])
}

/// Looks up names on each CPU, which has a queue of its own.
fn queues() -> Result<()> {
    for cpu in 0..2 {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).with_context(|| format!("CPU {cpu}"))?;
        for number in 0..8 {
            let name = path(&format!("nothing-{cpu}-{number}"));
            ensure!(!name.exists(), "{} exists", name.display());
        }
    }
    let mut all = CpuSet::new();
    all.set(0);
    all.set(1);
    Ok(sched_setaffinity(None, &all)?)
}

/// Makes a file longer by what is in a mapping of another one.
fn copy() -> Result<()> {
    let mapping = mapped(HOST, Stores::None)?;
    let file = open(COPY.name)?;
    let mut at = 0;
    while at < COPY.length {
        let written = mapping.write_to(at..COPY.length, &file, at as u64)?;
        ensure!(written > 0, "write wrote nothing");
        at += written;
    }
    Ok(())
}

/// Tries that where the device does not reach the mapping. Returns the errno.
fn lose() -> Result<u64> {
    let mapping = mapped(HOST, Stores::None)?;
    let file = open(LOST)?;
    let Err(error) = mapping.write_to(0..COPY.length, &file, 0) else {
        bail!("the device has what it does not reach");
    };
    let errno = error.downcast::<io::Error>()?.raw_os_error();
    Ok(errno.context("no errno")? as u64)
}

fn from_disk(vmm: &Vmm) -> Result<()> {
    open(DISK.name)?.set_len(DISK.length as u64)?;
    let mapping = mapped(DISK, Stores::Shared)?;
    let disk = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open("/dev/vda")
        .context("/dev/vda")?;
    let read = mapping.read_from(0..DISK.length, &disk, 0)?;
    ensure!(read == DISK.length, "read {read} bytes of the disk");
    expect(DISK, &mapping, 0..DISK.length)?;
    vmm.call(Step::FromDisk, [0, 0])
}

/// Has the compiler in the directory make a program, and executes that.
fn compile() -> Result<()> {
    let system = path(work::SYSTEM);
    fs::write(system.join(work::WORK).join("program.c"), work::SOURCE)?;
    work::run(&system, work::COMPILER, &work::COMPILE)?;
    let status = Command::new(system.join(work::WORK).join("program")).status();
    let code = status.context("the program")?.code();
    ensure!(code == Some(work::CODE), "the program ended with {code:?}");
    Ok(())
}

/// Has the interpreter in the directory fill a database, and read it.
fn fill() -> Result<()> {
    let system = path(work::SYSTEM);
    // In one process, of which the start takes longest.
    let text = [work::FILL, work::CHECK].concat();
    let arguments = [&work::OPTIONS[..], &[&text]].concat();
    let output = work::run(&system, work::INTERPRETER, &arguments)?;
    let read = String::from_utf8(output.stdout)?;
    ensure!(read == work::CHECKED, "the database has {read}");
    Ok(())
}

/// Writes the turns of which the number is even, or odd, and checks the others.
fn take_turns(parity: u64) -> Result<()> {
    let mapping = mapped(TURNS, Stores::Shared)?;
    let word = mapping.word(0)?;
    let start = Instant::now();
    let mut looks = 0;
    for number in (0..MOST_TURNS).filter(|number| number % 2 == parity) {
        while word.load(Ordering::Acquire) != number {
            ensure!(
                start.elapsed() < PATIENCE,
                "the other guest is silent at {number}"
            );
            // The other one may still boot, and wants a CPU for that.
            looks += 1;
            match looks < SHORT_WAIT {
                true => yield_now(),
                false => sleep(Duration::from_millis(1)),
            }
        }
        looks = 0;
        if number > 0 {
            let text = turn(number - 1);
            same(
                "turns",
                8,
                &mapping.bytes(8..8 + text.len())?,
                text.as_bytes(),
            )?;
        }
        mapping.put(8, turn(number).as_bytes())?;
        word.store(number + 1, Ordering::Release);
    }
    while word.load(Ordering::Acquire) != MOST_TURNS {
        ensure!(
            start.elapsed() < PATIENCE,
            "the other guest is silent at the end"
        );
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Makes files, one after another, and reads what is mapped, while the server is killed and
/// another one starts.
fn outlive_the_server(vmm: &Vmm) -> Result<()> {
    let mapping = mapped(HOST, Stores::None)?;
    expect(HOST, &mapping, 0..CHUNK)?;
    fs::create_dir(path(MADE))?;
    let mut number = 0;
    let all: u64 = env::var(KILLS).context(KILLS)?.parse()?;
    for kills in 1..=all {
        vmm.call(Step::Kill, [0, 0])?;
        let start = Instant::now();
        while start.elapsed() < KILLING || number < kills * LEAST_MADE {
            make(number).with_context(|| format!("file {number}"))?;
            expect(HOST, &mapping, 0..CHUNK)?;
            number += 1;
        }
    }
    vmm.call(Step::Restarted, [number, 0])
}

/// Makes a file under other names, and removes those.
fn make(number: u64) -> Result<()> {
    let new = path(MADE).join("new");
    let mut file = File::create_new(&new).context("create")?;
    file.write_all(made(number).as_bytes()).context("write")?;
    file.sync_all().context("fsync")?;
    let next = path(MADE).join("next");
    fs::rename(&new, &next).context("rename")?;
    fs::hard_link(&next, path(&made(number))).context("link")?;
    fs::remove_file(&next).context("unlink")
}

/// The host cuts two files while they are mapped. What was there reads as zeroes: in the
/// program, and, of the other file, in the kernel. Returns the mappings.
fn shrink(vmm: &Vmm) -> Result<[Mapping; 2]> {
    let [one, other, _] = SHRINKING;
    let mappings = [mapped(one, Stores::None)?, mapped(other, Stores::None)?];
    expect(one, &mappings[0], 0..one.length)?;
    expect(other, &mappings[1], 0..other.length)?;

    vmm.call(Step::Shrink, [0, 0])?;
    let mut should = pattern(one.file, 0, SHORT);
    should.resize(one.length, 0);
    same(one.name, 0, &mappings[0].bytes(0..one.length)?, &should)?;

    let file = File::open(path(other.name))?;
    vmm.call(Step::ShrinkOther, [0, 0])?;
    let mut bytes = vec![0xff; 4096];
    let read = file.read_at(&mut bytes, (other.length - 4096) as u64)?;
    same(
        other.name,
        other.length - 4096,
        &bytes[..read],
        &vec![0; read],
    )?;
    let mut should = pattern(other.file, 0, SHORT);
    should.resize(other.length, 0);
    same(other.name, 0, &mappings[1].bytes(0..other.length)?, &should)?;
    vmm.call(Step::Shrunk, [read as u64, 0])?;
    Ok(mappings)
}

/// The host has made the files longer again. They have their new content a moment later, where
/// they were mapped all the time.
fn grown(vmm: &Vmm, mappings: &[Mapping; 2]) -> Result<()> {
    let start = Instant::now();
    for ((old, content), mapping) in SHRINKING.into_iter().zip(GROWN).zip(mappings) {
        let should = pattern(content.file, REGROWN as u64, content.length - REGROWN);
        let new = || mapping.bytes(REGROWN..content.length);
        while difference(&new()?, &should).is_some() && start.elapsed() < PATIENCE {
            sleep(Duration::from_millis(1));
        }
        same(content.name, REGROWN, &new()?, &should)?;
        expect(old, mapping, 0..SHORT)?;
    }
    vmm.call(Step::Grown, [0, 0])
}

/// The host cuts a file, and the access past its end ends a run of this CPU. The VMM makes the
/// file longer, and the access is repeated.
fn end_of_a_run(vmm: &Vmm) -> Result<()> {
    let (old, content) = (SHRINKING[2], GROWN[2]);
    let mapping = mapped(old, Stores::None)?;
    expect(old, &mapping, 0..old.length)?;
    vmm.call(Step::Shrink, [0, 0])?;
    // No copy may begin with what the cut file has.
    let past_end = SHORT.next_multiple_of(4096)..content.length;
    expect(content, &mapping, past_end)?;
    expect(content, &mapping, REGROWN..content.length)?;
    expect(old, &mapping, 0..SHORT)
}
