// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! alioth's virtio-fs device, whose window is memory that it was given.

use std::result;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use alioth::hv::IoeventFd;
use alioth::mem::mapped::{ArcMemPages, RamBus};
use alioth::mem::{LayoutChanged, MemRegion, MemRegionType};
use alioth::sync::notifier::Notifier;
use alioth::virtio::dev::fs::vu::{VuFs, VuFsParam};
use alioth::virtio::dev::{DevParam, Virtio, WakeEvent};
use alioth::virtio::queue::QueueReg;
use alioth::virtio::{DeviceId, Error, IrqSender};

type Result<T> = result::Result<T, Error>;

/// What such a device is made of: before it is built, and after.
#[derive(Debug)]
pub struct WithWindow<F> {
    pub files: F,
    pub window: ArcMemPages,
}

impl DevParam for WithWindow<VuFsParam> {
    type Device = WithWindow<VuFs>;

    fn build(self, name: impl Into<Arc<str>>) -> Result<Self::Device> {
        Ok(WithWindow {
            files: self.files.build(name)?,
            window: self.window,
        })
    }

    fn needs_mem_shared_fd(&self) -> bool {
        self.files.needs_mem_shared_fd()
    }
}

impl Virtio for WithWindow<VuFs> {
    type Config = <VuFs as Virtio>::Config;
    type Feature = <VuFs as Virtio>::Feature;

    /// The one method that is not the device's own.
    fn shared_mem_regions(&self) -> Option<Arc<MemRegion>> {
        let region = MemRegion::with_dev_mem(self.window.clone(), MemRegionType::Hidden);
        Some(Arc::new(region))
    }

    fn name(&self) -> &str {
        self.files.name()
    }

    fn id(&self) -> DeviceId {
        self.files.id()
    }

    fn num_queues(&self) -> u16 {
        self.files.num_queues()
    }

    fn config(&self) -> Arc<Self::Config> {
        self.files.config()
    }

    fn feature(&self) -> u128 {
        self.files.feature()
    }

    fn spawn_worker<S: IrqSender, E: IoeventFd>(
        self,
        event_rx: Receiver<WakeEvent<S, E>>,
        memory: Arc<RamBus>,
        queue_regs: Arc<[QueueReg]>,
    ) -> Result<(JoinHandle<()>, Arc<Notifier>)> {
        self.files.spawn_worker(event_rx, memory, queue_regs)
    }

    fn ioeventfd_offloaded(&self, queue: u16) -> Result<bool> {
        self.files.ioeventfd_offloaded(queue)
    }

    fn mem_change_callback(&self) -> Option<Box<dyn LayoutChanged>> {
        self.files.mem_change_callback()
    }
}
