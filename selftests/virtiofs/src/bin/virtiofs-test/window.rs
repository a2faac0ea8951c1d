// SPDX-License-Identifier: GPL-2.0

//! What requests for the window come to, in the address space.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use anyhow::{Result, ensure};
use rig::check::expect;

use crate::guest::{Guest, ROOT, Setup, UNIT, WINDOW};
use crate::jobs::Jobs;

/// Bytes that tell where in a file they are.
fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at / 512 + at) as u8).collect()
}

pub fn mapped_file_is_seen_by_the_guest() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let content = pattern(3 * UNIT);
    fs::write(guest.shared("file"), &content)?;
    let node = guest.lookup(ROOT, "file")?;
    let window = guest.window()?;
    // The last unit first, at another place.
    guest.must_map(node, 2 * UNIT, 0, false)?;
    guest.must_map(node, 0, 5 * UNIT, false)?;
    let mut seen = vec![0; UNIT as usize];
    window.read_slice(0, &mut seen)?;
    ensure!(seen == content[2 * UNIT as usize..], "the last unit");
    window.read_slice(5 * UNIT as usize, &mut seen)?;
    ensure!(seen == content[..UNIT as usize], "the first unit");
    let mapped = [(0, "r--s", 2 * UNIT), (5 * UNIT, "r--s", 0)];
    let mapped = mapped.map(|(place, prot, offset)| (place, prot.to_owned(), offset));
    expect("what is mapped", guest.mapped()?, mapped.to_vec())?;
    // What the host writes is seen at once.
    File::options()
        .write(true)
        .open(guest.shared("file"))?
        .write_all_at(b"new", 0)?;
    let mut new = [0; 3];
    window.read_slice(5 * UNIT as usize, &mut new)?;
    expect("the host's bytes", new, *b"new")
}

pub fn mapping_again_for_writing_makes_a_place_writable() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    guest.write(node, 0, &[b'a'; 4096])?;
    guest.must_map(node, 0, UNIT, false)?;
    let window = guest.window()?;
    expect("before", window.read::<u8>(UNIT as usize)?, b'a')?;
    guest.must_map(node, 0, UNIT, true)?;
    expect(
        "what is mapped",
        guest.mapped()?,
        vec![(UNIT, "rw-s".to_owned(), 0)],
    )?;
    window.write(UNIT as usize, b'b')?;
    expect("the file", fs::read(guest.shared("file"))?[0], b'b')?;
    expect("by a request", guest.read(node, 0, 1)?, b"b".to_vec())?;
    expect("registered", guest.registered()?, 1)
}

pub fn map_past_the_end_shows_what_is_appended() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    guest.write(node, 0, &[b'a'; 100])?;
    guest.must_map(node, 0, 0, true)?;
    guest.must_map(node, 10 * UNIT, UNIT, false)?;
    let window = guest.window()?;
    expect("the rest of the page", window.read::<u8>(100)?, 0)?;
    guest.write(node, 100, &[b'b'; 60_000])?;
    expect("what was appended", window.read::<u8>(50_000)?, b'b')?;
    guest.write(node, 10 * UNIT + 5, b"c")?;
    expect("far from it", window.read::<u8>(UNIT as usize + 5)?, b'c')
}

pub fn removing_many_is_one_request() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    for unit in 0..6 {
        guest.must_map(node, 0, unit * UNIT, false)?;
    }
    let places = [0, 2, 4].map(|unit| (unit * UNIT, UNIT));
    // One of them is not in the window: none is removed.
    let more = [&places[..], &[(8 * UNIT, UNIT)]].concat();
    expect("outside", guest.unmap(&more)?, Err(libc::EINVAL))?;
    expect("how many are left", guest.mapped()?.len(), 6)?;
    expect("inside", guest.unmap(&places)?, Ok(Vec::new()))?;
    let left: Vec<_> = guest
        .mapped()?
        .into_iter()
        .map(|one| one.0 / UNIT)
        .collect();
    expect("which are left", left, vec![1, 3, 5])
}

pub fn map_outside_of_the_window_is_einval() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let node = guest.create(ROOT, "file")?;
    let length = WINDOW.end - WINDOW.start;
    for (offset, place, length) in [
        (0, length, UNIT),
        (0, length - UNIT, 2 * UNIT),
        (0, 0, length + UNIT),
        (0, 0, u64::MAX),
        (0, u64::MAX - 4095, UNIT),
        (0, u64::MAX - UNIT + 1, UNIT),
        (0, 0, 0),
        (0, 1, UNIT),
        (0, 0, 1),
        (1, 0, UNIT),
    ] {
        let reply = guest.map(node, offset, place, length, true)?;
        expect(
            &format!("{offset:#x} {place:#x} {length:#x}"),
            reply,
            Err(libc::EINVAL),
        )?;
    }
    for offset in [u64::MAX - 4095, 1 << 63] {
        let reply = guest.map(node, offset, 0, UNIT, true)?;
        ensure!(reply.is_err(), "a file has no such offset: {offset:#x}");
    }
    expect("what is mapped", guest.mapped()?, vec![])?;
    guest.must_map(node, 0, 0, true)
}

