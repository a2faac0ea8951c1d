// SPDX-License-Identifier: GPL-2.0

//! The event queue of virtio-iommu: a thread tells the guest's driver of what devices have
//! accessed and have not. It reads a fault only when the driver has given it a buffer for
//! that, and no more than [`BURST`] of them every [`PACE`]; how many there are meanwhile is
//! the kernel's affair, which keeps some and counts the rest. So neither a device that faults
//! all the time nor a driver that does not listen costs anything.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use address_space::Prot;
use address_space::iommu::{Domain, Fault, Faults, Reason};
use anyhow::{Context as _, Result};
use rig::ram::Ram;
use rig::tap::line;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use virtio_queue::{Queue as VirtQueue, QueueT as _};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

// From the standard.
const R_UNKNOWN: u8 = 0;
const R_DOMAIN: u8 = 1;
const R_MAPPING: u8 = 2;
const F_READ: u32 = 1;
const F_WRITE: u32 = 1 << 1;
const F_EXEC: u32 = 1 << 2;
const F_ADDRESS: u32 = 1 << 8;

/// How long the queue is at most, and so how many faults are told of at a time.
pub const BURST: u16 = 16;
/// How long it then waits; after that, pages that were told of are reported again.
pub const PACE: Duration = Duration::from_millis(100);

/// `struct virtio_iommu_fault`.
#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct Event {
    reason: u8,
    reserved: [u8; 3],
    flags: u32,
    endpoint: u32,
    reserved2: [u8; 4],
    address: u64,
}

// SAFETY: The struct is packed and consists of integers, for which any bytes are valid.
unsafe impl ByteValued for Event {}

/// A fault that the driver was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub endpoint: u32,
    pub iova: u64,
    /// The bits of the protection that the device wanted.
    pub access: u32,
}

/// The queue, and the thread that fills it.
pub struct FaultQueue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ram: Arc<Ram>,
    domain: Arc<Domain>,
    faults: Faults,
    state: Mutex<State>,
    /// Whether the endpoint is in one of the guest's domains.
    attached: AtomicBool,
    /// Signalled when the driver has given buffers, and at the end.
    wake: EventFd,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The driver's queue and its interrupt, while there is a driver.
    queue: Option<(VirtQueue, Option<EventFd>)>,
    /// The endpoints that have these views.
    endpoints: BTreeMap<u64, u32>,
    told: Vec<Told>,
}

impl FaultQueue {
    /// Listens to the faults of a domain.
    pub fn new(ram: &Arc<Ram>, domain: &Arc<Domain>) -> Result<FaultQueue> {
        let faults = domain.faults()?;
        faults.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            ram: ram.clone(),
            domain: domain.clone(),
            faults,
            state: Mutex::default(),
            attached: AtomicBool::new(false),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            ended: AtomicBool::new(false),
        });
        let served = shared.clone();
        let thread = spawn(move || {
            if let Err(error) = served.serve() {
                line(&format!("# the guest hears of no more faults: {error:#}"));
            }
        });
        Ok(FaultQueue {
            shared,
            thread: Some(thread),
        })
    }

    /// Accesses through the view with this id are those of an endpoint.
    pub fn add_endpoint(&self, view: u64, endpoint: u32) {
        self.shared.state().endpoints.insert(view, endpoint);
    }

    /// Says whether the endpoint is in a domain.
    pub fn set_attached(&self, attached: bool) {
        self.shared.attached.store(attached, Ordering::Relaxed);
    }

    /// The driver is ready. It is not told of what was before.
    pub fn start(&self, queue: VirtQueue, call: Option<EventFd>) -> Result<()> {
        while self.shared.faults.try_next()?.is_some() {}
        self.shared.state().queue = Some((queue, call));
        self.buffers_given()
    }

    pub fn stop(&self) {
        self.shared.state().queue = None;
    }

    /// The driver has given buffers.
    pub fn buffers_given(&self) -> Result<()> {
        Ok(self.shared.wake.write(1)?)
    }

    /// What the driver was told of; all of it is reported again by now.
    pub fn told(&self) -> Vec<Told> {
        self.shared.state().told.clone()
    }

    /// How many faults the kernel has not kept.
    pub fn lost(&self) -> u64 {
        self.shared.faults.lost()
    }
}

