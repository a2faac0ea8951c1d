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

/// What is listed of an address space; sizes in bytes. None is what cannot be known, since
/// only views of it can be seen.
#[derive(Serialize)]
struct Row<'a> {
    space: u64,
    name: &'a str,
    owner: Option<String>,
    creator: Option<u64>,
    length: Option<u64>,
    mapped: Option<u64>,
    memory: Option<u64>,
    mappings: Option<u64>,
    attachments: u64,
    slots: Option<u64>,
    waiting: Option<u64>,
}

impl<'a> Row<'a> {
    fn of(space: &'a Space) -> Row<'a> {
        let number = |key| space.info.as_ref().map(|info| info.number(key));
        Row {
            space: space.id,
            name: &space.name,
            owner: space.uid.map(proc::user),
            creator: number("creator").filter(|pid| *pid != 0),
            length: number("length"),
            mapped: space.info.as_ref().map(|info| info.mapped()),
            memory: number("memory"),
            mappings: number("mappings"),
            // Without an asfd only those are known that can be seen.
            attachments: number("attachments").unwrap_or(space.attached.len() as u64),
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
        ">MEMORY",
        ">MAPPINGS",
        ">ATTACHED",
        ">SLOTS",
        ">WAITING",
    ]);
    for space in &spaces {
        let row = Row::of(space);
        let bytes = |number: Option<u64>| number.map_or("?".into(), size);
        let count = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
        table.row(vec![
            row.space.to_string(),
            match row.name {
                "" => "-".into(),
                name => name.into(),
            },
            row.owner.unwrap_or_else(|| "?".into()),
            space.creator(),
            bytes(row.length),
            bytes(row.mapped),
            bytes(row.memory),
            count(row.mappings),
            row.attachments.to_string(),
            count(row.slots),
            count(row.waiting),
        ]);
    }
    table.print(&mut out)?;
    Ok(())
}
