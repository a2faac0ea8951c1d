// SPDX-License-Identifier: GPL-2.0

//! Makes the steps with the kernel.

mod layouts;
mod waits;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use address_space::{AddressSpace, Device, Errno, Error, EventKind, Events, Holes, Prot};
use anyhow::{Context as _, Result, bail};

use crate::agent::{Agent, Order};
use crate::files::{Places, Shared};
use crate::guest::Guest;
use crate::model::{self, Model};
use crate::op::*;
use crate::region::{Region, seen};

/// Everything that a sequence uses. All of it ends when this is dropped.
pub struct Machine {
    device: Device,
    // Before those that wait.
    watches: [Option<Events>; WATCHES],
    // Before what is attached.
    guest: Option<Guest>,
    /// All but the first, which is this one.
    agents: [Option<Agent>; PROCESSES],
    waiters: [Option<Agent>; WAITERS],
    region: Region,
    asfds: [Option<AddressSpace>; SPACES],
    views: [Option<AddressSpace>; VIEWS],
    /// By which events name each asfd and view that was ever made.
    ids: Vec<u64>,
    files: [Option<Shared>; FILES],
    /// How long what was absorbed briefly was still seen, each time that it was seen at all.
    pub expiries: Vec<Duration>,
}

impl Machine {
    /// A new machine with these files, and the model of it.
    pub fn new(places: &Places, files: &[usize]) -> Result<(Machine, Model)> {
        let mut machine = Machine {
            device: Device::open()?,
            watches: Default::default(),
            guest: None,
            agents: Default::default(),
            waiters: Default::default(),
            region: Region::new()?,
            asfds: Default::default(),
            views: Default::default(),
            ids: Vec::new(),
            files: Default::default(),
            expiries: Vec::new(),
        };
        let mut models: [Option<model::File>; FILES] = Default::default();
        for &number in files {
            let made = Shared::make(places, number);
            let (file, model) = made.with_context(|| format!("cannot make file {number}"))?;
            machine.files[number] = Some(file);
            models[number] = Some(model);
        }
        Ok((machine, Model::new(models)))
    }

    fn space(&self, space: usize) -> Result<&AddressSpace> {
        self.asfds[space].as_ref().context("no such space")
    }

    fn file(&self, file: usize) -> Result<&Shared> {
        self.files[file].as_ref().context("no such file")
    }

