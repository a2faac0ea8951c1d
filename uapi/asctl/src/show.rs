// SPDX-License-Identifier: GPL-2.0

//! asctl show: the layout of an address space, drawn to scale and as a table.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anyhow::{Result, bail};
use clap::Args;
use rustix::stdio::stdout;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::fdinfo::{Mapping, Slot};
use crate::proc;
use crate::strip;
use crate::table::{Table, size};

#[derive(Args)]
pub struct Options {
    /// Its number or its name
    space: String,
    /// As JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    space: u64,
    name: &'a str,
    length: u64,
    mapped: u64,
    /// All that fdinfo has, by its keys.
    values: &'a BTreeMap<String, String>,
    layout: &'a [Mapping],
    slots: &'a [Slot],
}

pub fn run(options: &Options) -> Result<()> {
    let space = proc::space(&options.space)?;
    let Some(info) = &space.info else {
        bail!(
            "only views of address space {} can be seen, and those do not tell its layout",
            space.title()
        );
    };
    let length = info.number("length");
    let mut out = io::stdout().lock();
    if options.json {
        let shown = Shown {
            space: space.id,
            name: &space.name,
            length,
            mapped: info.mapped(),
            values: &info.values,
            layout: &info.layout,
            slots: &info.slots,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
        return Ok(());
    }

    writeln!(
        out,
        "address space {}, {} of {} mapped, {} in memory, created by {}",
        space.title(),
        size(info.mapped()),
        size(length),
        size(info.number("memory")),
        space.creator()
    )?;
    let value = |key: &str| info.values.get(key).map_or("-", String::as_str);
    writeln!(
        out,
        "holes {}, {} attached, {} faults, {} revocations, {} invalidations ({} deferred), {} waiting",
        value("holes"),
        value("attachments"),
        value("faults"),
        value("revocations"),
        value("invalidations"),
        value("deferred"),
        value("waiting"),
    )?;
    if let Some(refusal) = info.values.get("last-refusal") {
        writeln!(out, "last refused: {refusal}")?;
    }

    let letters = strip::letters(&info.layout);
    let width = width();
    writeln!(
        out,
        "\n[{}]",
        strip::draw(&info.layout, &letters, length, width)
    )?;
    writeln!(
        out,
        " a column is {}; . hole, : mostly hole\n",
        size((length / width as u64).max(1))
    )?;

    let mut table = Table::new(&["", "START", "END", ">LENGTH", "PROT", "OFFSET", "FILE"]);
    for (mapping, letter) in info.layout.iter().zip(&letters) {
        table.row(vec![
            letter.to_string(),
            format!("{:#x}", mapping.start),
            format!("{:#x}", mapping.end),
            size(mapping.length()),
            format!("{}{}", mapping.prot, if mapping.private { "p" } else { "" }),
            format!("{:#x}", mapping.offset),
            mapping.path.clone(),
        ]);
    }
    table.print(&mut out)?;

    if !info.slots.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&[">PID", ">VM", ">SLOT", "START", "END", ">LENGTH"]);
        for slot in &info.slots {
            table.row(vec![
                slot.pid.to_string(),
                slot.vm.to_string(),
                slot.slot.to_string(),
                format!("{:#x}", slot.start),
                format!("{:#x}", slot.end),
                size(slot.end - slot.start),
            ]);
        }
        table.print(&mut out)?;
    }
    Ok(())
}

/// How many columns the strip has: the terminal's, less the brackets.
fn width() -> usize {
    let columns = tcgetwinsize(stdout()).map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0..20 => 78,
        columns => columns - 2,
    }
}
