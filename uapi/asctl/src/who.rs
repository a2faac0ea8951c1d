// SPDX-License-Identifier: GPL-2.0

//! asctl who: the processes and virtual machines that have an address space.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::fdinfo::Slot;
use crate::proc::{self, Attached, Holder};
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
struct Who<'a> {
    space: u64,
    name: &'a str,
    holders: &'a [Holder],
    attachments: &'a [Attached],
    slots: &'a [Slot],
}

pub fn run(options: &Options) -> Result<()> {
    let space = proc::space(&options.space)?;
    let slots = space.info.as_ref().map_or(&[][..], |info| &info.slots);
    let mut out = io::stdout().lock();
    if options.json {
        let who = Who {
            space: space.id,
            name: &space.name,
            holders: &space.holders,
            attachments: &space.attached,
            slots,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&who)?)?;
        return Ok(());
    }

    let mut table = Table::new(&[
        ">PID", "COMMAND", "WHAT", "WHERE", "PROT", "START", "END", ">LENGTH", "THROUGH",
    ]);
    for holder in &space.holders {
        let (start, end) = (holder.offset, holder.offset + holder.length);
        table.row(vec![
            holder.pid.to_string(),
            holder.command.clone(),
            match (holder.is_asfd, holder.manages) {
                (true, _) => "asfd".into(),
                (false, true) => "view, manages".into(),
                (false, false) => "view".into(),
            },
            format!("fd {}", holder.fd),
            holder.prot.clone(),
            format!("{start:#x}"),
            format!("{end:#x}"),
            size(holder.length),
            through(holder.inode, &holder.name),
        ]);
    }
    for Attached {
        pid,
        command,
        attachment,
    } in &space.attached
    {
        let length = attachment.end - attachment.start;
        table.row(vec![
            pid.to_string(),
            command.clone(),
            "attached".into(),
            format!("{:#x}", attachment.start),
            attachment.prot.clone(),
            format!("{:#x}", attachment.offset),
            format!("{:#x}", attachment.offset + length),
            size(length),
            through(
                attachment.inode,
                crate::maps::name(&attachment.path).unwrap_or(&attachment.path),
            ),
        ]);
    }
    for slot in slots {
        table.row(vec![
            slot.pid.to_string(),
            proc::command(slot.pid),
            "memory slot".into(),
            format!("vm {} slot {}", slot.vm, slot.slot),
            "-".into(),
            format!("{:#x}", slot.start),
            format!("{:#x}", slot.end),
            size(slot.end - slot.start),
            "-".into(),
        ]);
    }
    table.print(&mut out)?;
    Ok(())
}

/// The asfd or view: its inode number, and its name if it has one.
fn through(inode: u64, name: &str) -> String {
    match name {
        "" => inode.to_string(),
        name => format!("{inode} ({name})"),
    }
}
