// SPDX-License-Identifier: GPL-2.0

//! The asfd: the file with all rights to a space.

use kernel::{
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    sync::Arc, //
};

use crate::{
    call::{
        events,
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
    space::{
        policy::Policy,
        terms::Terms,
        Handle, //
    },
};

/// The state of an asfd.
pub(crate) struct Asfd {
    terms: Arc<Terms>,
}

impl Asfd {
    /// The file of all of a space. `ENOMEM`.
    pub(crate) fn new(handle: Handle, policy: Policy, id: u64) -> Result<Self> {
        let terms = Terms::new(handle, SpacePage::new(0), policy, id, None)?;
        Ok(Asfd { terms })
    }
}

impl SpaceFile for Asfd {
    const IS_OWNER: bool = true;

    fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    fn pages(&self) -> u64 {
        self.space().pages
    }

    fn prot(&self) -> Prot {
        Prot::READ | Prot::WRITE | Prot::EXEC
    }

    fn manages(&self) -> bool {
        true
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::EVENTS => events::open(self, file, arg),
            uapi::POISON => events::poison(self, file, arg),
            uapi::KVM_MAP => kvm::map(self, file, arg),
            uapi::KVM_UNMAP => kvm::unmap(self, arg),
            _ => manage::ioctl(self, file, cmd, arg),
        }
    }

    fn show(&self, out: &SeqFile) {
        fdinfo::show_space(self, out);
    }
}
