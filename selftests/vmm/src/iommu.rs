// SPDX-License-Identifier: GPL-2.0

//! virtio-iommu over an address space. A request of the guest's driver is completed only
//! after the kernel has done what it asks for, so that the device cannot reach what the
//! guest knows to be unmapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_space::iommu::{Domain, Mapping};
use address_space::{Errno, Holes, Prot, View, page_size};
use anyhow::{Context as _, Result, ensure};
use rig::READ_WRITE;
use rig::ram::Ram;
use virtio_queue::{Queue as VirtQueue, QueueT as _};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::EventFd;

use crate::fault_queue::{self, FaultQueue};
use crate::virtio::{self, Setup};

/// All I/O virtual addresses. The guest's driver allocates from 4 GiB downwards.
const APERTURE: Range<u64> = 0..4 << 30;

// From the standard.
const F_INPUT_RANGE: u64 = 0;
const F_DOMAIN_RANGE: u64 = 1;
const F_MAP_UNMAP: u64 = 2;
const T_ATTACH: u8 = 1;
const T_DETACH: u8 = 2;
const T_MAP: u8 = 3;
const T_UNMAP: u8 = 4;
const MAP_F_READ: u32 = 1;
const MAP_F_WRITE: u32 = 2;
const MOST_DOMAINS: u32 = 1023;

const QUEUES: [u16; 2] = [128, fault_queue::BURST];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    DeviceError = 3,
    Unsupported = 2,
    Invalid = 4,
    Range = 5,
    NoEntry = 6,
    NoMemory = 8,
}

/// Counts of what the driver did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub maps: u64,
    pub unmaps: u64,
    /// Steps of the address space for both,
    pub steps: u64,
    /// and how long they took.
    pub time: Duration,
    /// How often the driver kicked for them.
    pub kicks: u64,
    /// Requests that were refused.
    pub refused: u64,
}

impl Counts {
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            maps: self.maps - before.maps,
            unmaps: self.unmaps - before.unmaps,
            steps: self.steps - before.steps,
            time: self.time - before.time,
            kicks: self.kicks - before.kicks,
            refused: self.refused - before.refused,
        }
    }
}

/// The device. It has one endpoint, which is in no domain at first, and so reaches
/// nothing.
pub struct Iommu {
    ram: Arc<Ram>,
    endpoint: u32,
    config: [u8; 40],
    /// What the endpoint reaches.
    enforced: Arc<Domain>,
    /// Where the driver hears of what it does not reach.
    faults: FaultQueue,
    /// Which of the guest's domains that is.
    attached: Option<u32>,
    /// The mappings of the domain with the endpoint; no other domain has any.
    mappings: BTreeMap<u64, Mapping>,
    requests: Option<(VirtQueue, Option<EventFd>)>,
    pub counts: Counts,
}

/// A request for the endpoint's domain.
#[derive(Debug)]
enum Change {
    Map(Mapping),
    Unmap(Range<u64>),
}

