// SPDX-License-Identifier: GPL-2.0

//! The asfd: the file with all rights to a space.

use kernel::{
    fs::File,
    prelude::*,
    seq_file::SeqFile, //
};

use crate::{
    call::{
        fdinfo,
        file::SpaceFile,
        kvm,
        manage,
        uapi, //
    },
    layout::{
        Prot,
        SpacePage, //
    },
    space::Handle,
};

/// The state of an asfd.
pub(crate) struct Asfd {
    handle: Handle,
}

impl Asfd {
    pub(crate) fn new(handle: Handle) -> Self {
        Asfd { handle }
    }
}

impl SpaceFile for Asfd {
    const NAME: &'static CStr = c"[address_space]";

    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn first(&self) -> SpacePage {
        SpacePage::new(0)
    }

    fn pages(&self) -> u64 {
        self.handle.space().pages
    }

    fn prot(&self) -> Prot {
        Prot::READ | Prot::WRITE | Prot::EXEC
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::KVM_MAP => kvm::map(self, file, arg),
            uapi::KVM_UNMAP => kvm::unmap(self, arg),
            _ => manage::ioctl(self, cmd, arg),
        }
    }

    fn show(&self, out: &SeqFile) {
        fdinfo::show_space(self.handle.space(), out);
    }
}
