// SPDX-License-Identifier: GPL-2.0

//! Interrupts: each vector of a function is an eventfd that KVM turns into the message of
//! its table entry, without the VMM's help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Address, its upper half, data, and whether it is masked.
type Entry = [u32; 4];
const ENTRY: u64 = size_of::<Entry>() as u64;
const MASKED: u32 = 1;

/// The state of all vectors of a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Enabled,
    Masked,
}

/// All routes of the machine.
pub struct Router {
    vm: Arc<VmFd>,
    messages: Mutex<BTreeMap<u32, Entry>>,
}

impl Router {
    pub fn new(vm: Arc<VmFd>) -> Arc<Router> {
        Arc::new(Router {
            vm,
            messages: Mutex::default(),
        })
    }

    /// Sets a route. The lock is held until KVM has them all, so that an older set of them
    /// does not come after a newer one.
    fn route(&self, gsi: u32, entry: Entry) -> Result<()> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.insert(gsi, entry) == Some(entry) {
            return Ok(());
        }
        let entries = messages.iter().map(|(&gsi, entry)| kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                msi: kvm_irq_routing_msi {
                    address_lo: entry[0],
                    address_hi: entry[1],
                    data: entry[2],
                    ..Default::default()
                },
            },
            ..Default::default()
        });
        let entries: Vec<_> = entries.collect();
        Ok(self
            .vm
            .set_gsi_routing(&KvmIrqRouting::from_entries(&entries)?)?)
    }
}

struct Vector {
    entry: Entry,
    event: EventFd,
    gsi: u32,
    connected: bool,
}

/// The vectors of a function.
pub struct Msix {
    router: Arc<Router>,
    vectors: Vec<Vector>,
}

impl Msix {
    /// `first` is the number, among all messages, of its first vector.
    pub fn new(router: &Arc<Router>, first: u32, vectors: u16) -> Result<Msix> {
        let vectors = (0..u32::from(vectors))
            .map(|index| {
                Ok(Vector {
                    entry: [0, 0, 0, MASKED],
                    event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
                    gsi: first + index,
                    connected: false,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Msix {
            router: router.clone(),
            vectors,
        })
    }

    /// The eventfd that raises a vector, if the vector exists.
    pub fn event(&self, vector: u16) -> Option<&EventFd> {
        Some(&self.vectors.get(usize::from(vector))?.event)
    }

    pub fn read(&self, offset: u64) -> u32 {
        let vector = self.vectors.get((offset / ENTRY) as usize);
        vector.map_or(0, |vector| vector.entry[(offset % ENTRY / 4) as usize])
    }

    pub fn write(&mut self, offset: u64, value: u32, state: State) -> Result<()> {
        if let Some(vector) = self.vectors.get_mut((offset / ENTRY) as usize) {
            vector.entry[(offset % ENTRY / 4) as usize] = value;
        }
        self.connect(state)
    }

    /// Connects KVM as the table says. While a vector is masked its eventfd keeps the
    /// signals, and KVM reads it when it is connected again.
    pub fn connect(&mut self, state: State) -> Result<()> {
        for vector in &mut self.vectors {
            let open = state == State::Enabled && vector.entry[3] & MASKED == 0;
            if open {
                self.router.route(vector.gsi, vector.entry)?;
            }
            if open && !vector.connected {
                self.router.vm.register_irqfd(&vector.event, vector.gsi)?;
            } else if !open && vector.connected {
                self.router.vm.unregister_irqfd(&vector.event, vector.gsi)?;
            }
            vector.connected = open;
        }
        Ok(())
    }
}
