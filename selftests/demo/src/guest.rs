// SPDX-License-Identifier: GPL-2.0

//! The guest: a program in flat 32-bit protected mode, and the virtual machine
//! it runs on.
//!
//! It reads its orders from I/O ports and prints to the serial port. Otherwise it
//! only accesses memory.

use std::ops::ControlFlow::{Break, Continue};

use anyhow::{Context as _, Result};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use rig::flat;

use crate::message::{LINE, first_line};

/// The guest address of the RAM.
pub const RAM: u64 = 0;
/// How much RAM it has, in bytes.
pub const RAM_LENGTH: u64 = 1 << 20;
/// The guest address of the window: where a PCI device would have it.
pub const WINDOW: u64 = 0xd000_0000;
/// How long the window is, in bytes.
pub const WINDOW_LENGTH: u64 = 1 << 20;

/// Where in RAM the program counts the orders it has got,
pub const COUNT: u64 = 0x2000;
/// and where the text is that it writes.
pub const TEXT: u64 = 0x3000;

/// What the guest writes on [`Order::Write`].
pub const GUEST_TEXT: &str = "The guest was here.\n";

/// Where the guest prints: the first serial port.
const SERIAL_PORT: u16 = 0x3f8;
/// Where it reads its order,
const ORDER_PORT: u16 = 0x500;
/// and the address that belongs to it.
const ADDRESS_PORT: u16 = 0x504;
/// Where it reports that it is watching.
const WATCHING_PORT: u16 = 0x508;
/// Where it reports a number.
const NUMBER_PORT: u16 = 0x50c;

const READ: u32 = 1;
const WATCH: u32 = 2;
const WRITE: u32 = 3;
const COUNT_ORDER: u32 = 4;

rig::flat_code! {
    pub program: demo_guest_start..demo_guest_end, labels: [],
    r#"
    // The order to EBX, the address to ESI.
    mov $({order_port}), %edx
    in %dx, %eax
    mov %eax, %ebx
    mov $({address_port}), %edx
    in %dx, %eax
    mov %eax, %esi
    incl {count}

    cmp $({read}), %ebx
    je demo_guest_read
    cmp $({watch}), %ebx
    je demo_guest_watch
    cmp $({write}), %ebx
    je demo_guest_write
    cmp $({count_order}), %ebx
    je demo_guest_count
    hlt

    // Read the word there until it changes, without leaving the guest.
demo_guest_watch:
    mov (%esi), %ebx
    mov $({watching_port}), %edx
    out %eax, %dx
demo_guest_still:
    pause
    cmp (%esi), %ebx
    je demo_guest_still

    // Print the line there.
demo_guest_read:
    mov $({line}), %ecx
    mov $({serial_port}), %edx
demo_guest_character:
    mov (%esi), %al
    test %al, %al
    je demo_guest_line_end
    cmp $10, %al
    je demo_guest_line_end
    out %al, %dx
    inc %esi
    dec %ecx
    jnz demo_guest_character
demo_guest_line_end:
    mov $10, %al
    out %al, %dx
    jmp demo_guest_start

    // Copy the text there, without the zero byte that ends it.
demo_guest_write:
    mov $({text}), %edi
demo_guest_copy:
    mov (%edi), %al
    test %al, %al
    je demo_guest_count
    mov %al, (%esi)
    inc %edi
    inc %esi
    jmp demo_guest_copy

demo_guest_count:
    mov {count}, %eax
    mov $({number_port}), %edx
    out %eax, %dx
    jmp demo_guest_start
    "#,
    order_port = const ORDER_PORT,
    address_port = const ADDRESS_PORT,
    watching_port = const WATCHING_PORT,
    serial_port = const SERIAL_PORT,
    number_port = const NUMBER_PORT,
    read = const READ,
    watch = const WATCH,
    write = const WRITE,
    count_order = const COUNT_ORDER,
    line = const LINE,
    count = const COUNT,
    text = const TEXT,
}

/// What the guest can do; the numbers are guest addresses.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Print the line there: [`Event::Line`].
    Read(u64),
    /// Watch the word there: [`Event::Watching`]. When it has changed, print the
    /// line: [`Event::Line`].
    Watch(u64),
    /// Write [`GUEST_TEXT`] there: [`Event::Number`].
    Write(u64),
    /// Report the count: [`Event::Number`].
    Count,
}

impl Order {
    /// What the guest reads from the two ports.
    fn words(self) -> (u32, u32) {
        let (order, address) = match self {
            Order::Read(address) => (READ, address),
            Order::Watch(address) => (WATCH, address),
            Order::Write(address) => (WRITE, address),
            Order::Count => (COUNT_ORDER, 0),
        };
        // All memory the guest has is below 4 GiB.
        (order, address as u32)
    }
}

/// Why the guest was left.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It has printed this line.
    Line(String),
    /// It watches memory from now on.
    Watching,
    /// It reports a number.
    Number(u32),
    /// It met a hole: `KVM_RUN` failed with EFAULT. Run again, it makes the same
    /// access again.
    Hole,
}

/// A virtual machine of one vCPU.
pub struct Guest {
    // Holds the VM open.
    vcpu: VcpuFd,
    order: Option<Order>,
    printed: Vec<u8>,
}

impl Guest {
    /// Makes the machine. `give_memory` gives it memory, with [`program()`] in it.
    pub fn new(give_memory: impl FnOnce(&VmFd) -> Result<()>) -> Result<Guest> {
        let vm = flat::new_vm()?;
        give_memory(&vm)?;
        Ok(Guest {
            vcpu: flat::new_vcpu(&vm, 0)?,
            order: None,
            printed: Vec::new(),
        })
    }

    /// Gives the guest an order, and runs it.
    pub fn order(&mut self, order: Order) -> Result<Event> {
        self.order = Some(order);
        self.run()
    }

    /// Runs the guest from where it stopped until it has something to say.
    pub fn run(&mut self) -> Result<Event> {
        let (order, printed) = (&mut self.order, &mut self.printed);
        let event = flat::run(&mut self.vcpu, |exit| {
            let event = match exit {
                VcpuExit::IoIn(ORDER_PORT, data) => {
                    let order = order.context("the guest asks for one order too many")?;
                    data.copy_from_slice(&order.words().0.to_le_bytes());
                    return Ok(Continue(()));
                }
                VcpuExit::IoIn(ADDRESS_PORT, data) => {
                    let order = order.take().context("the guest asks for an address")?;
                    data.copy_from_slice(&order.words().1.to_le_bytes());
                    return Ok(Continue(()));
                }
                VcpuExit::IoOut(SERIAL_PORT, b"\n") => {
                    Event::Line(first_line(&std::mem::take(printed)))
                }
                VcpuExit::IoOut(SERIAL_PORT, bytes) => {
                    printed.extend(bytes);
                    return Ok(Continue(()));
                }
                VcpuExit::IoOut(WATCHING_PORT, _) => Event::Watching,
                VcpuExit::IoOut(NUMBER_PORT, data) => {
                    let bytes = data.try_into().context("a number of another size")?;
                    Event::Number(u32::from_le_bytes(bytes))
                }
                exit => return flat::unexpected(&exit),
            };
            Ok(Break(event))
        })?;
        Ok(event.unwrap_or(Event::Hole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_fits_its_place_in_ram() {
        let length = program().bytes().len() as u64;
        let end = flat::CODE + length;
        assert!(length > 0 && end <= COUNT, "{length} bytes");
        assert!(TEXT + (GUEST_TEXT.len() as u64) < RAM_LENGTH);
    }
}
