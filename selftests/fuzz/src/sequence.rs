// SPDX-License-Identifier: GPL-2.0

//! A sequence of steps: made, judged, and shortened if it fails.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use serde::{Deserialize, Serialize};

use crate::files::Places;
use crate::generate::Generator;
use crate::machine::Machine;
use crate::model::Model;
use crate::op::*;
use crate::watch;

/// All that a sequence depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sequence {
    pub files: Vec<usize>,
    pub steps: Vec<Op>,
}

/// A sequence that went wrong in its last step.
#[derive(Debug)]
pub struct Failure {
    pub sequence: Sequence,
    pub why: String,
}

/// A machine and the model of it.
struct Pair {
    machine: Machine,
    model: Model,
}

impl Pair {
    fn new(places: &Places, files: &[usize]) -> Result<Pair> {
        let (machine, model) = Machine::new(places, files)?;
        Ok(Pair { machine, model })
    }

    /// Makes a step if it is possible, and returns its result; the error says what is wrong
    /// with that.
    fn step(&mut self, op: &Op) -> Result<Option<Seen>, String> {
        if !self.model.possible(op) {
            return Ok(None);
        }
        let waited = self.model.somebody_waits();
        let seen = self
            .machine
            .make(op, &self.model)
            .map_err(|error| format!("{error:#}"))?;
        self.model.judge(op, &seen)?;
        if waited || self.model.somebody_waits() {
            self.settle().map_err(|error| format!("{error:#}"))?;
        }
        for space in changed(op).map_or(Vec::new(), |on| self.model.asfds_of(on)) {
            let layouts = self.machine.layouts(space);
            for (told_by, layout) in layouts.map_err(|error| format!("{error:#}"))? {
                self.model
                    .check_layout(space, &layout)
                    .map_err(|why| format!("{told_by}: {why}"))?;
            }
        }
        Ok(Some(seen))
    }

    /// Those that no longer wait go on, and the others look again and wait on.
    fn settle(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for waiter in self.model.ended_waiters() {
            let touched = self.machine.ended(waiter);
            ended.push((waiter, touched.with_context(|| format!("waiter {waiter}"))?));
        }
        self.model.judge_waiters(&ended).map_err(Error::msg)?;
        for (space, count) in self.model.waiting() {
            self.machine.await_waiting(space, count)?;
        }
        Ok(())
    }
}

/// Through what a step changes a space, or tries to. Its layout is checked afterwards.
fn changed(op: &Op) -> Option<Source> {
    match *op {
        Op::UnregisterAll(space) => Some(Source::Space(space)),
        Op::Create { space, .. } => Some(Source::Space(space)),
        Op::Map { on, .. }
        | Op::MapAnywhere { on, .. }
        | Op::Unmap { on, .. }
        | Op::Protect { on, .. }
        | Op::Move { on, .. }
        | Op::Batch { on, .. }
        | Op::Register { on, .. }
        | Op::Unregister { on, .. }
        | Op::MakeView { on, .. } => Some(on),
        _ => None,
    }
}

/// The last steps, which check everything once more.
fn closing(files: &[usize], guest: bool) -> VecDeque<Op> {
    let mut ops: VecDeque<_> = (0..WATCHES).map(Op::ReadEvents).collect();
    // Whoever waits meets the end of it.
    ops.extend((0..WATCHES).map(Op::Unwatch));
    ops.extend((0..PROCESSES).map(Op::Expire));
    ops.extend((0..PROCESSES).map(Op::Sweep));
    if guest {
        ops.push_back(Op::GuestSweep);
    }
    for &file in files {
        // The content of a file on disk must survive when it is dropped from memory.
        let at = Span::new(0, u64::MAX / CELL / 2);
        if crate::files::kind(file).0 == Kind::Ext4 {
            for advice in [Advice::Sync, Advice::DropCaches] {
                ops.push_back(Op::Advise {
                    file,
                    at: Span::new(0, at.count.min(1)),
                    advice,
                });
            }
        }
        ops.push_back(Op::Check(file));
    }
    ops
}

