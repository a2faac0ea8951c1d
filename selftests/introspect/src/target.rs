// SPDX-License-Identifier: GPL-2.0

//! The process that is looked into. It has a list in its heap, lends all of its memory, and
//! does nothing else for those who look.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use address_space::{Lend, Prot};
use anyhow::{Context as _, Result, bail};
use rig::plain::Plain;
use rig::role::Role;

use crate::list::List;
use crate::roles::{Answer, Order};

/// How long the list stays as it is between two changes: most walks are shorter.
const PAUSE: Duration = Duration::from_millis(20);

/// What the process has.
#[derive(Default)]
pub struct Target {
    list: Arc<Mutex<List>>,
    lend: Option<Lend>,
    churning: Option<Churn>,
    page: Option<Plain>,
}

/// A thread that changes the list all the time, until this is dropped.
struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Churn {
    fn new(list: Arc<Mutex<List>>) -> Churn {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for round in 1.. {
                if stopped.load(Relaxed) {
                    break;
                }
                let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                list.push(round);
                list.add(round as usize % 10, round);
                list.pop();
                drop(list);
                thread::sleep(PAUSE);
            }
        });
        Churn {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic, or the list shows it.
            let _ = thread.join();
        }
    }
}

impl Role for Target {
    type Order = Order;
    type Answer = Answer;

    fn obey(&mut self, order: Order, _: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>)> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match order {
            Order::Lend => {
                // SAFETY: For reading only: nothing in this process is changed by others.
                let lend = unsafe { Lend::all(Prot::READ) }?;
                let fd = lend.as_fd().try_clone_to_owned()?;
                self.lend = Some(lend);
                return Ok((Answer::Address(list.address()), Some(fd)));
            }
            Order::Push(nodes) => {
                let last = (1..=nodes).map(|value| list.push(value)).last();
                Answer::Address(last.context("no node")?)
            }
            Order::Pop(nodes) => {
                (0..nodes).for_each(|_| list.pop());
                Answer::Done
            }
            Order::Add { node, more } => {
                list.add(node, more);
                Answer::Done
            }
            Order::Churn(begin) => {
                drop(list);
                self.churning = begin.then(|| Churn::new(self.list.clone()));
                Answer::Done
            }
            Order::MapPage(word) => {
                let page = Plain::anonymous(address_space::page_size() as usize)?;
                let at = page.as_ptr().cast::<u64>();
                // SAFETY: The page is there, and only this process writes it.
                unsafe { at.write_volatile(word) };
                self.page = Some(page);
                Answer::Address(at.expose_provenance() as u64)
            }
            Order::UnmapPage => {
                drop(self.page.take().context("no page")?);
                Answer::Done
            }
            Order::Totals => Answer::Totals(list.totals()),
            Order::TakeBack => {
                self.lend.as_ref().context("nothing was lent")?.revoke()?;
                Answer::Done
            }
            Order::Look { .. } | Order::Walk { .. } | Order::Load(_) | Order::Copy(_) => {
                bail!("that is for the tool")
            }
        };
        Ok((answer, None))
    }
}