#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct Attach {
    domain: u32,
    endpoint: u32,
    flags: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct Map {
    domain: u32,
    start: u64,
    last: u64,
    physical: u64,
    flags: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct Unmap {
    domain: u32,
    start: u64,
    last: u64,
}

// SAFETY: The struct is packed and consists of integers, for which any bytes are valid.
unsafe impl ByteValued for Attach {}
// SAFETY: As for `Attach`.
unsafe impl ByteValued for Map {}
// SAFETY: As for `Attach`.
unsafe impl ByteValued for Unmap {}

impl Iommu {
    pub fn new(ram: &Arc<Ram>, endpoint: u32) -> Result<Iommu> {
        let enforced = Arc::new(Domain::new(APERTURE)?);
        enforced.add_ram(0, ram, 0, ram.length())?;
        let faults = FaultQueue::new(ram, &enforced)?;
        let mut config = [0; 40];
        // Every power of two from a page on.
        config[..8].copy_from_slice(&(!(page_size() - 1)).to_le_bytes());
        config[8..16].copy_from_slice(&APERTURE.start.to_le_bytes());
        config[16..24].copy_from_slice(&(APERTURE.end - 1).to_le_bytes());
        config[28..32].copy_from_slice(&MOST_DOMAINS.to_le_bytes());
        Ok(Iommu {
            ram: ram.clone(),
            endpoint,
            config,
            enforced,
            faults,
            attached: None,
            mappings: BTreeMap::new(),
            requests: None,
            counts: Counts::default(),
        })
    }

    /// What the endpoint's device gets, and what becomes of its accesses to the rest. Of those
    /// the driver is told.
    pub fn view(&self, holes: Holes) -> Result<View> {
        let view = self.enforced.view_with(READ_WRITE, holes)?;
        self.faults.add_endpoint(view.id()?, self.endpoint);
        Ok(view)
    }

    pub fn faults(&self) -> &FaultQueue {
        &self.faults
    }

    pub fn domain(&self) -> &Domain {
        &self.enforced
    }

    /// The guest physical address that the driver has mapped at `iova`.
    pub fn translate(&self, iova: u64) -> Result<u64> {
        let below = self.mappings.range(..=iova).next_back();
        below
            .map(|(_, mapping)| (iova - mapping.iova, mapping))
            .filter(|(offset, mapping)| *offset < mapping.length)
            .map(|(offset, mapping)| mapping.gpa + offset)
            .with_context(|| format!("nothing is mapped at {iova:#x}"))
    }

    /// Does all requests in the queue, with as few steps of the space as possible.
    fn serve(&mut self) -> Result<()> {
        let Some((mut queue, call)) = self.requests.take() else {
            return Ok(());
        };
        self.counts.kicks += 1;
        let ram = self.ram.clone();
        let memory = ram.memory();
        let mut run: Vec<(u16, Change)> = Vec::new();
        let mut done: Vec<(u16, Status)> = Vec::new();
        let mut tails = BTreeMap::new();
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let mut request = chain.clone().reader(memory)?;
            tails.insert(head, chain.writer(memory)?);
            match self.parse(&mut request) {
                Ok(Request::Change(change)) => {
                    if run.last().is_some_and(|(_, last)| !last.is_like(&change)) {
                        done.extend(self.change(std::mem::take(&mut run)));
                    }
                    run.push((head, change));
                }
                Ok(Request::Domain(domain)) => {
                    done.extend(self.change(std::mem::take(&mut run)));
                    done.push((head, self.attach(domain)));
                }
                Err(status) => done.push((head, status)),
            }
        }
        done.extend(self.change(run));
        for (head, status) in done {
            self.counts.refused += u64::from(status != Status::Ok);
            let tail = tails.get_mut(&head).context("a request without a tail")?;
            tail.write_obj([status as u8, 0, 0, 0])?;
            queue.add_used(memory, head, 4)?;
        }
        if let (Some(call), true) = (&call, queue.needs_notification(memory)?) {
            call.write(1)?;
        }
        self.requests = Some((queue, call));
        Ok(())
    }

    fn parse(&self, request: &mut virtio_queue::Reader<'_>) -> Result<Request, Status> {
        let short = |_| Status::Invalid;
        let [kind, ..] = request.read_obj::<[u8; 4]>().map_err(short)?;
        match kind {
            T_ATTACH | T_DETACH => {
                let attach: Attach = request.read_obj().map_err(short)?;
                if attach.endpoint != self.endpoint {
                    return Err(Status::NoEntry);
                }
                if kind == T_ATTACH && attach.flags != 0 {
                    return Err(Status::Unsupported);
                }
                Ok(Request::Domain((kind == T_ATTACH).then_some(attach.domain)))
            }
            T_MAP => {
                let map: Map = request.read_obj().map_err(short)?;
                let length = self.length(map.domain, map.start, map.last)?;
                let flags = map.flags;
                let prot = match flags {
                    MAP_F_READ => Prot::READ,
                    flags if flags & !(MAP_F_READ | MAP_F_WRITE) != 0 => {
                        return Err(Status::Invalid);
                    }
                    0 => Prot::empty(),
                    // There is no memory that can be written and not read.
                    _ => READ_WRITE,
                };
                Ok(Request::Change(Change::Map(Mapping {
                    iova: map.start,
                    gpa: map.physical,
                    length,
                    prot,
                })))
            }
            T_UNMAP => {
                let unmap: Unmap = request.read_obj().map_err(short)?;
                let length = self.length(unmap.domain, unmap.start, unmap.last)?;
                let range = unmap.start..unmap.start + length;
                Ok(Request::Change(Change::Unmap(range)))
            }
            _ => Err(Status::Unsupported),
        }
    }

    /// The length of a range in the endpoint's domain, up to and with its last byte.
    fn length(&self, domain: u32, start: u64, last: u64) -> Result<u64, Status> {
        if self.attached != Some(domain) {
            return Err(Status::NoEntry);
        }
        if last < start || last >= APERTURE.end {
            return Err(Status::Range);
        }
        Ok(last - start + 1)
    }

    /// Moves the endpoint to a domain, or out of all. The domain that it leaves is
    /// destroyed with all its mappings.
    fn attach(&mut self, domain: Option<u32>) -> Status {
        if domain.is_some() && self.attached == domain {
            return Status::Ok;
        }
        if let Err(error) = self.enforced.replace(&[]) {
            return status(&error);
        }
        self.mappings.clear();
        self.attached = domain;
        self.faults.set_attached(domain.is_some());
        Status::Ok
    }

    /// Does requests of one kind, in one step if none of them is refused.
    fn change(&mut self, run: Vec<(u16, Change)>) -> Vec<(u16, Status)> {
        if run.len() > 1 {
            let all: Vec<_> = run.iter().map(|(_, change)| change).collect();
            if self.apply(&all) == Status::Ok {
                return run.iter().map(|(head, _)| (*head, Status::Ok)).collect();
            }
        }
        run.iter()
            .map(|(head, change)| (*head, self.apply(&[change])))
            .collect()
    }

    fn apply(&mut self, changes: &[&Change]) -> Status {
        let mut maps = Vec::new();
        let mut unmaps = Vec::new();
        for change in changes {
            match change {
                Change::Map(mapping) => maps.push(mapping.clone()),
                Change::Unmap(range) => {
                    if is_cut(&self.mappings, range) {
                        return Status::Range;
                    }
                    unmaps.push(range.clone());
                }
            }
        }
        let start = Instant::now();
        let result = if unmaps.is_empty() {
            self.enforced.map_all(&maps)
        } else {
            self.enforced.unmap_all(&unmaps)
        };
        self.counts.time += start.elapsed();
        self.counts.steps += 1;
        if let Err(error) = result {
            return status(&error);
        }
        self.counts.maps += maps.len() as u64;
        self.counts.unmaps += unmaps.len() as u64;
        for range in unmaps {
            self.mappings.retain(|iova, _| !range.contains(iova));
        }
        let mapped = maps.into_iter().map(|mapping| (mapping.iova, mapping));
        self.mappings.extend(mapped);
        Status::Ok
    }
}