pub fn map_of_a_file_that_was_not_looked_up_is_ebadf() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    fs::write(guest.shared("file"), "secret")?;
    let known = guest.create(ROOT, "other")?;
    for node in [0, 2, known + 1, u64::MAX] {
        let reply = guest.map(node, 0, 0, UNIT, false)?;
        expect(&format!("node {node}"), reply, Err(libc::EBADF))?;
    }
    let node = guest.lookup(ROOT, "file")?;
    guest.must_map(node, 0, 0, false)?;
    // Nor one that it has forgotten.
    guest.forget(node, 1)?;
    expect(
        "forgotten",
        guest.map(node, 0, 0, UNIT, false)?,
        Err(libc::EBADF),
    )?;
    let directory = guest.mkdir(ROOT, "directory")?;
    expect(
        "directory",
        guest.map(directory, 0, 0, UNIT, false)?,
        Err(libc::ENODEV),
    )?;
    std::os::unix::fs::symlink("file", guest.shared("link"))?;
    let link = guest.lookup(ROOT, "link")?;
    expect(
        "link",
        guest.map(link, 0, 0, UNIT, false)?,
        Err(libc::EBADF),
    )
}

pub fn map_for_writing_in_a_readonly_directory_is_erofs() -> Result<()> {
    let mut guest = Guest::new(Setup {
        readonly: true,
        ..Setup::default()
    })?;
    fs::write(guest.shared("file"), [b'a'; 4096])?;
    let node = guest.lookup(ROOT, "file")?;
    expect(
        "writing",
        guest.map(node, 0, 0, UNIT, true)?,
        Err(libc::EROFS),
    )?;
    expect("what is mapped", guest.mapped()?, vec![])?;
    guest.must_map(node, 0, 0, false)?;
    // Nor by making writable what is mapped.
    expect(
        "again",
        guest.map(node, 0, 0, UNIT, true)?,
        Err(libc::EROFS),
    )?;
    expect(
        "what is mapped",
        guest.mapped()?,
        vec![(0, "r--s".to_owned(), 0)],
    )?;
    expect("its content", guest.window()?.read::<u8>(0)?, b'a')
}

pub fn map_without_a_window_is_enosys() -> Result<()> {
    let mut guest = Guest::new(Setup {
        no_window: true,
        ..Setup::default()
    })?;
    let node = guest.create(ROOT, "file")?;
    expect(
        "map",
        guest.map(node, 0, 0, UNIT, false)?,
        Err(libc::ENOSYS),
    )?;
    expect("unmap", guest.unmap(&[(0, UNIT)])?, Err(libc::ENOSYS))?;
    guest.write(node, 0, b"content")?;
    expect("reading", guest.read(node, 0, 100)?, b"content".to_vec())
}

pub fn map_of_a_registered_file_needs_no_worker() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    fs::set_permissions(guest.shared(""), fs::Permissions::from_mode(0o777))?;
    let node = guest.create(ROOT, "file")?;
    File::options()
        .write(true)
        .open(guest.shared("file"))?
        .set_len(16 * UNIT)?;
    let jobs = Jobs::count_from_now()?;
    guest.must_map(node, 0, 0, true)?;
    ensure!(jobs.count()? > 0, "no worker registers the file");

    // It is the same for a thread that has made a file for another user.
    for user in [0, 1000] {
        guest.user = (user, user);
        guest.create(ROOT, &format!("file-of-{user}"))?;
        let jobs = Jobs::count_from_now()?;
        for unit in 0..16 {
            guest.must_map(node, unit * UNIT, unit % 8 * UNIT, unit % 2 == 0)?;
        }
        expect(&format!("jobs for user {user}"), jobs.count()?, 0)?;
    }
    Ok(())
}

pub fn registered_files_do_not_leak() -> Result<()> {
    // More than a process may have open by default.
    const FILES: usize = 1200;
    let mut guest = Guest::new(Setup::default())?;
    for file in 0..FILES {
        let node = guest.create(ROOT, &format!("file-{file}"))?;
        guest.must_map(node, 0, file as u64 % 7 * UNIT, file % 2 == 0)?;
    }
    let most = guest.registered()?;
    ensure!((200..=256).contains(&most), "{most} files are registered");
    guest.unmount()?;
    expect("registered", guest.registered()?, 0)
}

pub fn file_is_closed_when_the_guest_forgets_it() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let before = guest.open_files()?;
    let node = guest.create(ROOT, "file")?;
    guest.lookup(ROOT, "file")?;
    guest.must_map(node, 0, 0, true)?;
    ensure!(guest.open_files()? > before, "the file is not open");
    // It has been looked up twice.
    guest.forget(node, 1)?;
    expect("registered", guest.registered()?, 1)?;
    guest.forget(node, 1)?;
    expect("registered in the end", guest.registered()?, 0)?;
    expect("open files", guest.open_files()?, before)
}

pub fn unmounting_leaves_nothing_in_the_window() -> Result<()> {
    let mut guest = Guest::new(Setup::default())?;
    let before = guest.open_files()?;
    let node = guest.create(ROOT, "file")?;
    guest.must_map(node, 0, 0, true)?;
    // A guest's kernel complains of a shorter reply than a header.
    expect("the length of the reply", guest.unmount()?, 16)?;
    expect("what is mapped", guest.mapped()?, vec![])?;
    expect("open files", guest.open_files()?, before)?;
    guest.mount()?;
    expect(
        "forgotten",
        guest.map(node, 0, 0, UNIT, false)?,
        Err(libc::EBADF),
    )?;
    expect("the same inode", guest.lookup(ROOT, "file")?, node)?;
    guest.must_map(node, 0, 0, true)?;
    // A guest that is reset mounts it again without having unmounted it.
    guest.mount()?;
    expect("what is mapped", guest.mapped()?, vec![])
}
