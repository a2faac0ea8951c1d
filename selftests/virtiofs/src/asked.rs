// SPDX-License-Identifier: GPL-2.0

//! A DAX window that the VMM changes, as the server asks it to: what there is without an
//! address space, and here for comparison. Each change of a range is a message of
//! vhost-user's on the back end's channel, SHMEM_MAP with the file or SHMEM_UNMAP, and the
//! next one waits for the reply.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler as _};

use crate::share::Window;

/// A window of the VMM's.
pub struct Asked {
    vmm: Backend,
    range: Range<u64>,
    /// The open files, and whether they are open for writing too.
    files: HashMap<u64, (OwnedFd, bool)>,
}

impl Asked {
    /// The window of the VMM at the other end of a socket.
    pub fn new(socket: UnixStream, range: Range<u64>) -> Asked {
        let vmm = Backend::from_stream(socket);
        vmm.set_shmem_flag(true);
        vmm.set_reply_ack_flag(true);
        Asked {
            vmm,
            range,
            files: HashMap::new(),
        }
    }

    /// A request about a part of the window.
    fn part(&self, place: &Range<u64>) -> VhostUserMMap {
        VhostUserMMap {
            shm_offset: self.range.start.saturating_add(place.start),
            len: place.end - place.start,
            ..Default::default()
        }
    }
}

impl Window for Asked {
    /// Here, too, a file is opened once.
    fn map(
        &mut self,
        file: u64,
        offset: u64,
        place: Range<u64>,
        write: bool,
        open: &dyn Fn() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        let request = VhostUserMMap {
            fd_offset: offset,
            flags: if write {
                VhostUserMMapFlags::WRITABLE.bits()
            } else {
                0
            },
            ..self.part(&place)
        };
        let known = self.files.get(&file);
        if known.is_none_or(|&(_, writable)| write && !writable) {
            self.files.insert(file, (open()?, write));
        }
        self.vmm.shmem_map(&request, &self.files[&file].0)?;
        Ok(())
    }

    fn unmap(&mut self, places: &[Range<u64>]) -> io::Result<()> {
        for place in places {
            self.vmm.shmem_unmap(&self.part(place))?;
        }
        Ok(())
    }

    fn forget(&mut self, file: u64) {
        self.files.remove(&file);
    }

    fn clear(&mut self) -> io::Result<()> {
        self.files.clear();
        let all = 0..self.range.end - self.range.start;
        self.unmap(std::slice::from_ref(&all))
    }
}
