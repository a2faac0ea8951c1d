// SPDX-License-Identifier: GPL-2.0

//! asctl watch: changes, faults and invalidations, as the tracepoints of the module tell.
//!
//! They are read from an instance of the tracing buffer that is made for it and removed in
//! the end, so that nobody else's tracing is disturbed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::proc;
use crate::table::printable;

#[derive(Args)]
pub struct Options {
    /// Only of this address space: its number or its name
    space: Option<String>,
    /// End after so many events
    #[arg(short = 'n', long, value_name = "EVENTS")]
    count: Option<u64>,
}

const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Has SIGINT, SIGTERM and SIGHUP end a read: the instance is to be removed.
fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: The action is valid, without SA_RESTART, and its handler only stores to an
        // atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = stop as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// An instance of the tracing buffer, which is removed with it.
struct Instance(PathBuf);

impl Instance {
    fn new() -> Result<Instance> {
        let Some(root) = TRACEFS
            .iter()
            .find(|root| Path::new(root).join("events").exists())
        else {
            bail!("tracefs is not mounted, or not for this user: run it as root");
        };
        let events = Path::new(root).join("events/address_space");
        if !events.exists() {
            bail!(
                "no tracepoints in {}: is the module loaded?",
                events.display()
            );
        }
        let path = Path::new(root).join(format!("instances/asctl-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let instance = Instance(path);
        instance.write("events/address_space/enable", "1")?;
        Ok(instance)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // There is nobody to tell; the kernel keeps what is still in use.
        let _ = self.write("events/address_space/enable", "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// An event as it is printed: time, task, what, and the rest. Nothing for another line.
fn event(line: &str) -> Option<(&str, String)> {
    let (before, rest) = line.split_once(": address_space_")?;
    let (what, rest) = rest.split_once(": ")?;
    let (task, time) = before.rsplit_once(' ')?;
    let task = task.split_once(" [").map_or(task, |(task, _)| task);
    let space = rest.split_whitespace().next()?.strip_prefix("space=")?;
    Some((
        space,
        format!("{} {:<20} {what:<10} {rest}", time.trim(), task.trim()),
    ))
}

pub fn run(options: &Options) -> Result<()> {
    let wanted = match &options.space {
        Some(space) => Some(proc::space(space)?.id.to_string()),
        None => None,
    };
    catch_signals();
    let instance = Instance::new()?;
    let mut pipe = File::open(instance.0.join("trace_pipe"))?;
    let mut out = io::stdout();
    let (mut seen, mut text, mut buffer) = (0, Vec::new(), [0; 1 << 14]);
    while !STOPPED.load(Ordering::Relaxed) {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some((space, shown)) = event(line.trim_end()) else {
                continue;
            };
            if wanted.as_deref().is_some_and(|wanted| wanted != space) {
                continue;
            }
            writeln!(out, "{}", printable(&shown))?;
            out.flush()?;
            seen += 1;
            if Some(seen) == options.count {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_has_time_task_and_what() {
        let line = "          qemu-812     [001] .....   123.456789: address_space_fault: \
            space=5 view=6 page=0x1 access=r-- ret=DONE";
        let (space, shown) = event(line).unwrap();
        assert_eq!(space, "5");
        assert_eq!(
            shown,
            "123.456789 qemu-812             fault      space=5 view=6 page=0x1 access=r-- ret=DONE"
        );
    }

    #[test]
    fn other_lines_are_left_out() {
        assert!(event("CPU:1 [LOST 12 EVENTS]").is_none());
        assert!(event("").is_none());
    }
}
