// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Helpers of the tests that need the module. They fail if it is not loaded.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[cfg(target_arch = "x86_64")]
#[cfg(feature = "kvm-ioctls")]
pub mod guest;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use address_space::{AddressSpace, Memory, Prot, page_size};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal as KillSignal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions,
    pidfd_open, pidfd_send_signal, waitid, waitpid,
};

pub const READ_WRITE: Prot = Prot::READ_WRITE;

/// An address space of this many pages.
pub fn space(pages: u64) -> AddressSpace {
    AddressSpace::new(pages * page_size()).unwrap_or_else(|error| panic!("{error}"))
}

/// The range of the pages from `first` up to `end`.
pub fn pages(first: u64, end: u64) -> std::ops::Range<u64> {
    first * page_size()..end * page_size()
}

/// A file with a page full of each of these letters.
pub fn file(letters: &str) -> File {
    let mut file =
        File::from(memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    for letter in letters.bytes() {
        file.write_all(&vec![letter; page_size() as usize]).unwrap();
    }
    file
}

/// The first byte of a page of a file.
pub fn letter_in_file(file: &File, page: u64) -> char {
    let mut byte = [0];
    file.read_exact_at(&mut byte, page * page_size()).unwrap();
    char::from(byte[0])
}

/// The first byte of each page of some memory: reading a hole is SIGBUS.
pub fn letters(memory: &Memory) -> String {
    (0..memory.len())
        .step_by(page_size() as usize)
        .map(|offset| char::from(memory.read::<u8>(offset).unwrap()))
        .collect()
}

/// The signal that ended a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

pub const SIGBUS: Signal = Signal(libc::SIGBUS);
pub const SIGSEGV: Signal = Signal(libc::SIGSEGV);

/// Another process that has memory attached, and accesses it on command.
///
/// It lives across many accesses, so that a page that it saw before could still be
/// visible to it.
pub struct Process {
    // Used to notice its end. The end of file of `answers` is not enough: children of
    // tests that run at the same time have inherited the other end.
    pidfd: OwnedFd,
    orders: OwnedFd,
    answers: OwnedFd,
}

impl Process {
    /// A forked child that inherits the memory.
    pub fn inheriting(memory: &Memory) -> Process {
        Process::accessing(|| memory)
    }

    /// A process that attaches a whole asfd or view itself.
    pub fn attaching(space: &AddressSpace, prot: Prot) -> Process {
        let length = space.length().unwrap();
        Process::accessing(|| space.attach(0..length, prot).unwrap())
    }

    /// A process that accesses the memory that `attach` returns in it.
    pub fn accessing<M: std::ops::Deref<Target = Memory>>(attach: impl FnOnce() -> M) -> Process {
        let (order_out, orders) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (answers, answer_in) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // SAFETY: The child makes system calls and accesses memory, and does
        // not return; it takes no lock that another thread may have held.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop((orders, answers));
                end_with(|| {
                    serve(&attach(), &order_out, &answer_in);
                    0
                })
            }
            pid => {
                let pid = Pid::from_raw(pid).unwrap();
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
                Process {
                    pidfd,
                    orders,
                    answers,
                }
            }
        }
    }

    /// The byte that the process reads at the start of a page, or the signal that
    /// ends it.
    pub fn letter(&mut self, page: u64) -> Result<char, Signal> {
        self.order(page, false, 0).map(char::from)
    }

    /// Has the process write to the start of a page.
    pub fn set_letter(&mut self, page: u64, letter: char) -> Result<(), Signal> {
        self.order(page, true, letter as u8).map(drop)
    }

    fn wait(&self) -> rustix::io::Result<Option<WaitIdStatus>> {
        waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
    }

    fn order(&mut self, page: u64, write_it: bool, value: u8) -> Result<u8, Signal> {
        let mut order = [0; ORDER];
        order[..8].copy_from_slice(&(page * page_size()).to_ne_bytes());
        order[8..].copy_from_slice(&[u8::from(write_it), value]);
        assert_eq!(write(&self.orders, &order), Ok(ORDER));

        let mut events = [
            PollFd::new(&self.answers, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut events, None)).unwrap();
        if events[0].revents().contains(PollFlags::IN) {
            let mut answer = [0];
            assert_eq!(read(&self.answers, &mut answer), Ok(1));
            return Ok(answer[0]);
        }
        let status = self.wait().unwrap().unwrap();
        Err(Signal(
            status
                .terminating_signal()
                .unwrap_or_else(|| panic!("no signal: {status:?}")),
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended already, and been waited for, both fail.
        let _ = pidfd_send_signal(&self.pidfd, KillSignal::KILL);
        let _ = self.wait();
    }
}

/// The bytes of an order: an offset, whether to write, and what.
const ORDER: usize = 10;

/// The loop of the other process, until its orders end.
fn serve(memory: &Memory, orders: impl AsFd, answers: impl AsFd) {
    let mut order = [0; ORDER];
    while read(&orders, &mut order) == Ok(ORDER) {
        let offset = u64::from_ne_bytes(order[..8].try_into().unwrap()) as usize;
        // Not through `Memory`, so that a write that it would refuse reaches the
        // kernel.
        // SAFETY: The tests use offsets within the memory. The access may raise a
        // signal, which is what they test.
        let value = unsafe {
            let byte = memory.as_ptr().add(offset);
            if order[8] == 0 {
                byte.read_volatile()
            } else {
                byte.write_volatile(order[9]);
                order[9]
            }
        };
        if write(&answers, &[value]) != Ok(1) {
            return;
        }
    }
}

/// Runs `test` in another process, and returns the number it returns.
pub fn in_another_process(test: impl FnOnce() -> i32) -> i32 {
    // SAFETY: As in `Process::accessing()`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => end_with(test),
        pid => {
            let pid = Pid::from_raw(pid).unwrap();
            let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
            status
                .exit_status()
                .unwrap_or_else(|| panic!("it did not exit: {status:?}"))
        }
    }
}

/// Ends a forked child after `life`. A panic in it must not reach the child's copy
/// of the test harness.
fn end_with(life: impl FnOnce() -> i32) -> ! {
    const PANICKED: i32 = 101;
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life)).unwrap_or(PANICKED);
    // SAFETY: Ends the child and nothing else.
    unsafe { libc::_exit(code) }
}