impl Drop for FaultQueue {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // It fails only if the counter is full, and then the thread is awake.
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) -> Result<()> {
        loop {
            self.wait()?;
            if self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let told = self.tell()?;
            if told.is_empty() {
                continue;
            }
            sleep(PACE);
            for fault in &told {
                self.domain.report_again(fault.iova)?;
            }
            self.state().told.extend(told);
        }
    }

    /// Waits for a fault that the driver has a buffer for, or for the end.
    fn wait(&self) -> Result<()> {
        // SAFETY: `self.wake` owns the file descriptor and outlives the result; it is not -1,
        // since the eventfd was made.
        let wake = unsafe { BorrowedFd::borrow_raw(self.wake.as_raw_fd()) };
        let wake = || PollFd::from_borrowed_fd(wake, PollFlags::IN);
        let fault = || PollFd::new(&self.faults, PollFlags::IN);
        while !self.ended.load(Ordering::Relaxed) {
            let mut events = [fault(), wake()];
            retry_on_intr(|| poll(&mut events, None))?;
            let [fault, _] = events;
            if !fault.revents().is_empty() {
                if self.state().has_buffer(&self.ram) {
                    break;
                }
                // Linux does not kick for the first buffers that it gives.
                let pace = Timespec::try_from(PACE)?;
                retry_on_intr(|| poll(&mut [wake()], Some(&pace)))?;
            }
            // It fails if nobody has signalled.
            let _ = self.wake.read();
        }
        Ok(())
    }

    /// Tells the driver of the faults that it has buffers for.
    fn tell(&self) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        let mut state = self.state();
        while told.len() < usize::from(BURST) && state.has_buffer(&self.ram) {
            let Some(fault) = self.faults.try_next()? else {
                break;
            };
            // None for a view that is no endpoint's, or not any more.
            let Some(&endpoint) = state.endpoints.get(&fault.view) else {
                continue;
            };
            if let Err(error) = state.put(&self.ram, &self.event(endpoint, &fault)) {
                // A driver whose queue is broken hears nothing until it resets the device.
                line(&format!("# the driver's event queue: {error:#}"));
                state.queue = None;
            }
            told.push(Told {
                endpoint,
                iova: fault.iova,
                access: fault.access.bits(),
            });
        }
        Ok(told)
    }

    fn event(&self, endpoint: u32, fault: &Fault) -> Event {
        let reason = match fault.reason {
            _ if !self.attached.load(Ordering::Relaxed) => R_DOMAIN,
            Reason::NotMapped | Reason::Denied => R_MAPPING,
            _ => R_UNKNOWN,
        };
        Event {
            reason,
            flags: F_ADDRESS | flags(fault.access),
            endpoint,
            address: fault.iova,
            ..Default::default()
        }
    }
}

impl State {
    fn has_buffer(&self, ram: &Ram) -> bool {
        let index = |(queue, _): &(VirtQueue, _)| {
            let index = queue.avail_idx(ram.memory(), Ordering::Acquire).ok()?;
            Some(index.0 != queue.next_avail())
        };
        self.queue.as_ref().and_then(index) == Some(true)
    }

    /// Fills a buffer of the driver's.
    fn put(&mut self, ram: &Ram, event: &Event) -> Result<()> {
        let memory = ram.memory();
        let (queue, call) = self.queue.as_mut().context("there is none")?;
        let chain = queue.pop_descriptor_chain(memory).context("no buffer")?;
        let head = chain.head_index();
        chain.writer(memory)?.write_obj(*event)?;
        queue.add_used(memory, head, size_of::<Event>() as u32)?;
        if let (Some(call), true) = (call, queue.needs_notification(memory)?) {
            call.write(1)?;
        }
        Ok(())
    }
}

fn flags(access: Prot) -> u32 {
    [
        (Prot::READ, F_READ),
        (Prot::WRITE, F_WRITE),
        (Prot::EXEC, F_EXEC),
    ]
    .into_iter()
    .filter(|(prot, _)| access.contains(*prot))
    .fold(0, |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_as_long_as_the_standard_says() {
        assert_eq!(size_of::<Event>(), 24);
        assert_eq!(std::mem::offset_of!(Event, address), 16);
    }

    #[test]
    fn access_is_in_the_flags() {
        assert_eq!(flags(Prot::READ), F_READ);
        assert_eq!(flags(Prot::READ | Prot::WRITE), F_READ | F_WRITE);
        assert_eq!(flags(Prot::EXEC), F_EXEC);
    }
}
