// SPDX-License-Identifier: GPL-2.0

//! The VMM: gives a guest RAM and a window, and runs it. It makes both address
//! spaces, sends file descriptors of the window's to the others, and never changes
//! it.

use std::os::fd::OwnedFd;

use address_space::{AddressSpace, KvmFlags, KvmWindow, Prot, vm_fd};
use anyhow::{Context as _, Result, bail};
use rig::channel::Channel;
use rig::{READ_WRITE, flat, memfd};

use crate::guest::{self, Event, Guest, Order};
use crate::message::{Answer, VmmOrder};
use crate::process;

/// How much of the window the device may see, in bytes.
pub const VIEW_LENGTH: u64 = 64 << 10;

struct Vmm {
    guest: Guest,
    ram: KvmWindow,
    /// What the guest sees of the window. The VMM itself does not look at it.
    _window: KvmWindow,
}

pub fn run() -> Result<()> {
    let mut vmm = None;
    process::serve(|order, fds, channel| {
        if let VmmOrder::Begin = order {
            vmm = Some(Vmm::begin(fds)?);
            return Ok(Answer::Done);
        }
        vmm.as_mut().context("not begun")?.serve(order, channel)
    })
}

impl Vmm {
    /// Makes the address spaces and the guest, and sends the file server and the
    /// device their file descriptors.
    fn begin(fds: Vec<OwnedFd>) -> Result<Vmm> {
        let Ok([to_server, to_device]) = <[OwnedFd; 2]>::try_from(fds) else {
            bail!("two channels expected");
        };
        let window = AddressSpace::new(guest::WINDOW_LENGTH)?;
        Channel::from(to_server).send_fd(&window)?;
        Channel::from(to_device).send_fd(window.view(0..VIEW_LENGTH, Prot::READ)?)?;

        let mut slots = None;
        let guest = Guest::new(|vm| {
            let window = window.attach_kvm(vm_fd(vm), 1, guest::WINDOW, .., KvmFlags::empty())?;
            slots = Some((make_ram(vm)?, window));
            Ok(())
        })?;
        let (ram, window) = slots.context("no memory")?;
        Ok(Vmm {
            guest,
            ram,
            _window: window,
        })
    }

    fn serve(&mut self, order: VmmOrder, channel: &Channel) -> Result<Answer> {
        let event = match order {
            VmmOrder::Begin => bail!("begun already"),
            VmmOrder::Read { offset } => self.guest.order(Order::Read(guest::WINDOW + offset))?,
            VmmOrder::Write { offset } => self.guest.order(Order::Write(guest::WINDOW + offset))?,
            VmmOrder::GoOn => self.guest.run()?,
            VmmOrder::Count => {
                let Event::Number(guest) = self.guest.order(Order::Count)? else {
                    bail!("the guest does not report its count");
                };
                let vmm = self.ram.read((guest::COUNT - guest::RAM) as usize)?;
                return Ok(Answer::Count { guest, vmm });
            }
            VmmOrder::Watch { offset } => {
                match self.guest.order(Order::Watch(guest::WINDOW + offset))? {
                    Event::Watching => channel.send(&Answer::Watching, &[])?,
                    event => bail!("the guest does not watch: {event:?}"),
                }
                // One entry into the guest, which ends only when the guest prints or
                // meets a hole.
                self.guest.run()?
            }
        };
        Ok(match event {
            Event::Line(line) => Answer::Line(line),
            Event::Hole => Answer::Hole,
            Event::Number(_) => Answer::Done,
            Event::Watching => bail!("the guest watches without an order"),
        })
    }
}

/// The guest's RAM, with its program in it: an address space that shows a memfd.
fn make_ram(vm: &kvm_ioctls::VmFd) -> Result<KvmWindow> {
    let memory = memfd::sparse("ram", guest::RAM_LENGTH)?;
    let space = AddressSpace::new(guest::RAM_LENGTH)?;
    space.map(&memory).at(0).prot(READ_WRITE).commit()?;
    let ram = space.attach_kvm(
        vm_fd(vm),
        0,
        guest::RAM,
        0..guest::RAM_LENGTH,
        KvmFlags::empty(),
    )?;
    ram.write_slice((flat::CODE - guest::RAM) as usize, guest::program().bytes())?;
    ram.write_slice(
        (guest::TEXT - guest::RAM) as usize,
        guest::GUEST_TEXT.as_bytes(),
    )?;
    Ok(ram)
}
