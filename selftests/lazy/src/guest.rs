// SPDX-License-Identifier: GPL-2.0

//! The guest: a program of two CPUs that goes through all of its data, again and again. It
//! checks each word against what it must have left there, and writes the next.
//!
//! A word of the data says in which page it is, where in the page, and in which round it was
//! written. So a page that came from the wrong place or of the wrong moment, that came twice or
//! that lost what was written, is found: by the guest itself, and by [`image()`] at the end.

use std::ops::ControlFlow::{Break, Continue};
use std::ops::Range;

use anyhow::{Context as _, Result};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use rig::flat::{self, CpuState};
use serde::{Deserialize, Serialize};

/// How much memory the guest has, in bytes, from guest address 0 on.
pub const LENGTH: usize = 32 << 20;
/// The part of it that is for a device: the guest does not touch it.
pub const BUFFER: Range<usize> = 1 << 20..2 << 20;
/// The part that it goes through.
pub const DATA: Range<usize> = 8 << 20..24 << 20;
/// How many CPUs there are: each goes through every second page.
pub const CPUS: usize = 2;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 4;
/// The first word of a page is so many times its number, and the number of the round.
const FACTOR: u32 = 0x9e37_79b1;
/// How many pages a CPU has.
const PAGES: usize = (DATA.end - DATA.start) / PAGE / CPUS;
/// A CPU reports each time that it has been through so many.
const REPORTED: usize = 64;
/// How many reports a round has.
pub const REPORTS: usize = PAGES / REPORTED;

/// Where a CPU reports how many pages of the round are left,
const REPORT_PORT: u16 = 0x500;
/// and the address of a word that is wrong.
const WRONG_PORT: u16 = 0x504;

rig::flat_code! {
    program: lazy_guest_start..lazy_guest_end, labels: [],
    r#"
    // ESP: which CPU; EBP: the round; EDI: which of its pages, at first 0.
lazy_guest_round:
    mov $({pages}), %ecx
lazy_guest_page:
    lea (%esp, %edi, {cpus}), %esi
    imul $({factor}), %esi, %eax
    add %ebp, %eax
    shl $12, %esi
    add $({data}), %esi
    // Each word of an odd page is one more than the word before.
    mov %edi, %ebx
    and $1, %ebx
    mov $({words}), %edx
lazy_guest_word:
    cmp %eax, (%esi)
    jne lazy_guest_wrong
    inc %eax
    mov %eax, (%esi)
    lea -1(%eax, %ebx), %eax
    add $4, %esi
    dec %edx
    jnz lazy_guest_word
    // The next page: an order that goes through all of them.
    lea 3(%edi, %edi, 4), %edi
    and $({pages} - 1), %edi
    dec %ecx
    test $({reported} - 1), %ecx
    jnz lazy_guest_page
    mov $({report_port}), %edx
    mov %ecx, %eax
    out %eax, %dx
    test %ecx, %ecx
    jnz lazy_guest_page
    inc %ebp
    jmp lazy_guest_round

lazy_guest_wrong:
    mov $({wrong_port}), %edx
    mov %esi, %eax
    out %eax, %dx
    hlt
    "#,
    pages = const PAGES,
    cpus = const CPUS,
    factor = const FACTOR,
    data = const DATA.start,
    words = const WORDS,
    reported = const REPORTED,
    report_port = const REPORT_PORT,
    wrong_port = const WRONG_PORT,
}

/// All of the guest's memory after so many rounds, as long as no device has written to it.
pub fn image(rounds: u32) -> Vec<u8> {
    let mut image = vec![0; LENGTH];
    let code = program().bytes();
    image[flat::CODE as usize..][..code.len()].copy_from_slice(code);
    for (page, bytes) in (0..).zip(image[DATA].chunks_exact_mut(PAGE)) {
        let mut word = FACTOR.wrapping_mul(page).wrapping_add(rounds);
        let step = page / CPUS as u32 % 2;
        for place in bytes.chunks_exact_mut(4) {
            place.copy_from_slice(&word.to_le_bytes());
            word = word.wrapping_add(step);
        }
    }
    for (at, byte) in image[BUFFER].iter_mut().enumerate() {
        *byte = buffer_byte(at);
    }
    image
}

/// What is at an offset in the device's buffer.
pub fn buffer_byte(at: usize) -> u8 {
    (at / PAGE + at / 7) as u8
}

/// Why a CPU has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// It has made as many reports as it was to.
    Reports,
    /// It found a wrong word at this guest address.
    Wrong(u32),
    /// KVM_RUN failed with EFAULT: it accessed what it does not get.
    Refused,
}

/// A CPU.
pub struct Cpu(VcpuFd);

impl Cpu {
    /// A CPU at the beginning of the program.
    pub fn new(vm: &VmFd, index: usize) -> Result<Cpu> {
        let cpu = flat::new_vcpu(vm, index as u64)?;
        let mut regs = cpu.get_regs()?;
        (regs.rsp, regs.rbp, regs.rdi) = (index as u64, 0, 0);
        cpu.set_regs(&regs)?;
        Ok(Cpu(cpu))
    }

    /// A CPU that goes on where another was.
    pub fn restored(vm: &VmFd, index: usize, state: &CpuState) -> Result<Cpu> {
        Ok(Cpu(state.restore(vm, index as u64)?))
    }

    /// What it has in it.
    pub fn save(&mut self) -> Result<CpuState> {
        CpuState::save(&mut self.0)
    }

    /// Runs it until it has made so many reports.
    pub fn run(&mut self, reports: usize) -> Result<Stop> {
        let mut left = reports;
        let stop = flat::run(&mut self.0, |exit| match exit {
            VcpuExit::IoOut(REPORT_PORT, _) => {
                left -= 1;
                Ok(if left > 0 {
                    Continue(())
                } else {
                    Break(Stop::Reports)
                })
            }
            VcpuExit::IoOut(WRONG_PORT, data) => {
                let bytes = data.try_into().context("an address of another size")?;
                Ok(Break(Stop::Wrong(u32::from_le_bytes(bytes))))
            }
            exit => flat::unexpected(&exit),
        })?;
        Ok(stop.unwrap_or(Stop::Refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn program_goes_through_all_pages_and_fits_before_the_buffer() {
        let next = |page: &usize| Some((page * 5 + 3) & (PAGES - 1));
        let order: BTreeSet<_> = std::iter::successors(Some(0), next).take(PAGES).collect();
        assert_eq!(order.len(), PAGES);
        assert!(flat::CODE as usize + program().bytes().len() <= BUFFER.start);
    }

    #[test]
    fn rounds_and_pages_differ_in_each_word() {
        let (before, after) = (image(1), image(2));
        let words = before[DATA].chunks(4).zip(after[DATA].chunks(4));
        assert!(words.into_iter().all(|(before, after)| before != after));
        assert_ne!(before[DATA][..PAGE], before[DATA][PAGE..2 * PAGE]);
        assert_eq!(before[BUFFER], after[BUFFER]);
    }
}
