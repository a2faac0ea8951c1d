// SPDX-License-Identifier: GPL-2.0

//! Row e: revocation of what 1 to 64 processes have touched, and of what a guest keeps
//! reading, against a message to each process to unmap it, and an answer from each.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, yield_now};

use address_space::AddressSpace;
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::plain::Plain;

use crate::guest::{End, Machine, Program, Vcpu};
use crate::memory::{HUGE, PAGE, resident};
use crate::peer::Peer;
use crate::rounds::{Bench, Goal, other, ours};

const REVOKED: &str = "unmap of an address space";
const MESSAGES: &str = "each asked to unmap, all acks awaited";
const VCPUS: usize = 2;

pub fn run(bench: &mut Bench) -> Result<()> {
    let file = resident(HUGE)?;
    let space = AddressSpace::new(HUGE as u64)?;
    space.register(&file).prot(READ_WRITE).populate().commit()?;
    let mut crowd = Crowd {
        file,
        space,
        peers: Vec::new(),
    };
    for processes in [1, 4, 16, 64] {
        crowd.grow(processes)?;
        for length in [PAGE, HUGE] {
            compare(bench, &crowd, length)?;
        }
    }
    crowd.peers.truncate(16);
    for length in [PAGE, HUGE] {
        with_guest(bench, &crowd, length)?;
    }
    Ok(())
}

fn compare(bench: &mut Bench, crowd: &Crowd, length: usize) -> Result<()> {
    let contenders = vec![
        ours(REVOKED, |clock| {
            crowd.show(length)?;
            clock.time(|| Ok(crowd.space.unmap(0..length as u64)?))
        }),
        other(MESSAGES, |clock| {
            crowd.map(length)?;
            clock.time(|| crowd.unmap(length))
        }),
    ];
    let goal = Goal {
        of: REVOKED,
        to: MESSAGES,
        at_most: 1.0 / 20.0,
    };
    let processes = crowd.peers.len();
    let goals = if processes == 16 { vec![goal] } else { vec![] };
    let name = format!("revoke {} KiB of {processes} processes", length >> 10);
    bench.compare('e', name, 4, contenders, &goals)
}

fn with_guest(bench: &mut Bench, crowd: &Crowd, length: usize) -> Result<()> {
    let slot = Plain::reserved(HUGE)?;
    let attached = Hot::on(Machine::with_space(&crowd.space)?, length / PAGE)?;
    let plain = Hot::on(Machine::with_plain(&slot)?, length / PAGE)?;
    let contenders = vec![
        ours(REVOKED, |clock| {
            crowd.show(length)?;
            attached.go()?;
            let took = clock.time(|| Ok(crowd.space.unmap(0..length as u64)?))?;
            attached.stopped()?;
            Ok(took)
        }),
        other(MESSAGES, |clock| {
            crowd.map(length)?;
            slot.map_at(0, &crowd.file, 0, length)?;
            plain.go()?;
            let took = clock.time(|| {
                crowd.request_unmap(length)?;
                slot.reserve_at(0, length)?;
                crowd.await_all()
            })?;
            plain.stopped()?;
            Ok(took)
        }),
    ];
    let name = format!(
        "revoke {} KiB of {} processes and a guest that is hot on it with {VCPUS} vCPUs",
        length >> 10,
        crowd.peers.len()
    );
    bench.compare('e', name, 4, contenders, &[])
}

/// Processes that have both attached an address space and reserved a room for mappings.
struct Crowd {
    file: File,
    space: AddressSpace,
    peers: Vec<Peer>,
}

impl Crowd {
    fn grow(&mut self, processes: usize) -> Result<()> {
        while self.peers.len() < processes {
            let peer = Peer::start()?;
            peer.attach(&self.space)?;
            peer.done()?;
            self.peers.push(peer);
        }
        Ok(())
    }

    /// Maps so many bytes of the file in the address space, and lets all read them.
    fn show(&self, length: usize) -> Result<()> {
        let map = self.space.map(&self.file).length(length as u64);
        map.at(0).prot(READ_WRITE).commit()?;
        self.all(|peer| peer.read_attached(length))
    }

    /// Lets each process map and read so many bytes of the file.
    fn map(&self, length: usize) -> Result<()> {
        self.all(|peer| peer.map(&self.file, length))?;
        self.all(|peer| peer.read(length))
    }

    fn unmap(&self, length: usize) -> Result<()> {
        self.request_unmap(length)?;
        self.await_all()
    }

    /// Sends all messages before it waits for the first answer.
    fn request_unmap(&self, length: usize) -> Result<()> {
        self.peers.iter().try_for_each(|peer| peer.unmap(length))
    }

    fn await_all(&self) -> Result<()> {
        self.peers.iter().try_for_each(Peer::done)
    }

    fn all(&self, order: impl Fn(&Peer) -> Result<()>) -> Result<()> {
        self.peers.iter().try_for_each(order)?;
        self.await_all()
    }
}

/// A guest that reads the same memory again and again, until it is a hole.
struct Hot {
    machine: Arc<Machine>,
    threads: Vec<Thread>,
}

struct Thread {
    go: Option<SyncSender<()>>,
    stopped: Receiver<Result<End>>,
    handle: Option<JoinHandle<()>>,
}

impl Hot {
    fn on(machine: Arc<Machine>, pages: usize) -> Result<Hot> {
        let thread = |id| {
            let mut vcpu = Vcpu::new(&machine, id as u64)?;
            let (go, orders) = sync_channel(0);
            let (result, stopped) = sync_channel(1);
            let handle = std::thread::spawn(move || {
                for () in orders {
                    let end = vcpu.load(Program::Hot(pages)).and_then(|()| vcpu.run());
                    if result.send(end).is_err() {
                        return;
                    }
                }
            });
            Ok(Thread {
                go: Some(go),
                stopped,
                handle: Some(handle),
            })
        };
        let threads = (0..VCPUS).map(thread).collect::<Result<_>>()?;
        Ok(Hot { machine, threads })
    }

    /// Starts the vCPUs, and waits until they run.
    fn go(&self) -> Result<()> {
        for thread in &self.threads {
            thread.go.as_ref().context("the vCPU has ended")?.send(())?;
        }
        let before = self.machine.rounds();
        while self.machine.rounds().wrapping_sub(before) < 10 {
            yield_now();
        }
        Ok(())
    }

    /// Waits until they have met a hole.
    fn stopped(&self) -> Result<()> {
        for thread in &self.threads {
            ensure!(
                thread.stopped.recv()?? == End::Hole,
                "the guest ended without a hole"
            );
        }
        Ok(())
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            thread.go = None;
            if let Some(handle) = thread.handle.take() {
                let _ = handle.join();
            }
        }
    }
}