    fn handle(&self, handle: Handle) -> Result<BorrowedFd<'_>> {
        Ok(self.file(handle.file)?.fd(handle.writable))
    }

    /// A view may allow all calls of an asfd.
    fn source(&self, source: Source) -> Result<&AddressSpace> {
        match source {
            Source::Space(space) => self.space(space),
            Source::View(view) => self.views[view].as_ref().context("no such view"),
        }
    }

    fn made(&mut self, made: AddressSpace) -> Result<AddressSpace> {
        self.ids.push(made.id()?);
        Ok(made)
    }

    fn guest(&mut self) -> Result<&mut Guest> {
        self.guest.as_mut().context("no guest")
    }

    /// Makes a step that is possible according to the model. An error is a failure, too.
    pub fn make(&mut self, op: &Op, model: &Model) -> Result<Seen> {
        match *op {
            Op::Create { space, holes } => {
                let holes = Holes::from_bits_retain(holes);
                match self.device.create_with(SPACE_PAGES * PAGE, holes) {
                    Ok(made) => self.asfds[space] = Some(self.made(made)?),
                    Err(error) => return answer(Err(error)),
                }
            }
            Op::Close(space) => self.asfds[space] = None,
            Op::Map { on, ref map } => {
                let file = self.handle(map.handle)?;
                let mut call = self
                    .source(on)?
                    .map(&file)
                    .offset(map.offset * PAGE)
                    .length(map.at.count * PAGE)
                    .at(map.at.start * PAGE)
                    .prot(prot(map.prot));
                if map.replace {
                    call = call.replace();
                }
                if map.private {
                    call = call.private();
                }
                if map.populate {
                    call = call.populate();
                }
                return answer(call.commit().map(|_| ()));
            }
            Op::MapAnywhere { on, ref map } => {
                let file = self.handle(map.handle)?;
                let mut call = self
                    .source(on)?
                    .map(&file)
                    .offset(map.offset * PAGE)
                    .length(map.at.count * PAGE)
                    .anywhere()
                    .prot(prot(map.prot));
                if map.private {
                    call = call.private();
                }
                if map.populate {
                    call = call.populate();
                }
                return match call.commit() {
                    Ok(addr) => Ok(Seen::At(addr / PAGE)),
                    Err(error) => answer(Err(error)),
                };
            }
            Op::Unmap { on, at } => return answer(self.source(on)?.unmap(at.bytes())),
            Op::Protect { on, at, prot: to } => {
                return answer(self.source(on)?.protect(at.bytes(), prot(to)));
            }
            Op::Move {
                on,
                at,
                to,
                replace,
            } => {
                let space = self.source(on)?;
                return answer(if replace {
                    space.move_over(at.bytes(), to * PAGE)
                } else {
                    space.move_to(at.bytes(), to * PAGE)
                });
            }
            Op::Batch { on, ref changes } => return self.batch(on, changes),
            Op::Want { on, at, want } => {
                return answer(self.source(on)?.advise(at.bytes(), advice(want)));
            }
            Op::Register {
                on,
                handle,
                offset,
                pages,
                prot: to,
                populate,
            } => {
                let file = self.handle(handle)?;
                let mut call = self
                    .source(on)?
                    .register(&file)
                    .offset(offset * PAGE)
                    .prot(prot(to));
                if let Some(pages) = pages {
                    call = call.length(pages * PAGE);
                }
                if populate {
                    call = call.populate();
                }
                return answer(call.commit());
            }
            Op::Unregister { on, handle } => {
                return answer(self.source(on)?.unregister(self.handle(handle)?));
            }
            Op::UnregisterAll(space) => return answer(self.space(space)?.unregister_all()),
            Op::MakeView {
                on,
                view,
                at,
                prot: to,
                holes,
                manage,
            } => {
                let holes = Holes::from_bits_retain(holes);
                let of = self.source(on)?;
                let made = match manage {
                    false => of.view_with(at.bytes(), prot(to), holes).map(OwnedFd::from),
                    true => of.part_with(at.bytes(), prot(to), holes).map(OwnedFd::from),
                };
                match made {
                    Ok(made) => self.views[view] = Some(self.made(made.into())?),
                    Err(error) => return answer(Err(error)),
                }
            }
            Op::CloseView(view) => self.views[view] = None,
            Op::Fsync(source) => {
                return Ok(seen(rustix::fs::fsync(self.source(source)?.as_fd())));
            }
            Op::Spawn(process) => self.agents[process] = Some(Agent::spawn()?),
            Op::Fork { from, to } => {
                let child = match &self.agents[from] {
                    None => Agent::fork()?,
                    Some(agent) => agent.fork_it()?,
                };
                self.agents[to] = Some(child);
            }
            Op::End(process) => self.agents[process]
                .take()
                .context("no such process")?
                .end()?,
            Op::Attach {
                process,
                source,
                at,
                prot,
                place,
            } => {
                let fd = self.source(source)?.as_fd();
                return match &self.agents[process] {
                    None => Ok(seen(self.region.attach(fd, at, prot, place))),
                    Some(agent) => agent.ask(&Order::Attach(at, prot, place), &[fd]),
                };
            }
            Op::Detach { process, at } => {
                return match &self.agents[process] {
                    None => Ok(seen(self.region.detach(at))),
                    Some(agent) => agent.ask(&Order::Detach(at), &[]),
                };
            }
            Op::Mprotect { process, at, prot } => {
                return match &self.agents[process] {
                    None => Ok(seen(self.region.mprotect(at, prot))),
                    Some(agent) => agent.ask(&Order::Mprotect(at, prot), &[]),
                };
            }
            Op::Mremap { process, at, to } => {
                return match &self.agents[process] {
                    None => Ok(seen(self.region.mremap(at, to))),
                    Some(agent) => agent.ask(&Order::Mremap(at, to), &[]),
                };
            }
            Op::Touch {
                process,
                ref touches,
            } => return self.touch(process, model.meaningful(process, touches)),
            Op::Sweep(process) => return self.touch(process, model.sweep(process)),
            Op::Write {
                file,
                cell,
                value,
                mapped: true,
            } => self.file(file)?.write_mapped(cell, value),
            Op::Write {
                file, cell, value, ..
            } => self.file(file)?.write(cell, value)?,
            Op::Truncate { file, cells } => self.file(file)?.truncate(cells)?,
            Op::Punch { file, at } => self.file(file)?.punch(at)?,
            Op::Advise { file, at, advice } => self.file(file)?.advise(at, advice)?,
            Op::Check(file) => return self.file(file)?.content(),
            Op::TakeBack(file) => self.file(file)?.take_back()?,
            Op::Boot => self.guest = Some(Guest::boot()?),
            Op::Halt => self.guest = None,
            Op::Plug {
                source,
                slot,
                at,
                readonly,
                log,
                holes,
            } => {
                let of = match source {
                    Source::Space(space) => &self.asfds[space],
                    Source::View(view) => &self.views[view],
                };
                let of = of.as_ref().context("nothing to plug")?;
                let guest = self.guest.as_mut().context("no guest")?;
                return Ok(guest.plug(of, slot, at, readonly, log, holes));
            }
            Op::Unplug { source, slot } => {
                let fd = self.source(source)?.as_fd().try_clone_to_owned()?;
                return self.guest()?.unplug(fd.as_fd(), slot);
            }
            Op::Guest(ref touches) => {
                let touches = model.meaningful_in_guest(touches);
                return Ok(Seen::Touched(self.guest()?.touch(&touches)?));
            }
            Op::GuestSweep => {
                let touches = model.guest_sweep();
                return Ok(Seen::Touched(self.guest()?.touch(&touches)?));
            }
            Op::Vmm(ref touches) => {
                let touches = model.meaningful_in_vmm(touches);
                return Ok(Seen::Touched(self.guest()?.touch_here(&touches)?));
            }
            Op::Watch {
                on,
                watch,
                at,
                timed,
            } => {
                let timeout = timed.then_some(Duration::from_millis(TIMEOUT_MS));
                let of = self.source(on)?;
                let pages = match at {
                    Some(at) => at.bytes(),
                    None => 0..of.length()?,
                };
                match of.watch(pages, timeout) {
                    Ok(events) => {
                        events.set_nonblocking(true)?;
                        self.watches[watch] = Some(events);
                    }
                    Err(error) => return answer(Err(error)),
                }
            }
            Op::Unwatch(watch) => self.watches[watch] = None,
            Op::Poison { on, at, clear } => {
                let of = self.source(on)?;
                return answer(match clear {
                    false => of.poison(at.bytes()),
                    true => of.unpoison(at.bytes()),
                });
            }
            Op::ReadEvents(watch) => return self.read_events(watch),
            Op::Wait {
                waiter,
                process,
                ref touch,
            } => {
                let agent = match &self.agents[process] {
                    None => Agent::fork()?,
                    Some(agent) => agent.fork_it()?,
                };
                agent.start(&Order::Touch(vec![*touch]), &[])?;
                self.waiters[waiter] = Some(agent);
            }
            Op::GuestWait(touch) => self.guest()?.start(touch)?,
            Op::Interrupt(GUEST) => self.guest()?.interrupt()?,
            Op::Interrupt(waiter) => {
                let agent = self.waiters[waiter].as_ref().context("nobody waits")?;
                agent.signal(libc::SIGUSR1)?;
            }
            Op::Kill(waiter) => {
                let agent = self.waiters[waiter].take().context("nobody waits")?;
                agent.signal(libc::SIGKILL)?;
                agent.killed()?;
            }
            Op::Expire(process) => return self.expire(process, model.expiring(process)),
        }
        Ok(Seen::Done)
    }

    fn touch(&mut self, process: usize, touches: Vec<Touch>) -> Result<Seen> {
        match &self.agents[process] {
            None => Ok(Seen::Touched(self.region.touch(&touches)?)),
            Some(agent) => agent.ask(&Order::Touch(touches), &[]),
        }
    }

    fn batch(&self, on: Source, changes: &[Change]) -> Result<Seen> {
        let handles: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Map(map) => self.handle(map.handle).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_>>()?;
        let mut batch = self.source(on)?.batch();
        for (change, handle) in changes.iter().zip(&handles) {
            batch = match (change, handle) {
                (Change::Map(map), Some(handle)) => {
                    let (offset, at, prot) = (map.offset * PAGE, map.at.bytes(), prot(map.prot));
                    let batch = if map.replace {
                        batch.replace(handle, offset, at, prot)
                    } else {
                        batch.map(handle, offset, at, prot)
                    };
                    let batch = if map.private { batch.private() } else { batch };
                    if map.populate {
                        batch.populate()
                    } else {
                        batch
                    }
                }
                (Change::Unmap(at), _) => batch.unmap(at.bytes()),
                (Change::Protect(at, to), _) => batch.protect(at.bytes(), prot(*to)),
                (Change::Map(_), None) => bail!("no file to map"),
            };
        }
        match batch.commit() {
            Ok(()) => Ok(Seen::Done),
            Err(error) => {
                let errno = error.errno().map_or(0, Errno::raw_os_error);
                let Error::Batch { failed, .. } = error else {
                    bail!("a batch failed with {error}");
                };
                Ok(Seen::Refused(failed, errno))
            }
        }
    }

    fn read_events(&self, watch: usize) -> Result<Seen> {
        let events = self.watches[watch].as_ref().context("nothing to read")?;
        let mut told = Vec::new();
        while let Some(event) = events.try_next()? {
            let through = |id| self.ids.iter().rposition(|known| *known == id);
            told.push(match event.kind {
                EventKind::Overflow { lost } => Told::Lost(lost),
                kind => Told::Of {
                    kind,
                    page: event.offset / PAGE,
                    access: event.access.bits(),
                    through: through(event.view)
                        .with_context(|| format!("no view is {}", event.view))?,
                },
            });
        }
        Ok(Seen::Told(told))
    }
}

fn prot(bits: u32) -> Prot {
    Prot::from_bits_retain(bits)
}

fn advice(want: Want) -> address_space::Advice {
    match want {
        Want::DontNeed => address_space::Advice::DontNeed,
        Want::Remove => address_space::Advice::Remove,
        Want::WillNeed => address_space::Advice::WillNeed,
        Want::PopulateRead => address_space::Advice::PopulateRead,
        Want::PopulateWrite => address_space::Advice::PopulateWrite,
    }
}

fn answer(result: address_space::Result<()>) -> Result<Seen> {
    match result {
        Ok(()) => Ok(Seen::Done),
        Err(error) => match error.errno() {
            Some(errno) => Ok(Seen::Errno(errno.raw_os_error())),
            None => bail!("refused by the library: {error}"),
        },
    }
}
