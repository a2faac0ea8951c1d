// SPDX-License-Identifier: GPL-2.0

//! Accesses to memory that may not be there: each is one known instruction, and the handler
//! of the signal that it raises continues after it.

use std::arch::global_asm;
use std::mem::MaybeUninit;

use anyhow::{Result, ensure};

use crate::op::Touched;

// rdi: address; rsi: value. Returns rax: value, or the address of a signal; rdx: the
// signal, or 0.
global_asm!(
    r#"
    .pushsection .text.fuzz_probe, "ax", @progbits
    .global fuzz_load
    .global fuzz_load_at
    .global fuzz_store
    .global fuzz_store_at
    .global fuzz_resume
fuzz_load:
    xor edx, edx
fuzz_load_at:
    mov rax, [rdi]
fuzz_resume:
    ret
fuzz_store:
    xor edx, edx
fuzz_store_at:
    mov [rdi], rsi
    ret
    .popsection
    "#
);

#[repr(C)]
struct Outcome {
    value: u64,
    signal: u64,
}

unsafe extern "C" {
    fn fuzz_load(addr: u64) -> Outcome;
    fn fuzz_store(addr: u64, value: u64) -> Outcome;
    static fuzz_load_at: u8;
    static fuzz_store_at: u8;
    static fuzz_resume: u8;
}

/// Makes SIGBUS and SIGSEGV of probes a result, in all threads and in forked children. At
/// any other instruction they kill as usual.
pub fn install() -> Result<()> {
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: All zeroes is an action without flags and mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        // SAFETY: The handler is async-signal-safe: it only uses its arguments, and
        // signal(2).
        let ret = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        ensure!(ret == 0, "sigaction");
    }
    Ok(())
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: With SA_SIGINFO the kernel passes valid pointers to both.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    let probes = [&raw const fuzz_load_at, &raw const fuzz_store_at];
    if !probes
        .iter()
        .any(|at| *at as i64 == registers[libc::REG_RIP as usize])
    {
        // SAFETY: With the default action the access kills when it is made again.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: SIGBUS and SIGSEGV of an access have an address.
    registers[libc::REG_RAX as usize] = unsafe { info.si_addr() } as i64;
    registers[libc::REG_RDX as usize] = signal.into();
    registers[libc::REG_RIP as usize] = &raw const fuzz_resume as i64;
}

fn result(addr: u64, outcome: Outcome, ok: impl Fn(u64) -> Touched) -> Touched {
    match outcome.signal as i32 {
        0 => ok(outcome.value),
        _ if outcome.value != addr => Touched::Astray(outcome.value),
        libc::SIGBUS => Touched::Bus,
        _ => Touched::Segv,
    }
}

/// Reads the word at an address, whatever there is.
pub fn load(addr: u64) -> Touched {
    // SAFETY: A read changes nothing, and if it fails the handler continues after it.
    result(addr, unsafe { fuzz_load(addr) }, Touched::Value)
}

/// Writes the word at an address.
///
/// # Safety
///
/// Nothing else may use the memory at `addr`, if there is any.
pub unsafe fn store(addr: u64, value: u64) -> Touched {
    // SAFETY: The caller guarantees that nothing else uses the memory.
    result(addr, unsafe { fuzz_store(addr, value) }, |_| {
        Touched::Stored
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    #[test]
    fn returns_signals_and_goes_on() {
        install().unwrap();
        // SAFETY: A new mapping.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ,
                MapFlags::PRIVATE,
            )
        }
        .unwrap() as u64;
        assert_eq!(load(page), Touched::Value(0));
        // SAFETY: Nothing else uses the page.
        assert_eq!(unsafe { store(page, 7) }, Touched::Segv);
        assert_eq!(load(16), Touched::Segv);
        let mut word = 5;
        let addr = &raw mut word as u64;
        // SAFETY: The word is a local variable.
        assert_eq!(unsafe { store(addr, 7) }, Touched::Stored);
        assert_eq!(load(addr), Touched::Value(7));
    }
}
