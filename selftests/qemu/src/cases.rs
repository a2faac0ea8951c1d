// SPDX-License-Identifier: GPL-2.0

//! The cases: one guest, in the order in which they run.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use address_space::AddressSpace;
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::cases::Case;
use rig::check::expect;
use rig::memfd;
use rig::role::Process;
use rig::show::Show;
use vmm_guest::mailbox::Request;

use crate::composer::{Composer, Order, PAGE, everybody_may_read};
use crate::machine::{DEVICE, Machine, RAM};
use crate::spaces::Spaces;

/// Where the composer composes, in the first device's memory.
const AT: u64 = 0x1_0000;
/// How often what is there is replaced.
const REPLACES: u64 = 200;

macro_rules! cases {
    ($($name:ident: $title:literal),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case<fn(&mut Trial, Show) -> Result<()>>] = &[
            $( Case { name: stringify!($name), title: $title, run: $name } ),*
        ];
    };
}

cases! {
    qemu_boots_a_guest_whose_ram_is_a_path:
        "An unmodified QEMU boots a guest whose RAM is an address space, named by its path.",
    guest_ram_is_in_the_files_that_are_mapped: "The guest's RAM is what was mapped there.",
    another_process_composes_what_the_device_has:
        "A process that has only the path puts something into the guest's device.",
    guest_always_has_what_is_mapped_now: "That process replaces it while the guest looks.",
    what_is_taken_away_is_gone: "It takes it away.",
    who_may_only_read_the_file_changes_nothing: "A user who may read the file tries to.",
    space_without_a_name_serves_by_its_path_in_proc:
        "A second device's memory has no name: QEMU got it as a path in /proc.",
    unlinked_space_stays_while_the_guest_has_it: "The first device's memory loses its name.",
    nothing_is_left_when_qemu_has_ended: "The guest ends.",
}

/// What the cases have in common.
pub struct Trial {
    spaces: Option<Spaces>,
    /// What the guest's RAM consists of.
    ram: [File; 2],
    nameless: AddressSpace,
    machine: Machine,
    composer: Option<Process<Composer>>,
}

impl Trial {
    /// Mounts address spaces, composes the guest's RAM, and starts QEMU.
    pub fn new(qemu: &Path, guest: &Path) -> Result<Trial> {
        let spaces = Spaces::mount()?;
        let half = RAM / 2;
        let ram = [memfd::sparse("low", half)?, memfd::sparse("high", half)?];
        let space = spaces.create("ram", RAM)?;
        space.map(&ram[0]).at(0).prot(READ_WRITE).commit()?;
        space.map(&ram[1]).at(half).prot(READ_WRITE).commit()?;
        let mailbox = memfd::resident("mailbox", PAGE)?;
        spaces
            .create("device", DEVICE)?
            .map(&mailbox)
            .at(0)
            .prot(READ_WRITE)
            .commit()?;
        let nameless = AddressSpace::new(DEVICE)?;
        let machine = Machine::start(
            qemu,
            guest,
            &spaces.path("ram"),
            &spaces.path("device"),
            nameless.as_fd().try_clone_to_owned()?,
            &mailbox,
        )?;
        Ok(Trial {
            spaces: Some(spaces),
            ram,
            nameless,
            machine,
            composer: None,
        })
    }

    fn path(&self) -> Result<PathBuf> {
        let spaces = self.spaces.as_ref().context("it is unmounted")?;
        Ok(spaces.path("device"))
    }

    /// The process that composes the first device's memory.
    fn composer(&mut self) -> Result<&Process<Composer>> {
        if self.composer.is_none() {
            let composer = Process::start("composer")?;
            let (path, write) = (self.path()?, true);
            composer.does(&Order::Open { path, write }, &[])?;
            self.composer = Some(composer);
        }
        self.composer.as_ref().context("there is no composer")
    }

    fn compose(&mut self, value: u64) -> Result<()> {
        self.composer()?
            .does(&Order::Compose { at: AT, value }, &[])
    }

    /// What the guest reads from a device.
    fn load(&mut self, device: u64, offset: u64) -> Result<u64> {
        self.machine.ask(Request::Load { device, offset })
    }

    fn store(&mut self, device: u64, offset: u64, value: u64) -> Result<()> {
        let request = Request::Store {
            device,
            offset,
            value,
        };
        self.machine.ask(request).map(drop)
    }

    /// How many pages of the guest's RAM have nothing but this word, in either file.
    fn pages_of(&self, value: u64) -> Result<[usize; 2]> {
        let (bytes, mut found) = (value.to_le_bytes(), [0; 2]);
        for (file, found) in self.ram.iter().zip(&mut found) {
            let mut piece = vec![0; 1 << 20];
            for at in (0..RAM / 2).step_by(piece.len()) {
                file.read_exact_at(&mut piece, at)?;
                let pages = piece.chunks(PAGE as usize);
                *found += pages
                    .filter(|page| page.starts_with(&bytes))
                    .filter(|page| page.chunks(8).all(|word| word == bytes))
                    .count();
            }
        }
        Ok(found)
    }
}

fn qemu_boots_a_guest_whose_ram_is_a_path(trial: &mut Trial, show: Show) -> Result<()> {
    let id = trial.machine.id();
    let ram = trial.path()?.with_file_name("ram");
    show.says(
        "qemu",
        &format!(
            "(pid {id}) has -object memory-backend-file,mem-path={}",
            ram.display()
        ),
    );
    // Its first answer says that it is up.
    expect("a hole", trial.load(0, AT)?, 0)?;
    let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
    ensure!(
        maps.contains(&*ram.to_string_lossy()),
        "QEMU does not map it"
    );
    show.says("guest", "is up, and finds its two devices");
    Ok(())
}

