// SPDX-License-Identifier: GPL-2.0

//! ADDRESS_SPACE_EVENTS, the file that it returns, and ADDRESS_SPACE_POISON.
//!
//! The file is one of its own, and not the asfd: what is attached keeps the asfd's file open, so
//! its end would not tell that the manager has died. The end of this file ends all waits.

use kernel::{
    bindings::{
        O_CLOEXEC,
        O_RDONLY, //
    },
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    prelude::*,
    sync::{
        poll::PollTable,
        Arc, //
    },
    time::Delta,
    uaccess::UserSliceWriter, //
};

use crate::{
    call::{
        file::SpaceFile,
        request::{
            self,
            reject_unknown_flags, //
        },
        uapi,
    },
    layout::SpacePage,
    space::{
        bytes,
        events::{
            Event,
            What, //
        },
        policy::Refusal,
        watch::{
            Reader,
            Watcher, //
        },
        Handle,
    },
    sys::file_operations::{
        self,
        Anonymous,
        Readable, //
    },
};

/// The state of an events file.
///
/// # Invariants
///
/// `reader` is that of the space's watcher.
struct Events {
    handle: Handle,
    reader: Arc<Reader>,
}

/// [`uapi::EVENTS`] on `of`.
pub(super) fn open(of: &impl SpaceFile, file: &File, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Events = uapi::read(ptr)?;
    reject_unknown_flags(arg.flags | arg.reserved, 0)?;
    request::may_change(file)?;
    let end = SpacePage::new(of.pages());
    let pages = match arg.length {
        // To the end.
        0 => {
            let first = SpacePage::new(request::pages(arg.addr)?);
            if first >= end {
                return Err(EINVAL);
            }
            first..end
        }
        length => request::Part::of(of, file).range(arg.addr, length)?,
    };
    let timeout = match arg.timeout_ms {
        0 => None,
        ms => Some(Delta::from_millis(ms.into())),
    };
    let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
    let watcher = Watcher::new(pages, timeout)?;
    let reader = watcher.reader().clone();
    let handle = of.terms().share();
    let file = file_operations::create_readable(O_RDONLY | O_CLOEXEC, |_| {
        handle.space().watch.begin(watcher)?;
        // INVARIANT: It has just become that.
        Ok(Events { handle, reader })
    })?;
    let number = fd.reserved_fd();
    fd.fd_install(file);
    Ok(number as isize)
}

/// [`uapi::POISON`] on `of`.
pub(super) fn poison(of: &impl SpaceFile, file: &File, ptr: UserPtr) -> Result<isize> {
    let arg: uapi::Poison = uapi::read(ptr)?;
    reject_unknown_flags(arg.flags, uapi::POISON_CLEAR)?;
    request::may_change(file)?;
    let pages = request::Part::of(of, file).range(arg.addr, arg.length)?;
    let watch = &of.space().watch;
    match arg.flags & uapi::POISON_CLEAR {
        0 => watch.poison(&pages)?,
        _ => watch.unpoison(&pages)?,
    }
    Ok(0)
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handle.space().watch.end();
    }
}

impl Anonymous for Events {
    const NAME: &'static CStr = c"[address_space_events]";
}

impl Readable for Events {
    /// As many events as fit, at least one. `EINVAL` where none fits.
    fn read(&self, out: &mut UserSliceWriter, nonblocking: bool) -> Result<usize> {
        const SIZE: usize = size_of::<uapi::Event>();
        if out.len() < SIZE {
            return Err(EINVAL);
        }
        let watch = &self.handle.space().watch;
        let mut done = 0;
        loop {
            while out.len() >= SIZE {
                let Some(next) = watch.next() else { break };
                let written = out.write(&record(&next.event));
                watch.end_telling(next, written.is_ok());
                match written {
                    Ok(()) => done += SIZE,
                    Err(_) if done > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            if done > 0 {
                return Ok(done);
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            watch.wait_for_something(&self.reader)?;
        }
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> bool {
        table.register_wait(file, &self.reader.changed);
        self.handle.space().watch.has_something()
    }
}

/// An event as user space reads it.
fn record(event: &Event) -> uapi::Event {
    let kind = match event.what {
        What::Waits => uapi::EVENT_WAIT,
        What::Lost(_) => uapi::EVENT_OVERFLOW,
        What::Refused(refusal) => match refusal {
            Refusal::Hole => uapi::EVENT_HOLE,
            Refusal::Denied | Refusal::DeniedByLender => uapi::EVENT_DENIED,
            Refusal::PastEnd => uapi::EVENT_PAST_END,
            Refusal::BadMemory(_) => uapi::EVENT_MEMORY_ERROR,
            Refusal::Failed => uapi::EVENT_IO_ERROR,
            Refusal::NoMemory => uapi::EVENT_NO_MEMORY,
            Refusal::Poisoned => uapi::EVENT_POISONED,
            Refusal::TimedOut => uapi::EVENT_TIMED_OUT,
            Refusal::Interrupted => uapi::EVENT_INTERRUPTED,
        },
    };
    uapi::Event {
        size: size_of::<uapi::Event>() as u32,
        kind,
        offset: match event.what {
            What::Lost(count) => count,
            _ => bytes(event.page.get()),
        },
        access: event.access.bits(),
        tid: event.tid,
        view: event.view,
    }
}
