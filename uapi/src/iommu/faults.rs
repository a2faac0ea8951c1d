// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an IOMMU reports: accesses by devices to what is not mapped for them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Domain;
use crate::{Errno, Event, EventKind, Events, Prot, Result, page_size};

/// An access by a device to what is not mapped for it: an item of [`Faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Through which view, and so by which device: [`View::id()`](crate::View::id). A
    /// fault can be read after its view was closed; a later view has another id.
    pub view: u64,
    /// The page: its IOVA, in bytes.
    pub iova: u64,
    /// How it was accessed.
    pub access: Prot,
    /// Why that is a fault.
    pub reason: Reason,
    /// The thread of the device, in its own PID namespace.
    pub tid: u32,
}

/// Why an access is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing is mapped there.
    NotMapped,
    /// The mapping does not allow the access.
    Denied,
    /// Nothing is mapped there, and the device waits for that to change: its view has
    /// [`Holes::WAIT`](crate::Holes::WAIT). This is a page request, as of PCI devices.
    Waits,
    /// Something is mapped, and the memory behind it is not there: the file is shorter, the
    /// page is bad; or a wait has ended without a mapping.
    Other(EventKind),
}

/// The faults of all devices of a domain, in the order in which they happened: made by
/// [`Domain::faults()`].
///
/// It is an iterator, which waits for the next fault. For an event loop there are
/// [`AsFd`], [`set_nonblocking()`](Faults::set_nonblocking) and
/// [`try_next()`](Faults::try_next): the file descriptor is readable when there is a fault.
///
/// ```no_run
/// use std::collections::HashMap;
/// # use address_space::iommu::{Domain, Reason};
/// # use address_space::Prot;
/// # fn tell_the_guest(endpoint: u32, iova: u64, access: Prot, mapped: bool) {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let domain = Domain::new(4 << 30..5 << 30)?;
/// // Two devices in one domain, and the numbers by which the guest knows them.
/// let views = [8, 16].map(|endpoint| (domain.view(Prot::READ_WRITE), endpoint));
/// let mut endpoints = HashMap::new();
/// for (view, endpoint) in views {
///     endpoints.insert(view?.id()?, endpoint);
/// }
/// let mut faults = domain.faults()?;
/// while let Some(fault) = faults.next() {
///     let fault = fault?;
///     // None for a view that is gone.
///     if let Some(&endpoint) = endpoints.get(&fault.view) {
///         let mapped = fault.reason == Reason::Denied;
///         tell_the_guest(endpoint, fault.iova, fault.access, mapped);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Devices that fault all the time
///
/// No device waits for its faults to be read. The kernel keeps 256, and then only counts:
/// [`lost()`](Faults::lost) is the number of those that it has not kept. A device has a
/// place only as long as it has fewer than are free, so one that floods does not keep those
/// of others out.
///
/// A hole that is absorbed is reported once: after that it costs the device nothing, and the
/// VMM hears nothing, until a map, an unmap or a [replace](Domain::replace) that includes it,
/// or [`Domain::report_again()`]. A VMM that wants to be told of all accesses, as a guest is
/// by hardware, calls that as often as it wants to hear of a device that accesses the same
/// page without end: an unmapped ring that it polls, for example.
#[derive(Debug)]
pub struct Faults {
    events: Events,
    /// The first IOVA.
    start: u64,
    lost: AtomicU64,
}

impl Domain {
    /// The faults of all devices of the domain, from now on. There is one such stream at a
    /// time.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::watch()`](crate::AddressSpace::watch): EBUSY if there is one
    /// already.
    pub fn faults(&self) -> Result<Faults> {
        let all = 0..self.inner.aperture.end - self.inner.aperture.start;
        Ok(Faults {
            events: self.inner.space.watch(all, None)?,
            start: self.inner.aperture.start,
            lost: AtomicU64::new(0),
        })
    }

    /// Has the next access to the page at an IOVA reported again, if nothing is mapped there
    /// and an access was absorbed. What is mapped is left as it is, whoever maps it
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfAperture`](crate::Error::OutOfAperture);
    /// [`Error::Batch`](crate::Error::Batch), or [`Error::Unmap`](crate::Error::Unmap) of a
    /// domain without RAM: ENOMEM.
    pub fn report_again(&self, iova: u64) -> Result<()> {
        let iova = iova & !(page_size() - 1);
        let page = self.offsets(iova, page_size())?;
        let state = self.state();
        // Without RAM nothing is mapped.
        let Some(ram) = state.ram.first() else {
            return self.inner.space.unmap(page);
        };
        // An unmap takes out what absorbs. The map before it, of which nobody sees anything,
        // makes it fail where something is mapped.
        let both = self.inner.space.batch();
        let both = both.map(&ram.file.fd, ram.offset, page.clone(), Prot::empty());
        match both.unmap(page).commit() {
            Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
            done => done,
        }
    }
}

impl Faults {
    /// The next fault, for which it waits unless it is
    /// [nonblocking](Faults::set_nonblocking): then `None` if there is none now.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvents`](crate::Error::ReadEvents), which does not happen.
    pub fn try_next(&self) -> Result<Option<Fault>> {
        while let Some(event) = self.events.try_next()? {
            match event.kind {
                EventKind::Overflow { lost } => {
                    self.lost.fetch_add(lost, Relaxed);
                }
                _ => return Ok(Some(fault(self.start, &event))),
            }
        }
        Ok(None)
    }

    /// How many faults were lost, of those that happened before the next one that can be
    /// read.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether [`try_next()`](Faults::try_next) returns at once. This is of the open file,
    /// also where other processes have it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvents`](crate::Error::ReadEvents), which does not happen.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.events.set_nonblocking(nonblocking)
    }
}

/// The fault that an event tells of, in a domain whose first IOVA is `start`.
fn fault(start: u64, event: &Event) -> Fault {
    Fault {
        view: event.view,
        iova: start + event.offset,
        access: event.access,
        reason: match event.kind {
            EventKind::Hole => Reason::NotMapped,
            EventKind::Denied => Reason::Denied,
            EventKind::Wait => Reason::Waits,
            other => Reason::Other(other),
        },
        tid: event.tid,
    }
}

/// Ends when there is none and it is nonblocking.
impl Iterator for Faults {
    type Item = Result<Fault>;

    fn next(&mut self) -> Option<Result<Fault>> {
        self.try_next().transpose()
    }
}

impl AsFd for Faults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_a_fault_at_an_iova() {
        let event = Event {
            kind: EventKind::Hole,
            offset: 0x3000,
            access: Prot::WRITE,
            tid: 7,
            view: 9,
        };
        let is = fault(4 << 30, &event);
        assert_eq!((is.iova, is.view, is.tid), ((4 << 30) + 0x3000, 9, 7));
        assert_eq!((is.access, is.reason), (Prot::WRITE, Reason::NotMapped));
        for (kind, reason) in [
            (EventKind::Denied, Reason::Denied),
            (EventKind::Wait, Reason::Waits),
            (EventKind::PastEnd, Reason::Other(EventKind::PastEnd)),
            (
                EventKind::Unknown(99),
                Reason::Other(EventKind::Unknown(99)),
            ),
        ] {
            assert_eq!(fault(0, &Event { kind, ..event }).reason, reason);
        }
    }
}
