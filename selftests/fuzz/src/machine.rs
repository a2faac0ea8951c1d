// SPDX-License-Identifier: GPL-2.0

//! Makes the steps with the kernel.

use std::os::fd::{AsFd as _, BorrowedFd};

use address_space::{AddressSpace, Device, Errno, Error, Prot, View};
use anyhow::{Context as _, Result, bail};
use rig::fdinfo;

use crate::agent::{Agent, Order};
use crate::files::{Places, Shared};
use crate::guest::{Guest, Plug};
use crate::model::{self, Model};
use crate::op::*;
use crate::region::{Region, seen};

/// Everything that a sequence uses. All of it ends when this is dropped.
pub struct Machine {
    device: Device,
    // Before what is attached.
    guest: Option<Guest>,
    /// All but the first, which is this one.
    agents: [Option<Agent>; PROCESSES],
    region: Region,
    asfds: [Option<AddressSpace>; SPACES],
    views: [Option<View>; VIEWS],
    files: [Option<Shared>; FILES],
}

impl Machine {
    /// A new machine with these files, and the model of it.
    pub fn new(places: &Places, files: &[usize]) -> Result<(Machine, Model)> {
        let mut machine = Machine {
            device: Device::open()?,
            guest: None,
            agents: Default::default(),
            region: Region::new()?,
            asfds: Default::default(),
            views: Default::default(),
            files: Default::default(),
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

    fn source(&self, source: Source) -> Result<BorrowedFd<'_>> {
        match source {
            Source::Space(space) => Ok(self.space(space)?.as_fd()),
            Source::View(view) => Ok(self.views[view].as_ref().context("no such view")?.as_fd()),
        }
    }

    fn guest(&mut self) -> Result<&mut Guest> {
        self.guest.as_mut().context("no guest")
    }

    /// Makes a step that is possible according to the model. An error is a failure, too.
    pub fn make(&mut self, op: &Op, model: &Model) -> Result<Seen> {
        match *op {
            Op::Create(space) => {
                self.asfds[space] = Some(self.device.create(SPACE_PAGES * PAGE)?);
            }
            Op::Close(space) => self.asfds[space] = None,
            Op::Map { space, ref map } => {
                let file = self.handle(map.handle)?;
                let mut call = self
                    .space(space)?
                    .map(&file)
                    .offset(map.offset * PAGE)
                    .length(map.at.count * PAGE)
                    .at(map.at.start * PAGE)
                    .prot(prot(map.prot));
                if map.replace {
                    call = call.replace();
                }
                if map.populate {
                    call = call.populate();
                }
                return answer(call.commit().map(|_| ()));
            }
            Op::MapAnywhere { space, ref map } => {
                let file = self.handle(map.handle)?;
                let mut call = self
                    .space(space)?
                    .map(&file)
                    .offset(map.offset * PAGE)
                    .length(map.at.count * PAGE)
                    .anywhere()
                    .prot(prot(map.prot));
                if map.populate {
                    call = call.populate();
                }
                return match call.commit() {
                    Ok(addr) => Ok(Seen::At(addr / PAGE)),
                    Err(error) => answer(Err(error)),
                };
            }
            Op::Unmap { space, at } => return answer(self.space(space)?.unmap(at.bytes())),
            Op::Protect {
                space,
                at,
                prot: to,
            } => {
                return answer(self.space(space)?.protect(at.bytes(), prot(to)));
            }
            Op::Move {
                space,
                at,
                to,
                replace,
            } => {
                let space = self.space(space)?;
                return answer(if replace {
                    space.move_over(at.bytes(), to * PAGE)
                } else {
                    space.move_to(at.bytes(), to * PAGE)
                });
            }
            Op::Batch { space, ref changes } => return self.batch(space, changes),
            Op::Register {
                space,
                handle,
                offset,
                pages,
                prot: to,
                populate,
            } => {
                let file = self.handle(handle)?;
                let mut call = self
                    .space(space)?
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
            Op::Unregister { space, handle } => {
                return answer(self.space(space)?.unregister(self.handle(handle)?));
            }
            Op::MakeView {
                space,
                view,
                at,
                prot: to,
            } => match self.space(space)?.view(at.bytes(), prot(to)) {
                Ok(made) => self.views[view] = Some(made),
                Err(error) => return answer(Err(error)),
            },
            Op::CloseView(view) => self.views[view] = None,
            Op::Fsync(source) => {
                return Ok(seen(rustix::fs::fsync(self.source(source)?)));
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
                let fd = self.source(source)?;
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
            Op::Boot => self.guest = Some(Guest::boot()?),
            Op::Halt => self.guest = None,
            Op::Plug {
                source,
                slot,
                at,
                readonly,
                log,
            } => {
                let of: &dyn Plug = match source {
                    Source::Space(space) => self.asfds[space].as_ref().context("no such space")?,
                    Source::View(view) => self.views[view].as_ref().context("no such view")?,
                };
                let guest = self.guest.as_mut().context("no guest")?;
                return Ok(guest.plug(of, slot, at, readonly, log));
            }
            Op::Unplug { source, slot } => {
                let fd = self.source(source)?.try_clone_to_owned()?;
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
                let touches = model.meaningful_in_guest(touches);
                return Ok(Seen::Touched(self.guest()?.touch_here(&touches)?));
            }
        }
        Ok(Seen::Done)
    }

    fn touch(&mut self, process: usize, touches: Vec<Touch>) -> Result<Seen> {
        match &self.agents[process] {
            None => Ok(Seen::Touched(self.region.touch(&touches)?)),
            Some(agent) => agent.ask(&Order::Touch(touches), &[]),
        }
    }

    fn batch(&self, space: usize, changes: &[Change]) -> Result<Seen> {
        let handles: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Map(map) => self.handle(map.handle).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_>>()?;
        let mut batch = self.space(space)?.batch();
        for (change, handle) in changes.iter().zip(&handles) {
            batch = match (change, handle) {
                (Change::Map(map), Some(handle)) => {
                    let (offset, at, prot) = (map.offset * PAGE, map.at.bytes(), prot(map.prot));
                    let batch = if map.replace {
                        batch.replace(handle, offset, at, prot)
                    } else {
                        batch.map(handle, offset, at, prot)
                    };
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

    /// The layout in the fdinfo of an open space.
    pub fn layout(&self, space: usize) -> Result<Vec<Line>> {
        let text = fdinfo::read(self.space(space)?)?;
        let mappings = fdinfo::mappings(&text)?;
        Ok(mappings.iter().map(|mapping| self.line(mapping)).collect())
    }

    fn line(&self, mapping: &fdinfo::Mapping) -> Line {
        let bits = (0..).zip(mapping.prot.chars().take(3));
        let set = bits.filter(|(_, letter)| *letter != '-');
        let is = |file: &usize| {
            let file = self.files[*file].as_ref();
            file.is_some_and(|file| file.is_at(&mapping.path))
        };
        let (start, end) = (mapping.range.start / PAGE, mapping.range.end / PAGE);
        Line {
            at: Span::new(start, end - start),
            prot: set.fold(0, |prot, (bit, _)| prot | (1 << bit)),
            offset: mapping.offset / PAGE,
            file: (0..FILES).find(is),
        }
    }
}

fn prot(bits: u32) -> Prot {
    Prot::from_bits_retain(bits)
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
