// SPDX-License-Identifier: GPL-2.0

//! The view: a file that shows a part of a space, for some accesses only, and that can be mapped and
//! given to KVM; and, if it was made for that, used to change what is mapped in that part.

use core::ops::Range;

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
        Pages,
        Prot,
        SpacePage, //
    },
    space::Handle,
};

/// The state of a view.
pub(crate) struct View {
    handle: Handle,
    range: Range<SpacePage>,
    prot: Prot,
    manages: bool,
}

impl View {
    /// A view of a range; `manages` if the range can be changed through it.
    pub(crate) fn new(handle: Handle, range: Range<SpacePage>, prot: Prot, manages: bool) -> Self {
        View {
            handle,
            range,
            prot,
            manages,
        }
    }
}

impl SpaceFile for View {
    const NAME: &'static CStr = c"[address_space_view]";

    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn first(&self) -> SpacePage {
        self.range.start
    }

    fn pages(&self) -> u64 {
        self.range.count()
    }

    fn prot(&self) -> Prot {
        self.prot
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::KVM_MAP => kvm::map(self, file, arg),
            uapi::KVM_UNMAP => kvm::unmap(self, arg),
            _ if self.manages => manage::ioctl(self, cmd, arg),
            _ => Err(ENOTTY),
        }
    }

    fn show(&self, out: &SeqFile) {
        fdinfo::show_view(&self.range, self.prot, self.manages, out);
    }
}
