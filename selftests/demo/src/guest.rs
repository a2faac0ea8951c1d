// SPDX-License-Identifier: GPL-2.0

//! The guest: a program in flat 32-bit protected mode, and the virtual machine
//! it runs on.
//!
//! It asks for orders by reading I/O ports and prints to the serial port.
//! Everything else it does is to access memory.

use std::arch::global_asm;

use anyhow::{Context as _, Result, bail};
use kvm_bindings::kvm_segment;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::message::{LINE, first_line};

/// Where the guest finds its RAM.
pub const RAM: u64 = 0;
/// How much RAM it has, in bytes.
pub const RAM_LENGTH: u64 = 1 << 20;
/// Where the guest finds the window: where a PCI device would have it.
pub const WINDOW: u64 = 0xd000_0000;
/// How long the window is, in bytes.
pub const WINDOW_LENGTH: u64 = 1 << 20;

/// Where in RAM the program is,
pub const CODE: u64 = 0x1000;
/// where it counts the orders it has got,
pub const COUNT: u64 = 0x2000;
/// and where the text is that it writes.
pub const TEXT: u64 = 0x3000;

/// What the guest writes when told to write.
pub const GUEST_TEXT: &str = "The guest was here.\n";

/// Where it prints: the first serial port.
const SERIAL_PORT: u16 = 0x3f8;
/// Where it reads what to do,
const ORDER_PORT: u16 = 0x500;
/// and with which address.
const ADDRESS_PORT: u16 = 0x504;
/// Where it says that it is watching.
const WATCHING_PORT: u16 = 0x508;
/// Where it tells a number.
const NUMBER_PORT: u16 = 0x50c;

const READ: u32 = 1;
const WATCH: u32 = 2;
const WRITE: u32 = 3;
const TELL_COUNT: u32 = 4;

global_asm!(
    r#"
    .pushsection .rodata.demo_guest, "a", @progbits
    .code32
    .global demo_guest_start
    .global demo_guest_end
demo_guest_start:
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
    cmp $({tell_count}), %ebx
    je demo_guest_count
    hlt

    // Look at the word there until it changes, without leaving the guest.
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
demo_guest_end:
    .code64
    .popsection
    "#,
    order_port = const ORDER_PORT,
    address_port = const ADDRESS_PORT,
    watching_port = const WATCHING_PORT,
    serial_port = const SERIAL_PORT,
    number_port = const NUMBER_PORT,
    read = const READ,
    watch = const WATCH,
    write = const WRITE,
    tell_count = const TELL_COUNT,
    line = const LINE,
    count = const COUNT,
    text = const TEXT,
    options(att_syntax),
);

unsafe extern "C" {
    static demo_guest_start: u8;
    static demo_guest_end: u8;
}

/// The guest's program, to be put at [`CODE`].
pub fn program() -> &'static [u8] {
    let (start, end) = (&raw const demo_guest_start, &raw const demo_guest_end);
    let length = end as usize - start as usize;
    // SAFETY: Both are labels around one piece of constant data.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// What the guest can be told to do, with a guest address.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Print the line there: [`Event::Line`].
    Read(u64),
    /// Say that it looks there: [`Event::Watching`]. When the word there has
    /// changed, print the line: [`Event::Line`].
    Watch(u64),
    /// Write [`GUEST_TEXT`] there: [`Event::Number`].
    Write(u64),
    /// Tell the count: [`Event::Number`].
    TellCount,
}

impl Order {
    /// What the guest reads from the two ports.
    fn words(self) -> (u32, u32) {
        let (order, address) = match self {
            Order::Read(address) => (READ, address),
            Order::Watch(address) => (WATCH, address),
            Order::Write(address) => (WRITE, address),
            Order::TellCount => (TELL_COUNT, 0),
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
    /// It looks at memory from now on.
    Watching,
    /// It tells a number.
    Number(u32),
    /// It met a hole: `KVM_RUN` failed with EFAULT. Entered again, it makes the
    /// same access again.
    Hole,
}

/// A virtual machine of one vCPU.
pub struct Guest {
    // It keeps the machine.
    vcpu: VcpuFd,
    order: Option<Order>,
    printed: Vec<u8>,
}

impl Guest {
    /// Makes the machine, with no memory. `give_memory` gives it some, with the
    /// program in it.
    pub fn new(give_memory: impl FnOnce(&VmFd) -> Result<()>) -> Result<Guest> {
        let kvm = Kvm::new().context("cannot open /dev/kvm: is there KVM on this machine?")?;
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        // Intel processors that cannot run real mode need it to start.
        vm.set_tss_address(0xfffb_d000)
            .context("KVM_SET_TSS_ADDR")?;
        give_memory(&vm)?;
        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        enter_protected_mode(&vcpu).context("cannot set the registers")?;
        Ok(Guest {
            vcpu,
            order: None,
            printed: Vec::new(),
        })
    }

    /// Has the guest begin with an order, and runs it.
    pub fn order(&mut self, order: Order) -> Result<Event> {
        self.order = Some(order);
        self.run()
    }

    /// Runs the guest from where it stands until it has something to tell.
    pub fn run(&mut self) -> Result<Event> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoIn(ORDER_PORT, data)) => {
                    let order = self.order.context("the guest asks for an order too many")?;
                    data.copy_from_slice(&order.words().0.to_le_bytes());
                }
                Ok(VcpuExit::IoIn(ADDRESS_PORT, data)) => {
                    let order = self.order.take().context("the guest asks for an address")?;
                    data.copy_from_slice(&order.words().1.to_le_bytes());
                }
                Ok(VcpuExit::IoOut(SERIAL_PORT, b"\n")) => {
                    return Ok(Event::Line(first_line(&std::mem::take(&mut self.printed))));
                }
                Ok(VcpuExit::IoOut(SERIAL_PORT, bytes)) => self.printed.extend(bytes),
                Ok(VcpuExit::IoOut(WATCHING_PORT, _)) => return Ok(Event::Watching),
                Ok(VcpuExit::IoOut(NUMBER_PORT, data)) => {
                    let bytes = data.try_into().context("a number of another size")?;
                    return Ok(Event::Number(u32::from_le_bytes(bytes)));
                }
                // A kernel may or may not say where.
                Ok(VcpuExit::MemoryFault { .. }) => return Ok(Event::Hole),
                Err(error) if error.errno() == libc::EFAULT => return Ok(Event::Hole),
                Err(error) if error.errno() == libc::EINTR => {}
                Ok(exit) => bail!("the guest was left for an unexpected reason: {exit:?}"),
                Err(error) => return Err(error).context("KVM_RUN"),
            }
        }
    }
}

/// Flat segments of 4 GiB, no paging, and the first instruction next.
fn enter_protected_mode(vcpu: &VcpuFd) -> Result<()> {
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    const EXECUTE_READ_ACCESSED: u8 = 0xb;
    const READ_WRITE_ACCESSED: u8 = 0x3;
    const CR0_PE: u64 = 1;

    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = segment(0x08, EXECUTE_READ_ACCESSED);
    let data = segment(0x10, READ_WRITE_ACCESSED);
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    sregs.cr0 |= CR0_PE;
    vcpu.set_sregs(&sregs)?;

    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE;
    regs.rflags = 2;
    vcpu.set_regs(&regs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_fits_its_place_in_ram() {
        let length = program().len() as u64;
        assert!(length > 0 && CODE + length <= COUNT, "{length} bytes");
        assert!(TEXT + (GUEST_TEXT.len() as u64) < RAM_LENGTH);
    }
}
