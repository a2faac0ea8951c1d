// SPDX-License-Identifier: GPL-2.0

//! The cases: what the tool sees of the process that it looks into.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use rig::cases::Case;
use rig::check::expect;
use rig::process::signals::SIGBUS;
use rig::role::Process;
use rig::show::Show;

use crate::list::Walked;
use crate::roles::{Answer, Order};
use crate::target::Target;
use crate::tool::Tool;

/// How many nodes the list has at first.
const NODES: u64 = 1000;
/// How often it is walked.
const WALKS: u64 = 1000;
/// How often while it changes.
const WALKS_MEANWHILE: u64 = 200;
/// The most page faults that the walks may take: the list is on a few pages.
const FAULTS: u64 = 100;

macro_rules! cases {
    ($($name:ident: $title:literal),* $(,)?) => {
        /// All cases, in the order in which they run.
        pub const CASES: &[Case] = &[
            $( Case { name: stringify!($name), title: $title, run: $name } ),*
        ];
    };
}

cases! {
    list_is_walked_by_plain_loads: "A tool walks a list in the heap of another process.",
    what_the_target_changes_shows_at_once: "The process changes its list.",
    walks_agree_while_the_list_changes: "The process changes its list all the time.",
    what_the_target_unmaps_is_a_hole: "The process maps a page, and unmaps it.",
    target_that_takes_back_cuts_the_tool_off: "The process takes its memory back.",
    target_that_ends_cuts_the_tool_off: "The process is killed.",
}

/// A process with a list, and a tool that looks into it.
struct Pair {
    target: Process<Target>,
    tool: Process<Tool>,
    lend: OwnedFd,
    head: u64,
}

impl Pair {
    /// Starts both; the tool ends by a signal where there is nothing, or reads zeroes.
    fn start(ends: bool) -> Result<Pair> {
        let target = Process::start("target")?;
        let tool = Process::start("tool")?;
        let (Answer::Address(head), mut fds) = target.ask(&Order::Lend, &[])? else {
            bail!("the target has no list");
        };
        let lend = fds.pop().context("the target lends nothing")?;
        target.ask(&Order::Push(NODES), &[])?;
        tool.does(&Order::Look { ends }, &[lend.as_fd()])?;
        Ok(Pair {
            target,
            tool,
            lend,
            head,
        })
    }

    /// What the list comes to in the target.
    fn totals(&self) -> Result<Walked> {
        match self.target.ask(&Order::Totals, &[])?.0 {
            Answer::Totals(totals) => Ok(totals),
            other => bail!("the target answers {other:?}"),
        }
    }

    /// Lets the tool walk the list once; returns what it found.
    fn walk(&self) -> Result<Walked> {
        let (head, times) = (self.head, 1);
        match self.tool.ask(&Order::Walk { head, times }, &[])?.0 {
            Answer::Walked { last, .. } => Ok(last),
            other => bail!("the tool answers {other:?}"),
        }
    }

    /// Checks that the tool finds what the target has.
    fn agree(&self) -> Result<Walked> {
        let walked = self.walk()?;
        expect("what the tool finds", walked, self.totals()?)?;
        Ok(walked)
    }
}

fn list_is_walked_by_plain_loads(show: Show) -> Result<()> {
    let pair = Pair::start(true)?;
    let (head, times) = (pair.head, WALKS);
    show.says(
        "target",
        &format!(
            "(pid {}) has a list of {NODES} nodes at {head:#x}, and lends all of its memory",
            pair.target.id()
        ),
    );
    let (answer, _) = pair.tool.ask(&Order::Walk { head, times }, &[])?;
    let Answer::Walked { last, faults, .. } = answer else {
        bail!("the tool answers {answer:?}");
    };
    expect("what the tool finds", last, pair.totals()?)?;
    expect("the nodes", last.nodes, NODES)?;
    ensure!(faults <= FAULTS, "{faults} page faults");
    show.says(
        "tool",
        &format!(
            "walks it {WALKS} times: {} nodes, their sum {}; no system call, {faults} page faults",
            last.nodes, last.sum
        ),
    );
    Ok(())
}

