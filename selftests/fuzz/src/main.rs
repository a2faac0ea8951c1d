// SPDX-License-Identifier: GPL-2.0

//! Random calls and accesses, checked step by step against a model; and a race of readers
//! with an owner that revokes what they read.

mod agent;
mod files;
mod generate;
mod guest;
mod machine;
mod model;
mod op;
mod own_memory;
mod probe;
mod race;
mod reader;
mod region;
mod report;
mod sequence;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rig::tap;

use files::Places;
use generate::Generator;
use report::Report;
use sequence::{Sequence, Tally};

/// Random calls and accesses on /dev/address_space, each checked against a model.
///
/// Sequence NUMBER of a SEED is always the same. A sequence that fails is shortened and
/// printed, in the form that --replay reads. Prints TAP; needs root, and the module.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    role: Option<Role>,
    /// A seed of random sequences; may be given several times. Without it: 1, 2 and a
    /// random one.
    #[arg(long)]
    seed: Vec<u64>,
    /// Steps of a sequence.
    #[arg(long, default_value_t = 80)]
    steps: u64,
    /// Sequences of each seed.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    sequences: u64,
    /// The first sequence of each seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// The time for everything: seconds, or with a unit (90s, 15m, 2h).
    #[arg(long, default_value = "20s", value_parser = duration)]
    time: Duration,
    /// Run the sequence in this file again, once or --sequences times.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Only the race of readers with an owner that revokes what they read.
    #[arg(long)]
    concurrent: bool,
    /// Without virtual machine.
    #[arg(long)]
    no_guest: bool,
    /// Print a failing sequence as it is.
    #[arg(long)]
    no_shrink: bool,
    /// A directory on a disk, for files that are written back.
    #[arg(long, default_value = "/mnt/ext4", value_name = "DIR")]
    disk: PathBuf,
}

#[derive(Subcommand)]
enum Role {
    /// A process that serves orders (started by the fuzzer itself).
    #[command(hide = true)]
    Agent,
}

fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = match text.find(|letter: char| !letter.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => anyhow::bail!("'{unit}' is not a unit of time: s, m or h"),
    };
    let number: u64 = number.parse().context("a number of seconds, or 15m, 2h")?;
    Ok(Duration::from_secs(number * factor))
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    match options.role {
        Some(Role::Agent) => agent::run().map(|()| ExitCode::SUCCESS),
        None => run(&options),
    }
}

/// The most time of which the fixed seeds get a share.
const MODEST: Duration = Duration::from_secs(30);

fn run(options: &Options) -> Result<ExitCode> {
    agent::prepare_signals();
    probe::install()?;
    watch::install();
    let mut report = Report::new();
    let places = Places::prepare(&options.disk, |why| tap::comment(&why));
    if let Some(path) = &options.replay {
        report.plan(1);
        replay(options, &places, path, &mut report)?;
        return Ok(report.end());
    }
    let seeds = match &options.seed[..] {
        [] => vec![1, 2, random_seed()?],
        seeds => seeds.to_vec(),
    };
    if options.concurrent {
        report.plan(1);
        race(
            options,
            &places,
            seeds[seeds.len() - 1],
            options.time,
            &mut report,
        );
        return Ok(report.end());
    }
    let both = options.seed.is_empty();
    report.plan(seeds.len() + usize::from(both));
    let end = Instant::now() + options.time;
    if both {
        race(
            options,
            &places,
            seeds[seeds.len() - 1],
            options.time / 4,
            &mut report,
        );
    }
    // In a longer run the fixed seeds, which are always the same, do not get more time.
    let share = match options.seed[..] {
        [] => options.time.min(MODEST) / 4,
        _ => options.time / seeds.len() as u32,
    };
    let (last, others) = seeds.split_last().context("no seed")?;
    for seed in others {
        sequences(options, &places, *seed, share, &mut report)?;
    }
    let rest = end.saturating_duration_since(Instant::now());
    sequences(options, &places, *last, rest, &mut report)?;
    Ok(report.end())
}

fn random_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    let mut source = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes).into())
}

/// The sequences of one seed: one test.
fn sequences(
    options: &Options,
    places: &Places,
    seed: u64,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let files = places.files();
    let guest = has_guest(options);
    report.comment(&format!("seed {seed}"));
    for number in (options.first..).take(options.sequences.try_into().unwrap_or(usize::MAX)) {
        if start.elapsed() >= time {
            break;
        }
        watch::at_sequence(seed, number);
        let mut generator = Generator::new(seed, number, &files, guest);
        let failed = sequence::random(places, &mut generator, options.steps, &mut tally)
            .with_context(|| format!("seed {seed}, sequence {number}"))?;
        if let Some(failure) = failed {
            let steps = failure.sequence.steps.len();
            report.comment(&format!(
                "seed {seed}, sequence {number}, step {steps}: {}",
                failure.why
            ));
            report.comment(&format!(
                "after {} steps in all, {:.1?}",
                tally.steps,
                start.elapsed()
            ));
            let failure = if options.no_shrink {
                Ok(failure)
            } else {
                sequence::shrink(places, failure, Duration::from_secs(60))
            };
            match failure {
                Ok(failure) => report.sequence(&failure),
                Err(error) => report.comment(&format!("{error:#}")),
            }
            report.result(
                false,
                &format!("sequences of seed {seed} agree with the model"),
            );
            return Ok(());
        }
        report.progress(|| format!("seed {seed}: {}", summary(&tally)));
    }
    report.comment(&summary(&tally));
    report.comment(&format!(
        "what is absorbed briefly was seen later {} times, usually for {:.1?}",
        tally.expiries.len(),
        tally.usual_expiry()
    ));
    report.result(
        tally.is_brief(),
        &format!("sequences of seed {seed} agree with the model"),
    );
    Ok(())
}

/// The race: one test.
fn race(options: &Options, places: &Places, seed: u64, time: Duration, report: &mut Report) {
    watch::at_sequence(seed, 0);
    match race::race(places, has_guest(options), seed, time) {
        Ok(done) => {
            report.comment(&format!(
                "{} changes; rounds: {}",
                done.changes, done.rounds
            ));
            report.result(true, "no reader reaches a revoked page");
        }
        Err(error) => {
            report.comment(&format!("seed {seed}: {error:#}"));
            report.result(false, "no reader reaches a revoked page");
        }
    }
}

fn has_guest(options: &Options) -> bool {
    !options.no_guest && std::path::Path::new("/dev/kvm").exists()
}

fn summary(tally: &Tally) -> String {
    format!(
        "{} sequences, {} steps, {} accesses, {} waits, {} events",
        tally.sequences, tally.steps, tally.touches, tally.waits, tally.events
    )
}

fn replay(
    options: &Options,
    places: &Places,
    path: &std::path::Path,
    report: &mut Report,
) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let sequence: Sequence = serde_json::from_str(&text).context("no sequence of steps")?;
    let times = if options.sequences == u64::MAX {
        1
    } else {
        options.sequences
    };
    for _ in 0..times {
        if let Some(failure) = sequence::replay(places, &sequence)? {
            report.sequence(&failure);
            report.result(false, "the sequence agrees with the model");
            return Ok(());
        }
    }
    report.result(true, "the sequence agrees with the model");
    Ok(())
}
