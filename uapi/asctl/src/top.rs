// SPDX-License-Identifier: GPL-2.0

//! asctl top: how busy each address space is, again and again.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use rustix::stdio::stdout;
use rustix::termios::isatty;

use crate::proc::{self, Space};
use crate::table::{Table, size};

#[derive(Args)]
pub struct Options {
    /// Seconds between two looks
    #[arg(short, long, default_value_t = 2.0, value_parser = delay)]
    delay: f64,
    /// End after so many
    #[arg(short = 'n', long, value_name = "LOOKS")]
    count: Option<u64>,
}

fn delay(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, from 0.1 to 86400".into()),
    }
}

/// What is counted, and by which heading.
const COUNTS: [(&str, &str); 4] = [
    ("faults", ">FAULTS/s"),
    ("revocations", ">REVOKED/s"),
    ("invalidations", ">INVALID/s"),
    ("deferred", ">DEFERRED/s"),
];

type Counts = [u64; COUNTS.len()];

fn counts(space: &Space) -> Counts {
    COUNTS.map(|(key, _)| space.info.as_ref().map_or(0, |info| info.number(key)))
}

pub fn run(options: &Options) -> Result<()> {
    let mut last: BTreeMap<u64, Counts> = BTreeMap::new();
    let mut then = Instant::now();
    let mut looks = 0;
    loop {
        let spaces = proc::spaces()?;
        let seconds = then.elapsed().as_secs_f64().max(0.001);
        then = Instant::now();
        let mut rows: Vec<([f64; COUNTS.len()], &Space)> = spaces
            .iter()
            .map(|space| {
                let now = counts(space);
                // Of one that is new it is not known since when.
                let before = last.get(&space.id).copied().unwrap_or(now);
                let rate = |index: usize| now[index].saturating_sub(before[index]) as f64 / seconds;
                (std::array::from_fn(rate), space)
            })
            .collect();
        rows.sort_by(|a, b| b.0.iter().sum::<f64>().total_cmp(&a.0.iter().sum()));
        print(&rows)?;
        last = spaces
            .iter()
            .map(|space| (space.id, counts(space)))
            .collect();
        looks += 1;
        if Some(looks) == options.count {
            return Ok(());
        }
        sleep(Duration::from_secs_f64(options.delay));
    }
}

fn print(rows: &[([f64; COUNTS.len()], &Space)]) -> Result<()> {
    let mut headings = vec![">SPACE", "NAME"];
    headings.extend(COUNTS.map(|(_, heading)| heading));
    headings.extend([">MAPPED", ">ATTACHED", ">WAITING", "CREATOR"]);
    let mut table = Table::new(&headings);
    for (rates, space) in rows {
        let number = |key| space.info.as_ref().map_or(0, |info| info.number(key));
        let mut row = vec![space.id.to_string(), space.name.clone()];
        row.extend(rates.iter().map(|rate| format!("{rate:.1}")));
        row.push(size(space.info.as_ref().map_or(0, |info| info.mapped())));
        row.push(number("attachments").to_string());
        row.push(number("waiting").to_string());
        row.push(space.creator());
        table.row(row);
    }
    let mut text = Vec::new();
    // From the top of an empty screen; into a file, one after another.
    if isatty(stdout()) {
        text.extend_from_slice(b"\x1b[H\x1b[2J");
    }
    table.print(&mut text)?;
    if !isatty(stdout()) {
        text.push(b'\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()?;
    Ok(())
}
