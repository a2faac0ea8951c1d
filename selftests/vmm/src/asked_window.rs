// SPDX-License-Identifier: GPL-2.0

//! A window that the VMM changes, as a file server asks it to: what there is without an
//! address space, and here for comparison. Memory of this process is a memory slot of the
//! guest's, and a thread maps files over parts of it, one for each SHMEM_MAP.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::spawn;

use anyhow::{Context as _, Result};
use kvm_bindings::kvm_userspace_memory_region;
use rig::plain::Plain;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Error, FrontendReqHandler, HandlerResult, VhostUserFrontendReqHandler};

use crate::machine::Base;
use crate::pci::Shared;

/// The number of the window's memory slot.
const SLOT: u32 = 2;

pub struct AskedWindow {
    shared: Shared,
    /// The server's end.
    socket: OwnedFd,
}

impl AskedWindow {
    pub fn new(base: &Base, shared: Shared) -> Result<AskedWindow> {
        let memory = Plain::reserved_aligned(shared.length as usize)?;
        let region = kvm_userspace_memory_region {
            slot: SLOT,
            flags: 0,
            guest_phys_addr: shared.addr,
            memory_size: shared.length,
            userspace_addr: memory.as_ptr() as u64,
        };
        // SAFETY: No references into the mapping exist, as `Plain` gives out only raw
        // pointers, and the thread below keeps it until the process ends.
        unsafe { base.vm.set_user_memory_region(region) }.context("the window's slot")?;
        let mut requests = FrontendReqHandler::new(Arc::new(Requests { memory }))?;
        requests.set_reply_ack_flag(true);
        // SAFETY: It is open while `requests` exists.
        let socket = unsafe { BorrowedFd::borrow_raw(requests.get_tx_raw_fd()) };
        let socket = socket.try_clone_to_owned()?;
        spawn(move || {
            loop {
                match requests.handle_request() {
                    // The server has been told that it failed.
                    Ok(_) | Err(Error::ReqHandlerError(_)) => {}
                    Err(error) => break eprintln!("messages of the file server: {error}"),
                }
            }
            // The guest may still run.
            std::mem::forget(requests);
        });
        Ok(AskedWindow { shared, socket })
    }

    pub fn shared(&self) -> Shared {
        self.shared
    }

    /// The socket for the server.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

struct Requests {
    memory: Plain,
}

impl VhostUserFrontendReqHandler for Requests {
    fn shmem_map(&self, request: &VhostUserMMap, file: &dyn AsRawFd) -> HandlerResult<u64> {
        // SAFETY: The caller has it open while it calls this.
        let file = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
        let [at, offset, length] =
            [request.shm_offset, request.fd_offset, request.len].map(|number| number as usize);
        let done = if request.flags & VhostUserMMapFlags::WRITABLE.bits() != 0 {
            self.memory.map_at(at, file, offset, length)
        } else {
            self.memory.map_for_reading_at(at, file, offset, length)
        };
        done.map(|()| 0).map_err(io::Error::other)
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let [at, length] = [request.shm_offset, request.len].map(|number| number as usize);
        let done = self.memory.reserve_at(at, length);
        done.map(|()| 0).map_err(io::Error::other)
    }
}
