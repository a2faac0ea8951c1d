// SPDX-License-Identifier: GPL-2.0

//! A server that is killed, and the next one, which takes over.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fuse_backend_rs::abi::fuse_abi::{MkdirIn, Opcode, Rename2In};
use rig::check::expect;

use crate::guest::{Guest, ROOT, Setup, UNIT, bytes, name};

pub fn mapped_ranges_outlive_the_server() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    guest.write(node, 0, &[b'a'; 8192])?;
    guest.must_map(node, 0, 0, true)?;
    let window = guest.window()?;
    expect("before", window.read::<u8>(0)?, b'a')?;

    guest.kill()?;
    expect("a page that was accessed", window.read::<u8>(0)?, b'a')?;
    expect("another", window.read::<u8>(4096)?, b'a')?;
    window.write(4096, b'b')?;

    guest.restart()?;
    expect(
        "by the next server",
        guest.read(node, 4096, 1)?,
        b"b".to_vec(),
    )?;
    guest.must_map(node, 0, UNIT, true)?;
    expect(
        "at another place",
        window.read::<u8>(UNIT as usize + 4096)?,
        b'b',
    )?;
    expect("unmapping", guest.unmap(&[(0, UNIT)])?, Ok(Vec::new()))?;
    let left = guest.mapped()?;
    expect("what is left", left, vec![(UNIT, "rw-s".to_owned(), 0)])
}

pub fn files_that_were_registered_are_closed_by_the_next_server() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let nodes = [
        guest.create(ROOT, "mapped")?,
        guest.create(ROOT, "unmapped")?,
    ];
    guest.write(nodes[0], 0, b"m")?;
    for (node, place) in nodes.into_iter().zip([0, UNIT]) {
        guest.must_map(node, 0, place, true)?;
    }
    expect("unmapping", guest.unmap(&[(UNIT, UNIT)])?, Ok(Vec::new()))?;
    guest.kill()?;
    expect("after the death", guest.registered()?, 2)?;
    guest.restart()?;
    expect("after another has started", guest.registered()?, 0)?;
    expect("what is mapped", guest.window()?.read::<u8>(0)?, b'm')?;
    // It is registered anew, and can be executed once nobody writes to it.
    guest.must_map(nodes[0], 0, 2 * UNIT, true)?;
    expect("after a map", guest.registered()?, 1)
}

pub fn inodes_are_the_same_in_the_next_server() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let directory = guest.mkdir(ROOT, "directory")?;
    let deep = guest.mkdir(directory, "a name \\ with\nall sorts of \u{e9}")?;
    let file = guest.create(deep, "file")?;
    guest.write(file, 0, b"content")?;
    let other = guest.create(ROOT, "other")?;
    guest.rename((ROOT, "other"), (directory, "moved"), 0)?;
    guest.rename((ROOT, "directory"), (ROOT, "renamed"), 0)?;
    // The guest has forgotten a directory, but not the file in it.
    guest.forget(deep, 1)?;
    guest.lookup(directory, "moved")?;
    for round in 0..3 {
        guest.kill()?;
        guest.restart()?;
        expect("the file", guest.read(file, 0, 100)?, b"content".to_vec())?;
        guest.write(other, round, b"x")?;
        expect("a name", guest.lookup(ROOT, "renamed")?, directory)?;
        expect("another", guest.lookup(directory, "moved")?, other)?;
        expect(
            "a file that is made",
            guest.create(directory, "file")? > ROOT,
            true,
        )?;
    }
    expect(
        "written",
        fs::read(guest.shared("renamed/moved"))?,
        b"xxx".to_vec(),
    )?;
    // The next server has counted lookups as the last ones had.
    guest.forget(other, 4)?;
    guest.write(other, 0, b"y")?;
    guest.forget(other, 1)?;
    let read = guest.call(Opcode::Readlink, other, &[])?;
    expect("forgotten", read, Err(libc::EBADF))
}

