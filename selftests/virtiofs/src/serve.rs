// SPDX-License-Identifier: GPL-2.0

//! The vhost-user device: the queues of a guest, and the requests in them.
//!
//! Each queue has a thread, which takes one request at a time and completes it before it
//! takes the next. So what is used is all that was ever taken but for one request, and a
//! server that takes over from one that was killed begins where the used ring ends,
//! whatever the VMM says: there is no need to share a record of requests in flight. A VMM
//! that connects to it must kick each queue, since the kick for that one request is gone.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use fuse_backend_rs::abi::fuse_abi::{InHeader, Opcode, OutHeader};
use fuse_backend_rs::api::server::{MetricsHook, Server};
use fuse_backend_rs::transport::{Reader, VirtioFsWriter};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error, VhostUserBackend, VhostUserDaemon, VringMutex, VringT as _};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::QueueT as _;
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::share::{NoHandler, Share, set_request};

/// The most requests that a queue has room for.
const QUEUE_SIZE: usize = 1024;

/// The feature that lets both sides agree on features of the protocol.
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringMutex<Memory>;

/// Serves one connection of a VMM, until it ends.
///
/// `requests` is the number of queues for ordinary requests; there is one more, for what
/// must not wait behind those.
pub fn serve(listener: &UnixListener, share: &Arc<Server<Share>>, requests: usize) -> Result<()> {
    let memory = Memory::new(GuestMemoryMmap::new());
    let backend = Arc::new(Backend {
        share: share.clone(),
        memory: memory.clone(),
        event_idx: AtomicBool::new(false),
        resumed: (0..=requests).map(|_| AtomicBool::new(false)).collect(),
    });
    let mut daemon = VhostUserDaemon::new("virtiofs".to_owned(), backend, memory)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut listener = Listener::from(listener.try_clone()?);
    let served = daemon.start(&mut listener).and_then(|()| daemon.wait());
    match served {
        // How a VMM ends, or is killed.
        Ok(())
        | Err(Error::HandleRequest(
            VhostUserError::Disconnected
            | VhostUserError::PartialMessage
            | VhostUserError::SocketBroken(_),
        )) => Ok(()),
        Err(error) => bail!("{error}"),
    }
}

/// The device.
struct Backend {
    share: Arc<Server<Share>>,
    memory: Memory,
    event_idx: AtomicBool,
    /// Whether a queue has begun where the server before left it.
    resumed: Vec<AtomicBool>,
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.resumed.len()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        let offered = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
        ];
        offered
            .iter()
            .fold(PROTOCOL_FEATURES, |all, bit| all | (1 << bit))
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        for resumed in &self.resumed {
            resumed.store(false, Ordering::Relaxed);
        }
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    fn update_memory(&self, _: Memory) -> io::Result<()> {
        // It is the one that this has.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.num_queues()).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        match new_event_consumer_and_notifier(EventFlag::NONBLOCK) {
            Ok(event) => Some(event),
            Err(error) => {
                log::error!("a queue's thread will not end: {error}");
                None
            }
        }
    }

    fn handle_event(&self, _: u16, _: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        // Each thread has one queue.
        let [vring] = vrings else {
            return Ok(());
        };
        // A queue that fails is broken by its guest: its thread stays, for after a reset.
        if let Err(error) = self.run(vring, thread) {
            log::error!("queue {thread}: {error}");
        }
        Ok(())
    }
}

/// What is wrong with a queue.
type Broken = Box<dyn std::error::Error + Send + Sync>;

impl Backend {
    /// Handles all requests in a queue.
    fn run(&self, vring: &Vring, queue: usize) -> Result<(), Broken> {
        if !self.resumed[queue].swap(true, Ordering::Relaxed) {
            self.resume(vring)?;
        }
        loop {
            if self.event_idx.load(Ordering::Relaxed) {
                vring.disable_notification()?;
            }
            while self.handle_one(vring, queue)? {}
            // Whether there is another by now, for which there is no event.
            if !self.event_idx.load(Ordering::Relaxed) || !vring.enable_notification()? {
                return Ok(());
            }
        }
    }

    /// Begins where the used ring ends.
    fn resume(&self, vring: &Vring) -> Result<(), Broken> {
        let used = vring.queue_used_idx()?;
        {
            let mut state = vring.get_mut();
            let queue = state.get_queue_mut();
            if queue.next_avail() != used {
                log::info!("begins at request {used}, not {}", queue.next_avail());
            }
            queue.set_next_avail(used);
            queue.set_next_used(used);
        }
        // The last request may be completed and the guest not know it.
        vring.signal_used_queue()?;
        Ok(())
    }

    /// Handles the next request in a queue, if there is one.
    fn handle_one(&self, vring: &Vring, queue: usize) -> Result<bool, Broken> {
        let memory = self.memory.memory();
        let next = {
            let mut state = vring.get_mut();
            state.get_queue_mut().pop_descriptor_chain(memory.clone())
        };
        let Some(chain) = next else {
            return Ok(false);
        };
        let head = chain.head_index();
        let written = {
            let from = Reader::from_descriptor_chain(&*memory, chain.clone());
            let into = VirtioFsWriter::new(&*memory, chain);
            match (from, into) {
                (Ok(from), Ok(into)) => self.answer(from, into, queue),
                (Err(error), _) | (_, Err(error)) => {
                    log::error!("a request that is not in memory: {error}");
                    0
                }
            }
        };
        vring.add_used(head, written)?;
        if vring.needs_notification()? {
            vring.signal_used_queue()?;
        }
        Ok(true)
    }

    /// Answers a request; returns how many bytes the answer has.
    fn answer(&self, from: Reader<'_>, into: VirtioFsWriter<'_>, queue: usize) -> u32 {
        let seen = Seen {
            queue: queue as u32,
            opcode: Cell::new(0),
        };
        let handler = &mut NoHandler;
        let done = self
            .share
            .handle_message(from, into.into(), Some(handler), Some(&seen));
        match done {
            // The answer to this one is not counted.
            Ok(0) if seen.opcode.get() == Opcode::Destroy as u32 => size_of::<OutHeader>() as u32,
            // No answer is longer than a request allows, which is in 32 bits.
            Ok(length) => u32::try_from(length).unwrap_or(u32::MAX),
            Err(error) => {
                log::error!("request {}: {error}", seen.opcode.get());
                0
            }
        }
    }
}

/// Sees the header of a request before it is handled.
struct Seen {
    queue: u32,
    opcode: Cell<u32>,
}

impl MetricsHook for Seen {
    fn collect(&self, header: &InHeader) {
        self.opcode.set(header.opcode);
        set_request(self.queue, header.unique);
    }

    fn release(&self, _: Option<&OutHeader>) {}
}