fn what_the_target_changes_shows_at_once(show: Show) -> Result<()> {
    let pair = Pair::start(true)?;
    pair.agree()?;
    for round in 0..20 {
        pair.target.ask(&Order::Push(5), &[])?;
        pair.agree()?;
        let more = 1 << 20;
        pair.target.does(&Order::Add { node: round, more }, &[])?;
        pair.agree()?;
        pair.target.does(&Order::Pop(3), &[])?;
        pair.agree()?;
    }
    let now = pair.agree()?;
    expect("the nodes", now.nodes, NODES + 40)?;
    show.says("target", "pushes nodes, changes them, pops and frees some");
    show.says("tool", "finds what the target has after each change");
    Ok(())
}

fn walks_agree_while_the_list_changes(show: Show) -> Result<()> {
    // It may meet a node that was freed, and follow what is there now to nothing.
    let pair = Pair::start(false)?;
    pair.target.does(&Order::Churn(true), &[])?;
    let (head, times) = (pair.head, WALKS_MEANWHILE);
    let (answer, _) = pair.tool.ask(&Order::Walk { head, times }, &[])?;
    pair.target.does(&Order::Churn(false), &[])?;
    let Answer::Walked {
        first,
        last,
        met_change,
        ..
    } = answer
    else {
        bail!("the tool answers {answer:?}");
    };
    expect("the nodes", last.nodes, NODES)?;
    ensure!(first.sum < last.sum, "nothing has changed: {first:?}");
    pair.agree()?;
    show.says(
        "tool",
        &format!("{times} walks find what the list was at a time; {met_change} met a change"),
    );
    Ok(())
}

fn what_the_target_unmaps_is_a_hole(show: Show) -> Result<()> {
    let mut pair = Pair::start(true)?;
    let (Answer::Address(address), _) = pair.target.ask(&Order::MapPage(42), &[])? else {
        bail!("the target maps no page");
    };
    let (loaded, _) = pair.tool.ask(&Order::Load(address), &[])?;
    expect("the word", loaded, Answer::Word(42))?;
    show.says("tool", "loads 42 from a page that was mapped just now");
    pair.target.does(&Order::UnmapPage, &[])?;
    let (copied, _) = pair.tool.ask(&Order::Copy(address), &[])?;
    expect("a system call of the tool", copied, Answer::Hole)?;
    show.says("target", "unmaps the page");
    show.says("tool", "lets write(2) copy from it: EFAULT, a hole");
    pair.agree()?;
    expect(
        "the tool dies of",
        pair.tool.dies_of(&Order::Load(address))?,
        Some(SIGBUS),
    )?;
    show.says("tool", "loads from it: SIGBUS");
    Ok(())
}

fn target_that_takes_back_cuts_the_tool_off(show: Show) -> Result<()> {
    let mut pair = Pair::start(true)?;
    let head = pair.head;
    pair.agree()?;
    pair.target.does(&Order::TakeBack, &[])?;
    let signal = pair.tool.dies_of(&Order::Load(head))?;
    expect("the tool dies of", signal, Some(SIGBUS))?;
    show.says("target", "takes its memory back");
    show.says("tool", "loads a word that it had loaded before: SIGBUS");
    let again = Process::<Tool>::start("tool")?;
    let why = again.fails(&Order::Look { ends: true }, &[pair.lend.as_fd()])?;
    ensure!(why.contains("no longer lent"), "{why}");
    show.says("tool", &format!("another one tries: {why}"));
    expect("the target's nodes", pair.totals()?.nodes, NODES)?;
    show.says("target", "goes on, and has noticed nothing");
    Ok(())
}

fn target_that_ends_cuts_the_tool_off(show: Show) -> Result<()> {
    let mut pair = Pair::start(true)?;
    pair.agree()?;
    pair.target.kill()?;
    let signal = pair.tool.dies_of(&Order::Load(pair.head))?;
    expect("the tool dies of", signal, Some(SIGBUS))?;
    show.says("target", "is killed");
    show.says("tool", "loads a word that it had loaded before: SIGBUS");
    Ok(())
}
