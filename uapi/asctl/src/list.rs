// SPDX-License-Identifier: GPL-2.0

//! asctl list.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::proc::{self, Space};
use crate::table::{Table, size};

#[derive(Args)]
pub struct Options {
    /// As JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// What is listed of an address space; sizes in bytes.
#[derive(Serialize)]
struct Row<'a> {
    space: u64,
    name: &'a str,
    owner: Option<String>,
    creator: Option<u64>,
    length: u64,
    mapped: u64,
    mappings: u64,
    attachments: u64,
    slots: u64,
    waiting: u64,
}

impl<'a> Row<'a> {
    fn of(space: &'a Space) -> Row<'a> {
        let number = |key| space.info.as_ref().map_or(0, |info| info.number(key));
        Row {
            space: space.id,
            name: &space.name,
            owner: space.uid.map(proc::user),
            creator: Some(number("creator")).filter(|pid| *pid != 0),
            length: number("length"),
            mapped: space.info.as_ref().map_or(0, |info| info.mapped()),
            mappings: number("mappings"),
            // Without an asfd only those are known that can be seen.
            attachments: match &space.info {
                Some(info) => info.number("attachments"),
                None => space.attached.len() as u64,
            },
            slots: number("slots"),
            waiting: number("waiting"),
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    let spaces = proc::spaces()?;
    let mut out = io::stdout().lock();
    if options.json {
        let rows: Vec<Row<'_>> = spaces.iter().map(Row::of).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ">SPACE",
        "NAME",
        "OWNER",
        "CREATOR",
        ">LENGTH",
        ">MAPPED",
        ">MAPPINGS",
        ">ATTACHED",
        ">SLOTS",
        ">WAITING",
    ]);
    for space in &spaces {
        let row = Row::of(space);
        let known = |text: String| match space.info {
            Some(_) => text,
            None => "?".into(),
        };
        table.row(vec![
            row.space.to_string(),
            match row.name {
                "" => "-".into(),
                name => name.into(),
            },
            row.owner.unwrap_or_else(|| "?".into()),
            space.creator(),
            known(size(row.length)),
            known(size(row.mapped)),
            known(row.mappings.to_string()),
            row.attachments.to_string(),
            known(row.slots.to_string()),
            known(row.waiting.to_string()),
        ]);
    }
    table.print(&mut out)?;
    Ok(())
}
