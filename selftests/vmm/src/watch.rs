// SPDX-License-Identifier: GPL-2.0

//! Hears of the accesses of a guest and its devices to what is not there, while they go on.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::spawn;
use std::time::Duration;

use address_space::Events;
use anyhow::{Result, bail};
use rig::tap::line;

use crate::guest_memory::GuestMemory;
use crate::miss::Miss;

/// How long an event that is there may take to be read, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accesses to one file, or to nothing, for one reason.
#[derive(Clone, Debug)]
pub struct Heard {
    pub first: Miss,
    /// How many there have been.
    pub count: u64,
}

type All = (Mutex<Vec<Heard>>, Condvar);

/// All that was heard.
pub struct Watch(Arc<All>);

impl Watch {
    /// Begins, in a thread that ends with the process.
    pub fn start(memory: Arc<GuestMemory>) -> Result<Watch> {
        let events = memory.watch()?;
        let all: Arc<All> = Arc::default();
        let watch = Watch(all.clone());
        spawn(move || {
            if let Err(error) = listen(events, &memory, &all) {
                line(&format!("# the VMM hears nothing more: {error:#}"));
            }
        });
        Ok(watch)
    }

    /// What was heard up to now.
    pub fn all(&self) -> Vec<Heard> {
        let (all, _) = &*self.0;
        all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there has been an access past the end of each of these files.
    pub fn past_end(&self, names: [&str; 2]) -> Result<[Heard; 2]> {
        let (all, changed) = &*self.0;
        let both = |all: &Vec<Heard>| {
            let of = |name| {
                all.iter()
                    .find(|heard| heard.first.is_past_end_of(name))
                    .cloned()
            };
            Some([of(names[0])?, of(names[1])?])
        };
        let all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, _) = changed
            .wait_timeout_while(all, PATIENCE, |all| both(all).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match both(&all) {
            Some(both) => Ok(both),
            None => bail!("the VMM has heard of {all:x?}"),
        }
    }
}

fn listen(events: Events, memory: &GuestMemory, (all, changed): &All) -> Result<()> {
    for event in events {
        let miss = Miss::of_event(memory, &event?)?;
        let path = |miss: &Miss| miss.page.as_ref().map(|page| page.path.clone());
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let same = all
            .iter_mut()
            .find(|heard| heard.first.reason == miss.reason && path(&heard.first) == path(&miss));
        match same {
            Some(heard) => heard.count += 1,
            None => all.push(Heard {
                first: miss,
                count: 1,
            }),
        }
        changed.notify_all();
    }
    Ok(())
}