/// What is absorbed briefly is gone after 10 ms, on a machine that does nothing else.
const BRIEF: Duration = Duration::from_millis(500);
/// Of how many a median says something.
const ENOUGH: usize = 5;

/// How much was done.
#[derive(Debug, Default)]
pub struct Tally {
    pub sequences: u64,
    pub steps: u64,
    pub touches: u64,
    /// Accesses that waited for something else to happen.
    pub waits: u64,
    pub events: u64,
    /// How long what was absorbed briefly was still seen.
    pub expiries: Vec<Duration>,
}

/// Makes a new random sequence of `steps` steps.
pub fn random(
    places: &Places,
    generator: &mut Generator,
    steps: u64,
    tally: &mut Tally,
) -> Result<Option<Failure>> {
    let mut sequence = Sequence {
        files: generator.files().to_vec(),
        steps: Vec::new(),
    };
    let mut pair = Pair::new(places, &sequence.files)?;
    let mut first = VecDeque::from(generator.begin());
    let mut last = closing(&sequence.files, true);
    for step in 0.. {
        let op = match first.pop_front() {
            Some(op) => op,
            None if step < steps => generator.next(&pair.model),
            None => match last.pop_front() {
                Some(op) => op,
                None => break,
            },
        };
        watch::at_step(step);
        tally.steps += 1;
        tally.touches += touches(&op, &pair.model);
        tally.waits += u64::from(matches!(op, Op::Wait { .. } | Op::GuestWait(_)));
        sequence.steps.push(op.clone());
        match pair.step(&op) {
            Ok(Some(Seen::Told(told))) => tally.events += told.len() as u64,
            Ok(_) => (),
            Err(why) => return Ok(Some(Failure { sequence, why })),
        }
    }
    tally.sequences += 1;
    tally.expiries.append(&mut pair.machine.expiries);
    Ok(None)
}

impl Tally {
    /// Whether what is absorbed briefly is. A few may take long where other work is done beside
    /// this, so the median decides, of enough of them.
    pub fn is_brief(&self) -> bool {
        self.expiries.len() < ENOUGH || self.usual_expiry() < BRIEF
    }

