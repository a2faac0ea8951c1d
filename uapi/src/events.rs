// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who accesses what an address space does not have.

use std::fmt;
use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{read, retry_on_intr};

use crate::batch::length_of;
use crate::call::{call, call_for_fd, size_field};
use crate::{AddressSpace, Errno, Error, Prot, Result, sys};

/// Events of an address space: made by
/// [`AddressSpace::watch()`](crate::AddressSpace::watch).
///
/// As long as it is open, tasks wait at holes of the range that it watches, where the
/// policy is [`Holes::WAIT`](crate::Holes::WAIT), and are told of here. When it is
/// dropped, or its process dies, they are refused.
///
/// It is an iterator, which waits for the next event. For an event loop there are
/// [`AsFd`], [`set_nonblocking()`](Events::set_nonblocking) and
/// [`try_next()`](Events::try_next): the file descriptor is readable when there is an
/// event.
///
/// ```no_run
/// # use address_space::{AddressSpace, EventKind, Holes, Prot};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let image = std::fs::File::open("/dev/shm/image")?;
/// let space = AddressSpace::new(1 << 30)?;
/// let lazy = space.view_with(0..1 << 30, Prot::READ, Holes::WAIT)?;
/// // Whoever attaches the view waits for each page until it is mapped:
/// for event in space.watch(0..1 << 30, None)? {
///     let event = event?;
///     if event.kind == EventKind::Wait {
///         space.map(&image).offset(event.offset).length(4096).at(event.offset).commit()?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
}

impl AddressSpace {
    /// Watches a range (bytes, multiples of the page size): tasks that access holes of
    /// it, and that wait there where [`Holes::WAIT`](crate::Holes::WAIT) says so, for no
    /// longer than `timeout`, in milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Watch`]: EBUSY if the address space is watched already; EINVAL if the
    /// range is empty, not aligned to pages, or not within the address space; ENOTTY of a
    /// [`part()`](AddressSpace::part), whose owner watches; ENOMEM, EMFILE, ENFILE.
    pub fn watch(&self, range: impl RangeBounds<u64>, timeout: Option<Duration>) -> Result<Events> {
        let range = self.bytes_of(range)?;
        let error = |errno| Error::Watch {
            range: range.clone(),
            errno,
        };
        if range.is_empty() {
            // For the kernel that is all of it.
            return Err(error(Errno::INVAL));
        }
        let timeout_ms = match timeout {
            None => 0,
            // 0 would be for ever.
            Some(timeout) => u32::try_from(timeout.as_millis())
                .unwrap_or(u32::MAX)
                .max(1),
        };
        let argument = sys::address_space_events {
            size: size_field::<sys::address_space_events>(),
            flags: 0,
            timeout_ms,
            __reserved: 0,
            addr: range.start,
            length: length_of(&range),
        };
        call_for_fd(&self.fd, argument)
            .map(Events::from)
            .map_err(error)
    }

    /// Refuses the accesses that wait in a range (bytes, multiples of the page size),
    /// and those that would, until something is mapped over it.
    ///
    /// # Errors
    ///
    /// [`Error::Poison`]: ENOENT if nobody [watches](AddressSpace::watch); ENOSPC for
    /// too many separate ranges; EINVAL if the range is empty, not aligned to pages, or
    /// not within the address space; ENOTTY of a [`part()`](AddressSpace::part).
    pub fn poison(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.poison_with(range, 0)
    }

    /// Ends that.
    ///
    /// # Errors
    ///
    /// As for [`poison()`](AddressSpace::poison).
    pub fn unpoison(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.poison_with(range, sys::ADDRESS_SPACE_POISON_CLEAR)
    }

    fn poison_with(&self, range: impl RangeBounds<u64>, flags: u32) -> Result<()> {
        let range = self.bytes_of(range)?;
        let mut argument = sys::address_space_poison {
            size: size_field::<sys::address_space_poison>(),
            flags,
            addr: range.start,
            length: length_of(&range),
        };
        match call(&self.fd, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Poison { range, errno }),
        }
    }
}

/// An access to what an address space does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What has become of it, and why.
    pub kind: EventKind,
    /// The page: its offset in the address space, in bytes.
    pub offset: u64,
    /// How it was accessed.
    pub access: Prot,
    /// The thread id of the task, in its own PID namespace.
    pub tid: u32,
    /// Through which asfd or view: [`View::id()`](crate::View::id).
    pub view: u64,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The task waits for something to be mapped.
    Wait,
    /// Nothing was mapped there.
    Hole,
    /// The protection did not allow the access.
    Denied,
    /// The file ends before that page.
    PastEnd,
    /// The memory is bad.
    MemoryError,
    /// The file could not provide the page.
    IoError,
    /// There was no memory.
    NoMemory,
    /// The page is poisoned.
    Poisoned,
    /// The task has waited for too long.
    TimedOut,
    /// A signal has ended a wait in `KVM_RUN`, which returns EFAULT and can be called
    /// again.
    Interrupted,
    /// Events were lost.
    Overflow {
        /// How many.
        lost: u64,
    },
    /// One that this version does not know.
    Unknown(u32),
}