enum Request {
    Change(Change),
    Domain(Option<u32>),
}

impl Change {
    fn is_like(&self, other: &Change) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Whether a mapping is only partly in the range, which then must not be unmapped.
fn is_cut(mappings: &BTreeMap<u64, Mapping>, range: &Range<u64>) -> bool {
    let end = |mapping: &Mapping| mapping.iova + mapping.length;
    let below = mappings.range(..range.start).next_back();
    let within = mappings.range(range.clone()).next_back();
    below.is_some_and(|(_, mapping)| end(mapping) > range.start)
        || within.is_some_and(|(_, mapping)| end(mapping) > range.end)
}

fn status(error: &address_space::Error) -> Status {
    match error.errno() {
        Some(Errno::NOMEM) => Status::NoMemory,
        Some(Errno::EXIST | Errno::INVAL) | None => Status::Invalid,
        Some(_) => Status::DeviceError,
    }
}

impl virtio::Device for Iommu {
    const KIND: u16 = 23;
    const CLASS: u32 = 0x080600;

    /// Requests, and events.
    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        (1 << F_INPUT_RANGE) | (1 << F_DOMAIN_RANGE) | (1 << F_MAP_UNMAP)
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, setup: Setup) -> Result<()> {
        let mut queues = setup.queues.into_iter();
        let requests = queues.next().context("no queue")?;
        let queue = requests.served_by_vmm(QUEUES[0], &self.ram)?;
        self.requests = Some((queue, requests.call));
        if let Some(events) = queues.next() {
            let queue = events.served_by_vmm(QUEUES[1], &self.ram)?;
            self.faults.start(queue, events.call)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.requests = None;
        self.faults.stop();
        // Or the device would go on with what the driver had mapped.
        let status = self.attach(None);
        ensure!(
            status == Status::Ok,
            "the device keeps its mappings: {status:?}"
        );
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<()> {
        match queue {
            0 => self.serve(),
            _ => self.faults.buffers_given(),
        }
    }

    /// None: the driver's CPU waits for the answer, so its thread may serve the request.
    fn kick(&self, _: usize) -> Option<&EventFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_unmapped_whole_or_not() {
        let mapping = |iova, length| {
            let (gpa, prot) = (0, Prot::READ);
            let mapping = Mapping {
                iova,
                gpa,
                length,
                prot,
            };
            (iova, mapping)
        };
        let mappings = [mapping(0x1000, 0x2000), mapping(0x4000, 0x1000)].into();
        for (range, cut) in [
            (0..0x1000, false),
            (0..0x2000, true),
            (0..0x3000, false),
            (0..0x10000, false),
            (0x1000..0x3000, false),
            (0x1000..0x2000, true),
            (0x2000..0x3000, true),
            (0x2000..0x8000, true),
            (0x3000..0x4000, false),
            (0x3000..0x5000, false),
        ] {
            assert_eq!(is_cut(&mappings, &range), cut, "{range:#x?}");
        }
    }

    #[test]
    fn requests_are_as_long_as_the_standard_says() {
        // With the first word, and without the status.
        assert_eq!(4 + size_of::<Attach>(), 16);
        assert_eq!(4 + size_of::<Map>(), 36);
        assert_eq!(4 + size_of::<Unmap>(), 24);
    }
}