fn guest_ram_is_in_the_files_that_are_mapped(trial: &mut Trial, show: Show) -> Result<()> {
    let value = 0x6173_6664_2d71_656d;
    expect("pages before", trial.pages_of(value)?, [0, 0])?;
    let count = 20;
    for _ in 0..count {
        trial.machine.ask(Request::Fill { value })?;
    }
    let [low, high] = trial.pages_of(value)?;
    ensure!(low + high >= count, "{low} and {high} pages");
    show.says(
        "guest",
        &format!("fills {count} pages of its memory: {low} are in one file, {high} in the other"),
    );
    Ok(())
}

fn another_process_composes_what_the_device_has(trial: &mut Trial, show: Show) -> Result<()> {
    trial.compose(11)?;
    show.says("composer", "maps a page that has 11");
    expect("what the guest reads", trial.load(0, AT)?, 11)?;
    show.says("guest", "reads 11 from its device");
    trial.store(0, AT, 12)?;
    let (word, _) = trial.composer()?.ask(&Order::Word { at: AT }, &[])?;
    expect("what the composer has", word, Some(12))?;
    show.says("guest", "writes 12, and the composer has that in its page");
    Ok(())
}

fn guest_always_has_what_is_mapped_now(trial: &mut Trial, show: Show) -> Result<()> {
    for value in 1000..1000 + REPLACES {
        trial.compose(value)?;
        expect("what the guest reads", trial.load(0, AT + 8)?, value)?;
    }
    show.says(
        "guest",
        &format!("reads {REPLACES} times what was mapped a moment before"),
    );
    Ok(())
}

fn what_is_taken_away_is_gone(trial: &mut Trial, show: Show) -> Result<()> {
    trial.compose(13)?;
    expect("what the guest reads", trial.load(0, AT)?, 13)?;
    trial.composer()?.does(&Order::TakeAway { at: AT }, &[])?;
    expect("what the guest reads", trial.load(0, AT)?, 0)?;
    trial.store(0, AT, 14)?;
    let (word, _) = trial.composer()?.ask(&Order::Word { at: AT }, &[])?;
    expect("what the page has", word, Some(13))?;
    show.says("composer", "unmaps the page");
    show.says("guest", "reads 0, and what it writes is not in that page");
    Ok(())
}

fn who_may_only_read_the_file_changes_nothing(trial: &mut Trial, show: Show) -> Result<()> {
    trial.compose(15)?;
    let path = trial.path()?;
    everybody_may_read(&path)?;
    let user = Process::<Composer>::start("composer")?;
    user.does(&Order::Become(4242), &[])?;
    let open = |write| Order::Open {
        path: path.clone(),
        write,
    };
    let why = user.fails(&open(true), &[])?;
    ensure!(why.contains("Permission denied"), "{why}");
    user.does(&open(false), &[])?;
    let why = user.fails(&Order::TakeAway { at: AT }, &[])?;
    expect("what the guest reads", trial.load(0, AT)?, 15)?;
    show.says("user 4242", &format!("opens it for reading; unmaps: {why}"));
    show.says("guest", "still reads 15");
    Ok(())
}

fn space_without_a_name_serves_by_its_path_in_proc(trial: &mut Trial, show: Show) -> Result<()> {
    let page = memfd::resident("page", PAGE)?;
    page.write_all_at(&21u64.to_le_bytes(), 8)?;
    trial.nameless.map(&page).at(AT).prot(READ_WRITE).commit()?;
    expect("what the guest reads", trial.load(1, AT + 8)?, 21)?;
    trial.store(1, AT + 16, 22)?;
    let mut bytes = [0; 8];
    page.read_exact_at(&mut bytes, 16)?;
    expect("what the page has", u64::from_le_bytes(bytes), 22)?;
    // Those that belong to no mount have the policy they were created with, and QEMU's guest
    // would end at a hole: so the next thing is put in its place.
    let other = memfd::resident("page", PAGE)?;
    trial
        .nameless
        .map(&other)
        .at(AT)
        .replace()
        .prot(READ_WRITE)
        .commit()?;
    expect("what the guest reads", trial.load(1, AT + 8)?, 0)?;
    show.says(
        "guest",
        "reads and writes it, and sees what is put in its place",
    );
    Ok(())
}

fn unlinked_space_stays_while_the_guest_has_it(trial: &mut Trial, show: Show) -> Result<()> {
    fs::remove_file(trial.path()?)?;
    trial.compose(31)?;
    expect("what the guest reads", trial.load(0, AT)?, 31)?;
    show.says("composer", "maps a page by its open file");
    show.says("guest", "reads 31");
    Ok(())
}

fn nothing_is_left_when_qemu_has_ended(trial: &mut Trial, show: Show) -> Result<()> {
    let status = trial.machine.end()?;
    let output = trial.machine.output();
    ensure!(status.success(), "QEMU ended: {status}: {output}");
    expect("what QEMU printed", output.as_str(), "")?;
    trial.composer = None;
    let spaces = trial.spaces.take().context("it is unmounted")?;
    fs::remove_file(spaces.path("ram"))?;
    spaces.unmount()?;
    show.says(
        "qemu",
        "has ended, without a word, and the file system is unmounted",
    );
    Ok(())
}