pub fn pending_request_is_answered_by_the_next_server() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    // The server does not see these any more.
    for round in 0..5 {
        guest.kill()?;
        let directory = format!("directory-{round}");
        let mkdir = [
            bytes(&MkdirIn {
                mode: 0o755,
                umask: 0,
            }),
            &name(&directory),
        ]
        .concat();
        guest.submit(Opcode::Mkdir, ROOT, &mkdir)?;
        guest.restart()?;
        guest.finish()?.0.ok().context("the pending request")?;
        ensure!(guest.shared(&directory).is_dir(), "it was not made");
    }
    guest.write(node, 0, b"goes on")
}

pub fn unlinked_file_is_lost_but_for_what_is_mapped() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let gone = guest.create(ROOT, "gone")?;
    let linked = guest.create(ROOT, "linked")?;
    guest.write(linked, 0, b"content")?;
    fs::hard_link(guest.shared("linked"), guest.shared("link"))?;
    expect("the other name", guest.lookup(ROOT, "link")?, linked)?;
    guest.must(Opcode::Unlink, ROOT, &name("gone"))?;
    guest.must(Opcode::Unlink, ROOT, &name("linked"))?;
    guest.write(gone, 0, b"as long as this server lives")?;
    guest.must_map(gone, 0, 0, true)?;
    let window = guest.window()?;

    guest.kill()?;
    // Something else has the names now.
    fs::write(guest.shared("gone"), "another")?;
    fs::write(guest.shared("linked"), "another")?;
    guest.restart()?;
    let reply = guest.map(gone, 0, UNIT, UNIT, false)?;
    expect("the file without a name", reply, Err(libc::EBADF))?;
    // The address space has it open.
    expect("what is mapped of it", window.read::<u8>(3)?, b'l')?;
    window.write(3, b'x')?;
    expect("what was written there", window.read::<u8>(3)?, b'x')?;
    expect(
        "the file with another",
        guest.read(linked, 0, 100)?,
        b"content".to_vec(),
    )
}

/// Requests that change names are made without a pause, while the server is killed at any
/// moment. Each succeeds, though a server may die between making it and answering it.
pub fn request_is_made_once_though_the_server_is_killed() -> Result<()> {
    const ROUNDS: u32 = 40;
    let time = Duration::from_secs(60);
    let mut guest = Guest::new(Setup::default())?;
    let start = Instant::now();
    let (mut rounds, mut requests, mut state) = (0, 0, 1_u32);
    while rounds < ROUNDS && start.elapsed() < time {
        // Which request of the next few is killed, and how long after it was submitted.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (victim, delay) = (state >> 28, u64::from((state >> 8) & 0x7ff));
        for number in 0..8 {
            let number_of_file = requests / 4;
            let (one, other) = (format!("a-{number_of_file}"), format!("b-{number_of_file}"));
            let mkdir = [
                bytes(&MkdirIn {
                    mode: 0o755,
                    umask: 0,
                }),
                &name(&one),
            ]
            .concat();
            let rename = |flags| Rename2In {
                newdir: ROOT,
                flags,
                padding: 0,
            };
            let rename = |flags| [bytes(&rename(flags)), &name(&one), &name(&other)].concat();
            let (opcode, body) = match requests % 4 {
                0 => (Opcode::Mkdir, mkdir),
                1 => (Opcode::Rename2, rename(0)),
                2 => (Opcode::Symlink, [name(&one), name("target")].concat()),
                _ => (Opcode::Rename2, rename(libc::RENAME_EXCHANGE)),
            };
            guest.submit(opcode, ROOT, &body)?;
            if number == victim {
                let until = Instant::now() + Duration::from_micros(delay);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                guest.kill()?;
                guest.restart()?;
                rounds += 1;
            }
            let (reply, _) = guest.finish()?;
            let what = format!("request {requests} after {rounds} servers");
            ensure!(reply.is_ok(), "{what}: {reply:?}: {}", guest.output());
            requests += 1;
            if requests % 4 == 0 {
                let one = fs::symlink_metadata(guest.shared(&one))?;
                let other = fs::symlink_metadata(guest.shared(&other))?;
                ensure!(one.is_dir() && other.is_symlink(), "{what}: exchanged");
            }
        }
    }
    ensure!(rounds >= 5, "only {rounds} servers were killed in {time:?}");
    Ok(())
}
