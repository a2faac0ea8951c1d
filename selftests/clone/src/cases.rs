// SPDX-License-Identifier: GPL-2.0

//! The cases: what clones of one snapshot have of it, and have for themselves.

use anyhow::{Context as _, Result, ensure};
use rig::cases::Case;
use rig::check::expect;
use rig::show::Show;

use crate::fleet::{Attached, Clone, all_do};
use crate::guest::{
    COUNTER_PAGES, COUNTERS, Command, LENGTH, MARKED_PAGES, PAGE, State, TABLE, TABLE_PAGES,
    UNTOUCHED,
};
use crate::machine::Way;
use crate::snapshot::Snapshot;

/// How many clones there are where it does not matter.
const CLONES: usize = 4;
/// The block of the cases.
const BLOCK: usize = 16 << 10;
const WAY: Way = Way::Blocks(BLOCK);

/// All cases, in the order in which they run.
pub const CASES: &[Case] = &[
    Case {
        name: "clone_goes_on_where_the_guest_was",
        title: "A guest is stopped, and a clone goes on where it was.",
        run: clone_goes_on_where_the_guest_was,
    },
    Case {
        name: "reads_share",
        title: "Four clones read all that is in the snapshot.",
        run: reads_share,
    },
    Case {
        name: "a_write_copies_one_block",
        title: "A clone writes a word, and reads what is near.",
        run: a_write_copies_one_block,
    },
    Case {
        name: "clones_run_apart",
        title: "Four clones count and mark, each with values of its own.",
        run: clones_run_apart,
    },
    Case {
        name: "snapshot_stays_as_it_was",
        title: "Clones have written all that they write; another one is started.",
        run: snapshot_stays_as_it_was,
    },
    Case {
        name: "stores_of_any_kind_are_made_once",
        title: "A clone writes by instructions of all kinds.",
        run: stores_of_any_kind_are_made_once,
    },
    Case {
        name: "device_shares_the_copies_of_its_clone",
        title: "Two clones have a device each, in a process of its own.",
        run: device_shares_the_copies_of_its_clone,
    },
    Case {
        name: "clone_that_is_killed_leaves_the_others",
        title: "One of the clones is killed.",
        run: clone_that_is_killed_leaves_the_others,
    },
    Case {
        name: "other_ways_come_to_the_same",
        title: "Clones with MAP_PRIVATE, and with a copy of all memory.",
        run: other_ways_come_to_the_same,
    },
];

fn take(show: Show) -> Result<Snapshot> {
    let snapshot = Snapshot::take()?;
    show.says(
        "VMM",
        &format!(
            "has run a guest, and stopped it: its {} MiB of RAM are sealed",
            LENGTH >> 20
        ),
    );
    Ok(snapshot)
}

/// What a clone has after it has counted that more.
fn counted(snapshot: &Snapshot, more: u32) -> State {
    let State { count, mark } = snapshot.state;
    State {
        count: count + more,
        mark,
    }
}

fn clone_goes_on_where_the_guest_was(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    let vmm = Clone::vmm()?;
    vmm.begin(&snapshot, WAY)?;
    let took = vmm.started()?;
    let commands = vmm.does(Command::Commands, 0)?;
    expect("commands so far", commands, snapshot.commands + 1)?;
    let walked = vmm.does(Command::Walk, 0)?;
    expect("the walk", walked, snapshot.state.walked())?;
    show.says(
        "clone",
        &format!(
            "runs after {}.{:02} ms, and knows that it had {} commands before",
            took / 1_000_000,
            took / 10_000 % 100,
            commands - 1
        ),
    );
    vmm.compare(snapshot.state, &[])?;
    show.says("clone", "has the guest's memory, byte by byte");
    Ok(())
}

fn reads_share(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    let clones = Clone::start_many(CLONES, &snapshot, WAY)?;
    let walked = snapshot.state.walked();
    all_do(&clones, Command::Walk, |_| 0, |_| walked)?;
    for clone in &clones {
        let counts = clone.counts()?;
        expect("pages that are copied", counts.copies, 0)?;
        expect("blocks that may be written", counts.blocks, 0)?;
    }
    show.says(
        "clones",
        &format!("each has walked its table, of {TABLE_PAGES} pages: not one is copied"),
    );
    Ok(())
}

