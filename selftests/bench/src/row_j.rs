// SPDX-License-Identifier: GPL-2.0

//! Row j: one touch of what is not there yet, until who touched it goes on. A manager is told,
//! and provides the page.

use anyhow::Result;

use crate::clock::Clock;
use crate::guest::{Machine, Vcpu};
use crate::memory::{PAGE, Touch, shuffled, touch_pages};
use crate::on_demand::{Mapping, Provider, Space, with_manager};
use crate::rounds::{Bench, Goal, other, ours};
use crate::row_c_guest::{offsets, run_list};
use crate::uffd::Mode;

/// How many pages are touched, each once, in an order that nobody can predict.
const PAGES: usize = 512;
const LENGTH: usize = PAGES * PAGE;

const SPACE: &str = "address space: event, map";
const CONTINUE: &str = "userfaultfd: UFFDIO_CONTINUE";
const SPACE_FILL: &str = "address space: event, write to the file, map, populate";
const COPY: &str = "userfaultfd: UFFDIO_COPY";
const CONTINUE_FILL: &str = "userfaultfd: write to the file, CONTINUE";

pub fn run(bench: &mut Bench) -> Result<()> {
    let pages = shuffled(PAGES);
    let pages = &pages[..];
    for who in ["process", "guest"] {
        let guest = who == "guest";
        for (filled, what) in [
            (false, "the file has the page"),
            (true, "the manager has the page"),
        ] {
            let name = format!("a touch in a {who} until it goes on, {what}");
            let (mine, goal) = if filled {
                (SPACE_FILL, COPY)
            } else {
                (SPACE, CONTINUE)
            };
            let space = Space::new(LENGTH, filled)?;
            let mut contenders = vec![if guest {
                let mut vcpu = vcpu(Machine::with_space(&space.space)?, pages)?;
                ours(mine, move |clock| {
                    space.reset()?;
                    let provider = space.watch()?;
                    round_trips(&provider, filled, || {
                        run_list(&mut vcpu, clock, pages, Touch::Write)
                    })
                })
            } else {
                let window = space.space.attach(0..LENGTH as u64, rig::READ_WRITE)?;
                ours(mine, move |clock| {
                    space.reset()?;
                    let provider = space.watch()?;
                    round_trips(&provider, filled, || touch(window.as_ptr(), clock, pages))
                })
            }];
            let modes: &[_] = if filled {
                &[(COPY, Mode::Copy), (CONTINUE_FILL, Mode::Continue)]
            } else {
                &[(CONTINUE, Mode::Continue)]
            };
            for &(name, mode) in modes {
                let mapping = Mapping::new(LENGTH, filled, mode)?;
                mapping.reset()?;
                let mut guest = if guest {
                    Some(vcpu(Machine::with_plain(&mapping.memory)?, pages)?)
                } else {
                    None
                };
                contenders.push(other(name, move |clock| {
                    mapping.reset()?;
                    let provider = mapping.register()?;
                    let start = mapping.memory.as_ptr();
                    round_trips(&provider, filled, || match &mut guest {
                        Some(vcpu) => run_list(vcpu, clock, pages, Touch::Write),
                        None => touch(start, clock, pages),
                    })
                }));
            }
            let goals = [Goal {
                of: mine,
                to: goal,
                at_most: 1.0,
            }];
            bench.compare('j', name, 4, contenders, &goals)?;
        }
    }
    Ok(())
}

/// A vCPU with this list.
pub fn vcpu(mut machine: std::sync::Arc<Machine>, pages: &[u32]) -> Result<Vcpu> {
    machine.set_list(&offsets(pages))?;
    Vcpu::new(&machine, 0)
}

/// Runs `work`, which touches all pages, with a manager that provides them singly.
fn round_trips(
    provider: &impl Provider,
    filled: bool,
    work: impl FnOnce() -> Result<f64>,
) -> Result<f64> {
    let bytes = [0x5a; PAGE];
    let mut shown = [false; PAGES];
    let mut left = PAGES;
    let provide = |at: usize| {
        let at = at & !(PAGE - 1);
        if filled {
            provider.fill(at, &bytes)?;
        } else {
            provider.show(at, PAGE)?;
        }
        left -= usize::from(!std::mem::replace(&mut shown[at / PAGE], true));
        Ok(left > 0)
    };
    with_manager(provider, provide, work)
}

fn touch(start: *mut u8, clock: Clock, pages: &[u32]) -> Result<f64> {
    let took = clock.time(|| {
        // SAFETY: A manager provides all of it.
        unsafe { touch_pages(start, pages, Touch::Write) };
        Ok(())
    })?;
    Ok(took / pages.len() as f64)
}
