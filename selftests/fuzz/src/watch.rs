// SPDX-License-Identifier: GPL-2.0

//! The step that the fuzzer is at, printed when it is terminated because it hangs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static SEED: AtomicU64 = AtomicU64::new(0);
static SEQUENCE: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);

pub fn at_sequence(seed: u64, sequence: u64) {
    SEED.store(seed, Relaxed);
    SEQUENCE.store(sequence, Relaxed);
}

pub fn at_step(step: u64) {
    STEP.store(step, Relaxed);
}

/// Makes SIGTERM print it, also in forked children, where it does not matter.
pub fn install() {
    // SAFETY: The handler only makes calls that are async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, on_term as *const () as usize) };
}

extern "C" fn on_term(_: i32) {
    let mut text = [0; 128];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        text[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"# ended at seed ");
    for (value, after) in [
        (&SEED, &b", sequence "[..]),
        (&SEQUENCE, b", step "),
        (&STEP, b"\n"),
    ] {
        let mut digits = [0; 20];
        let mut left = value.load(Relaxed);
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        put(&digits[first..]);
        put(after);
    }
    // SAFETY: Both calls are async-signal-safe, and the text is initialized.
    unsafe {
        libc::write(1, text.as_ptr().cast(), at);
        libc::_exit(124);
    }
}