fn a_write_copies_one_block(show: Show) -> Result<()> {
    const PAGES: u64 = (BLOCK / PAGE) as u64;
    let snapshot = take(show)?;
    let clone = Clone::start(&snapshot, WAY)?;
    // A word of a block of the table that the guest has not written.
    let block = TABLE.start as u32 + 128;
    let before = clone.does(Command::Load, block)?;
    expect("the word", clone.does(Command::Add, block)?, before + 1)?;
    let counts = clone.counts()?;
    expect("pages that are copied", counts.copies, 1)?;
    expect("writes that the VMM did", counts.done, 1)?;
    show.says(
        "clone",
        "adds to a word that it has read: one exit, one page is copied",
    );
    expect("the word", clone.does(Command::Add, block)?, before + 2)?;
    expect("writes that the VMM did", clone.counts()?.done, 1)?;
    show.says("clone", "again: no exit");
    for page in 1..PAGES as u32 {
        clone.does(Command::Load, block + page * PAGE as u32)?;
    }
    expect("pages that are copied", clone.counts()?.copies, PAGES)?;
    show.says(
        "clone",
        "reads the rest of that block of 16 KiB, which it may write now: that is copied too",
    );
    clone.does(Command::Walk, 0)?;
    let counts = clone.counts()?;
    expect("pages that are copied", counts.copies, PAGES)?;
    expect("blocks that may be written", counts.blocks, 1)?;
    show.says("clone", "reads all the rest, which is not");
    Ok(())
}

fn clones_run_apart(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    let clones = Clone::start_many(CLONES, &snapshot, WAY)?;
    let more = |number: u32| 100 + number;
    let mark = |number: u32| 7 * number + 1;
    let state = |number| State {
        mark: mark(number),
        ..counted(&snapshot, 2 * more(number))
    };
    all_do(&clones, Command::Count, more, |number| {
        counted(&snapshot, more(number)).count
    })?;
    all_do(&clones, Command::Mark, mark, mark)?;
    all_do(&clones, Command::Count, more, |number| state(number).count)?;
    all_do(
        &clones,
        Command::Walk,
        |_| 0,
        |number| state(number).walked(),
    )?;
    show.says(
        "clones",
        &format!("each counts in {COUNTER_PAGES} pages, and marks {MARKED_PAGES} of its table"),
    );
    let mut copies = 0;
    for clone in &clones {
        let counts = clone.counts()?;
        let all = counts.blocks * (BLOCK / PAGE) as u64;
        ensure!(counts.copies <= all, "more is copied: {counts:?}");
        copies += counts.copies;
    }
    let of_all = CLONES * (LENGTH / PAGE);
    show.says(
        "clones",
        &format!("all together have {copies} pages copied, of {of_all} that they see"),
    );
    for (number, clone) in (0..).zip(&clones) {
        clone.compare(state(number), &[])?;
    }
    show.says(
        "clones",
        "each has what it wrote and nothing of the others, byte by byte",
    );
    snapshot.check()
}

fn snapshot_stays_as_it_was(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    let clones = Clone::start_many(3, &snapshot, WAY)?;
    let state = State {
        mark: 9,
        ..counted(&snapshot, 5)
    };
    all_do(&clones, Command::Count, |_| 5, |_| state.count)?;
    all_do(&clones, Command::Mark, |_| 9, |_| 9)?;
    snapshot.check()?;
    show.says("snapshot", "is what it was, byte by byte, and sealed");
    let late = Clone::start(&snapshot, WAY)?;
    expect(
        "the walk",
        late.does(Command::Walk, 0)?,
        snapshot.state.walked(),
    )?;
    late.compare(snapshot.state, &[])?;
    show.says("clone", "a late one begins where the guest was stopped");
    for clone in &clones {
        clone.compare(state, &[])?;
    }
    Ok(())
}

