// SPDX-License-Identifier: GPL-2.0

//! The view: a file that shows a part of a space, for some accesses only, and that can be mapped
//! and given to KVM; and, if it was made for that, used to change what is mapped in that part.

use kernel::{
    bindings::{
        O_CLOEXEC,
        O_RDONLY,
        O_RDWR, //
    },
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        Arc, //
    },
};

use crate::{
    call::{
        fdinfo,
        file::SpaceFile,
        kvm,
        manage,
        uapi, //
    },
    layout::Prot,
    space::terms::Terms,
    sys::file_operations,
};

/// The state of a view.
pub(crate) struct View {
    terms: Arc<Terms>,
    pages: u64,
    prot: Prot,
    manages: bool,
}

impl View {
    /// Opens a file, called `name`, that shows `pages` pages on the terms that are made for it; it
    /// `manages` if they can be changed through it. Errors as for [`file_operations::create`].
    pub(super) fn open(
        name: &CStr,
        pages: u64,
        prot: Prot,
        manages: bool,
        terms: impl FnOnce(&File) -> Result<Arc<Terms>>,
    ) -> Result<ARef<File>> {
        // Of what is open for reading only the kernel itself refuses writable mappings, and this
        // module changes. Of what is not, writable mappings are refused when it is attached.
        let mode = if prot.contains(Prot::WRITE) || manages {
            O_RDWR
        } else {
            O_RDONLY
        };
        file_operations::create(name, mode | O_CLOEXEC, |file| {
            let terms = terms(file)?;
            Ok(View {
                terms,
                pages,
                prot,
                manages,
            })
        })
    }
}

impl SpaceFile for View {
    const IS_OWNER: bool = false;

    fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    fn pages(&self) -> u64 {
        self.pages
    }

    fn prot(&self) -> Prot {
        self.prot
    }

    fn manages(&self) -> bool {
        self.manages
    }

    fn ioctl(&self, file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            uapi::KVM_MAP => kvm::map(self, file, arg),
            uapi::KVM_UNMAP => kvm::unmap(self, arg),
            _ if self.manages => manage::ioctl(self, file, cmd, arg),
            _ => Err(ENOTTY),
        }
    }

    fn show(&self, out: &SeqFile) {
        fdinfo::show_view(self, self.manages, out);
    }
}