impl fmt::Display for EventKind {
    /// A word; that of `last-refusal` in fdinfo, where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EventKind::Wait => "wait",
            EventKind::Hole => "hole",
            EventKind::Denied => "denied",
            EventKind::PastEnd => "past-end",
            EventKind::MemoryError => "memory-error",
            EventKind::IoError => "io-error",
            EventKind::NoMemory => "no-memory",
            EventKind::Poisoned => "poisoned",
            EventKind::TimedOut => "timed-out",
            EventKind::Interrupted => "interrupted",
            EventKind::Overflow { lost } => return write!(f, "lost {lost}"),
            EventKind::Unknown(number) => return write!(f, "event {number}"),
        })
    }
}

impl From<sys::address_space_event> for Event {
    fn from(event: sys::address_space_event) -> Self {
        let kind = match event.r#type {
            sys::ADDRESS_SPACE_EVENT_WAIT => EventKind::Wait,
            sys::ADDRESS_SPACE_EVENT_HOLE => EventKind::Hole,
            sys::ADDRESS_SPACE_EVENT_DENIED => EventKind::Denied,
            sys::ADDRESS_SPACE_EVENT_PAST_END => EventKind::PastEnd,
            sys::ADDRESS_SPACE_EVENT_MEMORY_ERROR => EventKind::MemoryError,
            sys::ADDRESS_SPACE_EVENT_IO_ERROR => EventKind::IoError,
            sys::ADDRESS_SPACE_EVENT_NO_MEMORY => EventKind::NoMemory,
            sys::ADDRESS_SPACE_EVENT_POISONED => EventKind::Poisoned,
            sys::ADDRESS_SPACE_EVENT_TIMED_OUT => EventKind::TimedOut,
            sys::ADDRESS_SPACE_EVENT_INTERRUPTED => EventKind::Interrupted,
            sys::ADDRESS_SPACE_EVENT_OVERFLOW => EventKind::Overflow { lost: event.offset },
            other => EventKind::Unknown(other),
        };
        Event {
            kind,
            offset: event.offset,
            access: Prot::from_bits_truncate(event.access),
            tid: event.tid,
            view: event.view,
        }
    }
}

impl Events {
    /// The next event, for which it waits unless it is
    /// [nonblocking](Events::set_nonblocking): then `None` if there is none now.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvents`]: EINVAL if the file descriptor is not that of events.
    pub fn try_next(&self) -> Result<Option<Event>> {
        const SIZE: usize = size_of::<sys::address_space_event>();
        let mut bytes = [0; SIZE];
        match retry_on_intr(|| read(&self.fd, &mut bytes)) {
            Ok(SIZE) => Ok(Some(Event::from(event(&bytes)))),
            Ok(_) => Err(Error::ReadEvents {
                errno: Errno::INVAL,
            }),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(Error::ReadEvents { errno }),
        }
    }

    /// Whether [`try_next()`](Events::try_next) returns at once. This is of the open
    /// file, also where other processes have it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvents`], which does not happen to an open file descriptor.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        let set = || {
            let mut flags = fcntl_getfl(&self.fd)?;
            flags.set(OFlags::NONBLOCK, nonblocking);
            fcntl_setfl(&self.fd, flags)
        };
        set().map_err(|errno| Error::ReadEvents { errno })
    }
}

/// The event that these bytes are.
fn event(bytes: &[u8; size_of::<sys::address_space_event>()]) -> sys::address_space_event {
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    use std::mem::offset_of;
    sys::address_space_event {
        size: word(offset_of!(sys::address_space_event, size)),
        r#type: word(offset_of!(sys::address_space_event, r#type)),
        offset: long(offset_of!(sys::address_space_event, offset)),
        access: word(offset_of!(sys::address_space_event, access)),
        tid: word(offset_of!(sys::address_space_event, tid)),
        view: long(offset_of!(sys::address_space_event, view)),
    }
}

/// Ends when there is none and it is nonblocking.
impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.try_next().transpose()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For events that were received from another process.
impl From<OwnedFd> for Events {
    fn from(fd: OwnedFd) -> Self {
        Events { fd }
    }
}

impl From<Events> for OwnedFd {
    fn from(events: Events) -> Self {
        events.fd
    }
}