fn stores_of_any_kind_are_made_once(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    for is_read_before in [false, true] {
        let clone = Clone::start(&snapshot, WAY)?;
        let mut words = Vec::new();
        // Each in a block of its own, and no page near that the guest reads by itself.
        for (number, store) in (0..).zip(Command::STORES) {
            let at = UNTOUCHED + number * (128 << 10) + 64;
            if is_read_before {
                expect("the word before", clone.does(Command::Load, at)?, 0)?;
            }
            let should = store.stored(0);
            let what = format!("{store:?}, of what was read before: {is_read_before}");
            let is = clone.does(store, at).with_context(|| what.clone())?;
            expect(&what, is, should)?;
            words.push((at, should));
        }
        let counts = clone.counts()?;
        let blocks = Command::STORES.len() as u64;
        expect("blocks that may be written", counts.blocks, blocks)?;
        expect("pages that are copied", counts.copies, blocks)?;
        clone.compare(snapshot.state, &words)?;
        let pages = if is_read_before {
            "pages that it has read"
        } else {
            "other pages"
        };
        show.says(
            "clone",
            &format!(
                "stores in {pages}: the VMM did {} for it, {} waited, and {} times it had to be \
                 found out where",
                counts.done, counts.waited, counts.searches
            ),
        );
    }
    Ok(())
}

fn device_shares_the_copies_of_its_clone(show: Show) -> Result<()> {
    const PLACE: u32 = UNTOUCHED;
    let there = COUNTERS.start as u32;
    let snapshot = take(show)?;
    let clones = Clone::start_many(2, &snapshot, WAY)?;
    let devices: Vec<_> = clones.iter().map(Attached::to).collect::<Result<_>>()?;
    for device in &devices {
        expect("a counter", device.load(there)?, snapshot.state.count)?;
    }
    let counted = |number| counted(&snapshot, number + 1).count;
    all_do(&clones, Command::Count, |number| number + 1, counted)?;
    for (number, device) in (0..).zip(&devices) {
        expect("a counter", device.load(there)?, counted(number))?;
        device.store(PLACE, 70 + number)?;
    }
    show.says(
        "devices",
        "each sees what its own clone has counted, and writes a word",
    );
    for (number, clone) in (0..).zip(&clones) {
        expect("the word", clone.does(Command::Load, PLACE)?, 70 + number)?;
        expect("the word", clone.does(Command::Add, PLACE)?, 71 + number)?;
    }
    for (number, device) in (0..).zip(&devices) {
        expect("the word", device.load(PLACE)?, 71 + number)?;
    }
    show.says(
        "clones",
        "each finds that word, and adds to it, which its device sees",
    );
    snapshot.check()
}

fn clone_that_is_killed_leaves_the_others(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    let mut clones = Clone::start_many(3, &snapshot, WAY)?;
    let counted = |more| counted(&snapshot, more);
    all_do(
        &clones,
        Command::Count,
        |number| number,
        |number| counted(number).count,
    )?;
    let mut killed = clones.pop().expect("there are three");
    killed.tell(Command::Walk, 0)?;
    killed.kill()?;
    all_do(
        &clones,
        Command::Count,
        |number| number,
        |number| counted(2 * number).count,
    )?;
    for (number, clone) in (0..).zip(&clones) {
        clone.compare(counted(2 * number), &[])?;
    }
    show.says("clones", "the others go on, and have lost nothing");
    snapshot.check()
}

fn other_ways_come_to_the_same(show: Show) -> Result<()> {
    let snapshot = take(show)?;
    for (way, name) in [(Way::Private, "MAP_PRIVATE"), (Way::Copy, "copies")] {
        let clones = Clone::start_many(2, &snapshot, way)?;
        let state = |number| State {
            mark: number + 1,
            ..counted(&snapshot, number)
        };
        all_do(
            &clones,
            Command::Count,
            |number| number,
            |number| state(number).count,
        )?;
        all_do(
            &clones,
            Command::Mark,
            |number| number + 1,
            |number| number + 1,
        )?;
        all_do(
            &clones,
            Command::Walk,
            |_| 0,
            |number| state(number).walked(),
        )?;
        for (number, clone) in (0..).zip(&clones) {
            clone.compare(state(number), &[])?;
        }
        show.says("clones", &format!("with {name}: each has what it wrote"));
    }
    snapshot.check()
}