    pub fn usual_expiry(&self) -> Duration {
        let mut sorted = self.expiries.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

fn touches(op: &Op, model: &Model) -> u64 {
    let count = match op {
        Op::Touch { process, touches } => model.meaningful(*process, touches).len(),
        Op::Sweep(process) => model.sweep(*process).len(),
        Op::Guest(touches) => model.meaningful_in_guest(touches).len(),
        Op::Vmm(touches) => model.meaningful_in_vmm(touches).len(),
        Op::GuestSweep => model.guest_sweep().len(),
        _ => 0,
    };
    count as u64
}

/// Makes a sequence again, with a new machine.
pub fn replay(places: &Places, sequence: &Sequence) -> Result<Option<Failure>> {
    let mut pair = Pair::new(places, &sequence.files)?;
    for (index, op) in sequence.steps.iter().enumerate() {
        watch::at_step(index as u64);
        if let Err(why) = pair.step(op) {
            return Ok(Some(Failure {
                sequence: Sequence {
                    files: sequence.files.clone(),
                    steps: sequence.steps[..=index].to_vec(),
                },
                why,
            }));
        }
    }
    Ok(None)
}

/// Looks for a shorter sequence that fails, too, perhaps in another way, for so long.
pub fn shrink(places: &Places, failure: Failure, timeout: Duration) -> Result<Failure> {
    let end = Instant::now() + timeout;
    let mut best = failure;
    if replay(places, &best.sequence)?.is_none() {
        bail!(
            "it does not fail again: {}\n{}",
            best.why,
            show(&best.sequence)
        );
    }
    // The last step is the one that fails, and steps before it are left out in ever
    // smaller pieces.
    let mut piece = best.sequence.steps.len().div_ceil(2);
    while piece > 0 && Instant::now() < end {
        let mut at = best.sequence.steps.len().saturating_sub(1);
        while at > 0 && Instant::now() < end {
            let start = at.saturating_sub(piece);
            let mut fewer = best.sequence.clone();
            fewer.steps.drain(start..at);
            if let Some(shorter) = replay(places, &fewer)? {
                best = shorter;
            }
            at = start.min(best.sequence.steps.len().saturating_sub(1));
        }
        piece /= 2;
    }
    // Then each step by itself becomes simpler.
    let mut at = 0;
    while at < best.sequence.steps.len() && Instant::now() < end {
        let mut simpler = None;
        for op in simpler_ops(&best.sequence.steps[at]) {
            let mut candidate = best.sequence.clone();
            candidate.steps[at] = op;
            if let Some(failure) = replay(places, &candidate)? {
                simpler = Some(failure);
                break;
            }
        }
        match simpler {
            Some(failure) => best = failure,
            None => at += 1,
        }
    }
    Ok(best)
}

/// Steps that are simpler than this one, and may fail as well.
fn simpler_ops(op: &Op) -> Vec<Op> {
    let mut simpler = Vec::new();
    let mut with = |change: &dyn Fn(&mut Op)| {
        let mut other = op.clone();
        change(&mut other);
        if other != *op {
            simpler.push(other);
        }
    };
    with(&|op| {
        if let Some(at) = span_mut(op) {
            at.count = at.count.min(1);
        }
    });
    with(&|op| {
        if let Some(at) = span_mut(op) {
            at.count = at.count.div_ceil(2);
        }
    });
    with(&|op| match op {
        Op::Map { map, .. } | Op::MapAnywhere { map, .. } => map.populate = false,
        Op::Register { populate, .. } => *populate = false,
        _ => (),
    });
    with(&|op| match op {
        Op::Create { holes, .. } | Op::MakeView { holes, .. } | Op::Plug { holes, .. } => {
            *holes &= SIGNAL | ABSORB | WAIT;
        }
        _ => (),
    });
    let parts = match op {
        Op::Touch { touches, .. } => touches.len(),
        Op::Guest(touches) | Op::Vmm(touches) => touches.len(),
        Op::Batch { changes, .. } => changes.len(),
        _ => 0,
    };
    for part in 0..if parts > 1 { parts } else { 0 } {
        with(&|op| match op {
            Op::Touch { touches, .. } => drop(touches.remove(part)),
            Op::Guest(touches) | Op::Vmm(touches) => drop(touches.remove(part)),
            Op::Batch { changes, .. } => drop(changes.remove(part)),
            _ => (),
        });
    }
    simpler
}

fn span_mut(op: &mut Op) -> Option<&mut Span> {
    match op {
        Op::Map { map, .. } | Op::MapAnywhere { map, .. } => Some(&mut map.at),
        Op::Unmap { at, .. }
        | Op::Protect { at, .. }
        | Op::Want { at, .. }
        | Op::Move { at, .. }
        | Op::MakeView { at, .. }
        | Op::Attach { at, .. }
        | Op::Detach { at, .. }
        | Op::Mprotect { at, .. }
        | Op::Mremap { at, .. }
        | Op::Punch { at, .. }
        | Op::Poison { at, .. }
        | Op::Watch { at: Some(at), .. }
        | Op::Plug { at, .. } => Some(at),
        _ => None,
    }
}

/// The text of a sequence: a line for each step, in the form that `--replay` reads.
pub fn show(sequence: &Sequence) -> String {
    let line = |op| serde_json::to_string(op).expect("numbers and names only");
    let steps: Vec<_> = sequence.steps.iter().map(line).collect();
    format!(
        "{{\"files\":{:?},\"steps\":[\n{}\n]}}",
        sequence.files,
        steps.join(",\n")
    )
}
